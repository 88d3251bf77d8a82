// What is said of whole runs: how they stand, the lines over their steps, findings and actions.

import {closeCharts, lineChart} from "./charts.js";
import {clean, make} from "./dom.js";
import {actionsTable, episodesOf, findingItem, verdictOf} from "./findings.js";

const CHARTS = [
  {title: "Gradient norm, before and after clipping", names: ["global_grad_norm", "global_grad_norm_at_update"], log: true},
  {title: "Clip coefficient", names: ["clip_coefficient", "guard_clip_coefficient"], unit: true},
  {title: "Learning rate", names: ["learning_rate"]},
  {title: "Loss", names: ["loss"], log: true},
];

export function drawVerdict({parts, shown}) {
  parts.verdict.replaceChildren(...shown.map(({name, overview}) => {
    const {text, level} = verdictOf(overview);
    const end = overview.meta.finished ? `Training: ${overview.meta.finished}.` : "Training goes on, or was cut off.";
    return make("p", {className: `gg-verdict-line gg-${level}`}, make("b", {}, clean(name)), " ", clean(text), " ",
      make("span", {className: "gg-faint"}, clean(end)));
  }));
}

export function drawSteps(app) {
  const {parts, shown} = app;
  closeCharts(app, "steps");
  const charts = make("div", {className: "gg-charts"});
  parts.steps.replaceChildren(make("h2", {}, "The run, step by step"), charts);
  for (const {title, names, log, unit} of CHARTS) {
    const series = shown.flatMap((one, k) => seriesOf(one, names, shown.length > 1, k ? [6, 3] : undefined));
    const positive = series.every(({y}) => y.every((v) => !(v <= 0)));
    if (series.length) lineChart(app, "steps", charts, title, series, {log: log && positive, unit});
  }
}

function seriesOf({name, scalars}, names, several, dash) {
  return names.filter((wanted) => scalars?.names.includes(wanted)).map((wanted) => {
    const place = scalars.names.indexOf(wanted) * scalars.x.length;
    return {label: `${wanted.replaceAll("_", " ")}${several ? `, ${name}` : ""}`, x: scalars.x, dash,
      y: scalars.y.subarray(place, place + scalars.x.length)};
  });
}

export function drawFindings(app) {
  const {parts, shown} = app;
  const several = shown.length > 1;
  const open = async (layer) => {
    await app.open(layer);
    parts.detail.scrollIntoView({block: "nearest"});
  };
  parts.findings.replaceChildren(...shown.map(({name, overview}) => {
    const all = episodesOf(overview.findings);
    return make("div", {}, make("h2", {}, "Findings", several ? ` of ${clean(name)}` : ""),
      all.length ? make("ol", {}, ...all.map((one) => findingItem(one, open)))
        : make("p", {className: "gg-faint"}, "None."));
  }));
  parts.actions.replaceChildren(...shown.filter(({overview}) => overview.actions.length).map(({name, overview}) =>
    make("div", {}, make("h2", {}, "What was done", several ? ` in ${clean(name)}` : ""),
      actionsTable(overview.actions))));
}
