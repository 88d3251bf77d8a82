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

// How the runs shown stand; in a report all of them, worst first.
export function drawVerdict(app) {
  const all = app.report ? app.source.all() : app.described.filter((one) => one.overview);
  app.parts.verdict.replaceChildren(...all.map(({name, overview}) => {
    const {text, level} = verdictOf(overview);
    const end = overview.meta.finished ? `Training: ${overview.meta.finished}.` : "Training goes on, or was cut off.";
    const resumed = (overview.meta.attempts ?? []).slice(1).map((one) => one.from_step).filter(Number.isInteger);
    const from = resumed.length ? ` Resumed from step ${resumed.join(", ")}.` : "";
    const title = all.length > 2
      ? make("button", {type: "button", className: "gg-link", onclick: () => app.choose({run: name, ends: null, folded: null})}, clean(name))
      : make("b", {}, clean(name));
    return make("p", {className: `gg-verdict-line gg-${level}`}, title, ": ", clean(text), " ",
      make("span", {className: "gg-faint"}, clean(end + from)));
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
  return names.filter((wanted) => scalars?.names.includes(wanted) && isKnown(scalars, wanted)).map((wanted) => {
    const place = scalars.names.indexOf(wanted) * scalars.x.length;
    return {label: `${wanted.replaceAll("_", " ")}${several ? `, ${name}` : ""}`, x: scalars.x, dash,
      y: scalars.y.subarray(place, place + scalars.x.length)};
  });
}

function isKnown({names, x, y}, wanted) {
  const place = names.indexOf(wanted) * x.length;
  return y.subarray(place, place + x.length).some((value) => !Number.isNaN(value));
}

export function drawFindings(app) {
  const {parts} = app;
  const shown = app.described.filter((one) => one.overview);
  const several = shown.length > 1;
  const open = async (layer, optimizer) => {
    await app.open(layer, optimizer);
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
      actionsTable(overview.actions, overview.meta.thinned ?? {}))));
}
