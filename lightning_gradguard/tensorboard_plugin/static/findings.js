// What is wrong, in words: the verdict, and each finding with its evidence and advice.

import {severityOf} from "./colour.js";
import {clean, make, short} from "./dom.js";

// How a run stands, from best to worst.
export const LEVELS = ["fine", "info", "warning", "error", "critical"];

// The findings of one fault become one entry: the worst of them, and whether it has ended.
export function episodesOf(findings) {
  const found = new Map();
  findings.forEach((finding, i) => {
    const key = finding.episode_id ? `${finding.optimizer_index}/${finding.episode_id}` : `#${i}`;
    const known = found.get(key);
    if (!known) found.set(key, {...finding, ended: finding.state === "resolved" ? finding.step : null, later: []});
    else if (finding.state === "resolved") known.ended = finding.step;
    else {
      known.later.push(finding);
      known.severity = Math.max(known.severity, finding.severity);
    }
  });
  return [...found.values()].sort((a, b) => b.severity - a.severity || a.step - b.step);
}

export function verdictOf(overview) {
  const alarms = episodesOf(overview.findings).filter((one) => one.severity >= 30);
  const range = overview.optimizers[0]?.range;
  const seen = range ? `steps ${range[0]} to ${range[1]}` : "no step yet";
  const {stopped} = overview.meta;
  if (stopped) return {text: `Watching stopped: ${stopped} (${seen}).`, level: "error"};
  if (!alarms.length) return {text: `Nothing wrong was found (${seen}).`, level: "fine"};
  const kinds = [...new Set(alarms.map((one) => one.kind))];
  return {text: `${kinds.map((kind) => kindText(alarms.filter((one) => one.kind === kind))).join("; ")} (${seen}).`,
    level: severityOf(alarms[0])[0]};
}

function kindText(alarms) {
  const first = alarms.reduce((a, b) => (a.step <= b.step ? a : b));
  const since = first.since_step >= 0 ? first.since_step : first.step;
  const open = alarms.some((one) => one.ended === null) ? "still open" : "over";
  const when = alarms.length > 1 ? `${alarms.length} times from step ${since} on` : `since step ${since}`;
  return `${first.kind.replaceAll("_", " ")} in ${layersText(first.layers)} ${when}, ${open}`;
}

function layersText(layers) {
  if (!layers.length) return "whole model";
  if (layers.length <= 2) return layers.map(clean).join(", ");
  return `${clean(layers[0])} … ${clean(layers.at(-1))} (${layers.length} layers)`;
}

export function findingItem(finding, openLayer) {
  const [level, colour] = severityOf(finding);
  const since = finding.since_step >= 0 ? `since step ${finding.since_step}` : "";
  const until = finding.ended === null ? "still open" : `ended at step ${finding.ended}`;
  const numbers = finding.value === null || finding.value === undefined ? ""
    : `${short(finding.value)} ${finding.unit}${finding.limit === null ? "" : `, limit ${short(finding.limit)}`}`;
  const badge = make("span", {className: "gg-badge"}, level);
  badge.style.background = colour;
  return make("li", {className: "gg-finding"},
    make("div", {}, badge, make("b", {}, clean(finding.kind.replaceAll("_", " "))), ` at step ${finding.step} `,
      finding.layers.length
        ? make("button", {type: "button", className: "gg-link", onclick: () => openLayer(finding.layers[0], finding.optimizer_index)},
          layersText(finding.layers))
        : make("span", {}, layersText(finding.layers))),
    make("div", {}, clean(finding.message), "."),
    make("div", {className: "gg-faint"}, [numbers && `Measured ${clean(numbers)}`, since, until].filter(Boolean).join(" · ")),
    ...finding.later.map((one) => make("div", {}, `Got worse at step ${one.step}: `, clean(one.message), ".")),
    finding.advice ? make("div", {className: "gg-advice"}, "Try: ", clean(finding.advice)) : null);
}

// `thinned` counts those that are no longer in the file, by kind.
export function actionsTable(actions, thinned = {}) {
  const kinds = new Map();
  for (const action of actions) {
    const key = `${action.dry_run ? "would have: " : ""}${action.what}`;
    const known = kinds.get(key) || {times: Number(thinned[action.what]) || 0, first: action.step, why: action.why};
    kinds.set(key, {...known, times: known.times + action.times, last: action.last_step});
  }
  return make("table", {className: "gg-table"},
    make("tr", {}, ...["action", "times", "first step", "last step", "reason"].map((t) => make("th", {}, t))),
    ...[...kinds].map(([what, one]) => make("tr", {},
      ...[what, one.times, one.first, one.last, one.why].map((t) => make("td", {}, clean(t))))));
}
