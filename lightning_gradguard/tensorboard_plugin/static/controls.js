// The row of controls: which run, beside which, which statistic, in which colours, which layers.

import {clean, make} from "./dom.js";
import {stemOf} from "./groups.js";

const MODES = [["plain", "by its size"], ["median", "relative to the layer's own median"],
  ["last", "relative to the last layer"]];

export function drawControls(app) {
  const {parts, described: [first], state} = app;
  const hadFocus = document.activeElement?.dataset?.control;
  const stems = first?.part?.layers.map(stemOf).filter(Boolean) ?? [];
  const statistics = first?.overview?.statistics ?? [];
  parts.controls.replaceChildren(...[
    ...runControls(app, first),
    ...(app.shown.length ? [
      choice(app, "statistic", "Statistic", statistics.map((n) => [n, n.replaceAll("_", " ")]), state.statistic),
      choice(app, "mode", "Colour", MODES, state.mode),
      filterBox(app)] : []),
    stems.length ? button("fold", "Fold all", () => app.arrange({folded: new Set(stems)})) : null,
    stems.length ? button("unfold", "Unfold all", () => app.arrange({folded: new Set()})) : null,
    state.ends ? button("all", "All steps", () => app.choose({ends: null})) : null,
  ].filter(Boolean));
  if (hadFocus) parts.controls.querySelector(`[data-control="${hadFocus}"]`)?.focus();
}

function runControls(app, first) {
  const {state} = app;
  const runs = app.runs.map((name) => [name, name]);
  const others = runs.filter(([name]) => name !== state.run);
  const indices = (first?.overview?.optimizers ?? []).map(({index, layers}) => [String(index), `${index}: ${ends(layers)}`]);
  // Steps and layers of another run are others.
  const anew = {ends: null, folded: null};
  return [
    runs.length ? choice(app, "run", "Run", runs, state.run, (run) => ({run, ...anew})) : null,
    others.length ? choice(app, "other", "Beside it", [["", "none"], ...others], state.other) : null,
    indices.length > 1 ? choice(app, "optimizer", "Optimizer", indices, String(state.optimizer),
      (index) => ({optimizer: Number(index), ...anew})) : null,
  ];
}

const ends = (layers) => (layers.length > 1 ? `${layers[0]} … ${layers.at(-1)}` : layers[0] ?? "no layer");

function choice(app, name, label, options, value, changed = (chosen) => ({[name]: chosen})) {
  const select = make("select", {onchange: (event) => app.choose(changed(event.target.value))},
    ...options.map(([key, text]) => make("option", {value: key, selected: key === value}, clean(text))));
  select.dataset.control = name;
  return make("label", {}, label, select);
}

function filterBox(app) {
  const box = make("input", {type: "search", value: app.state.filter, placeholder: "part of a name",
    oninput: (event) => app.arrange({filter: event.target.value})});
  box.dataset.control = "filter";
  return make("label", {}, "Layers", box);
}

function button(name, text, onclick) {
  const made = make("button", {type: "button", onclick}, text);
  made.dataset.control = name;
  return made;
}
