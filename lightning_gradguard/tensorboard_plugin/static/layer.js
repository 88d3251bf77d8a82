// One layer, opened: its statistics as lines, and the sizes of its gradient over time.

import {closeCharts, drawHistogram, drawOverTime, lineChart} from "./charts.js";
import {clean, make} from "./dom.js";
import {linkTo} from "./link.js";

const LINEAR = new Set(["zero_fraction", "grad_mean", "num_nonfinite"]);
const SHARES = new Set(["zero_fraction"]);

export function layerTitle(app, layer) {
  const close = make("button", {type: "button", onclick: () => app.open(null)}, "Close");
  const link = make("a", {href: linkTo({layer, run: app.state.run, optimizer: app.state.optimizer || undefined}), target: "_top"}, "link to it");
  return make("h2", {}, "Layer ", make("code", {}, clean(layer)), " ", close, " ", link);
}

// Found: of each run that has the layer, `one` of those shown, its `lines` and its `histogram`.
export function drawLayer(app, layer, found) {
  const {detail} = app.parts;
  closeCharts(app, "layer");
  detail.dataset.layer = layer ?? "";
  if (layer === null) {
    detail.replaceChildren(make("p", {className: "gg-faint"}, "Choose a layer in the picture to see its numbers."));
    return;
  }
  const charts = make("div", {className: "gg-charts"});
  detail.replaceChildren(layerTitle(app, layer), charts);
  if (!found.length) charts.append(make("p", {}, "There is no such layer in this run."));
  for (const {one, histogram} of found) {
    if (!histogram?.cells.length) continue;
    const canvas = make("canvas");
    charts.append(make("figure", {className: "gg-chart"}, make("figcaption", {},
      `log2 histogram of its gradient over time${found.length > 1 ? `, ${clean(one.name)}` : ""}`), canvas));
    drawHistogram(canvas, histogram, app.extent);
  }
  for (const {one, overTime} of found) {
    (overTime?.profiles ?? []).forEach((profile, k) => {
      const canvas = make("canvas");
      charts.append(make("figure", {className: "gg-chart"}, make("figcaption", {},
        `gradient of its ${profile.what}, by time step${found.length > 1 ? `, ${clean(one.name)}` : ""}`), canvas));
      drawOverTime(canvas, profile, overTime[`cells${k}`], app.extent);
    });
  }
  for (const name of new Set(found.flatMap(({lines}) => lines.names))) drawStatistic(app, charts, name, found);
}

function drawStatistic(app, charts, name, found) {
  const title = name.replaceAll("_", " ");
  const series = found.filter(({lines}) => lines.names.includes(name)).map(({one, lines: {names, x, y}}, k) => {
    const place = names.indexOf(name) * x.length;
    return {label: found.length > 1 ? one.name : title, x, dash: k ? [6, 3] : undefined,
      y: y.subarray(place, place + x.length)};
  });
  lineChart(app, "layer", charts, title, series, {log: !LINEAR.has(name), unit: SHARES.has(name)});
}
