// The page: what is chosen, what is fetched for it, and in which order it is drawn.

import {dataRange} from "./colour.js";
import {drawControls} from "./controls.js";
import {clean, make} from "./dom.js";
import {stemOf} from "./groups.js";
import {drawLayer, layerTitle} from "./layer.js";
import {matchRun, outerWindow, readLink} from "./link.js";
import {drawLegend, drawMaps, paintMaps} from "./maps.js";
import {drawFindings, drawSteps, drawVerdict} from "./run.js";

const ORDER = ["message", "verdict", "controls", "maps", "legend", "detail", "findings", "actions", "steps"];
// A report is read from its top: what is wrong comes before the pictures.
const REPORT_ORDER = ["message", "verdict", "findings", "controls", "maps", "legend", "detail", "steps", "actions"];
const FOLDED_FROM = 60;
const MOST_KNOWN = 64;
const COLUMNS = 600;

// `refresh` fetches everything anew, `redraw` draws what is there, as after a change of theme.
export async function startApp(root, source, {report = false} = {}) {
  const app = newApp(root, source, report);
  new ResizeObserver(() => {
    const width = root.clientWidth;
    if (app.shown.length && app.width && width !== app.width) draw(app);
    app.width = width;
  }).observe(root);
  for (const view of [window, outerWindow()]) view?.addEventListener("hashchange", () => follow(app));
  await app.load();
  root.dataset.ready = "yes";
  return {refresh: () => { app.known.clear(); return app.load(); }, redraw: () => app.shown.length && draw(app)};
}

// What all parts of the page are handed: what is chosen, what is shown, and how to change it.
function newApp(root, source, report) {
  const {run, layer, statistic, step, optimizer} = readLink();
  const parts = Object.fromEntries((report ? REPORT_ORDER : ORDER).map(
    (name) => [name, make("section", {className: `gg-${name}`})]));
  root.classList.add("gg");
  root.replaceChildren(...Object.values(parts));
  const app = {source, report, parts, turn: 0, known: new Map(), runs: [], shown: [], charts: {},
    state: {run, other: null, statistic, mode: "plain", filter: "", optimizer: Number(optimizer ?? 0), ends: null,
      layer: layer ?? null, step: numberOf(step), folded: null}};
  app.tell = (text) => parts.message.replaceChildren(text ? make("p", {role: "status"}, clean(text)) : "");
  app.guarded = (work) => async (...args) => {
    try { await work(...args); } catch (error) { app.tell(error.message); console.warn(error); }
  };
  app.load = app.guarded(() => load(app));
  app.choose = (change) => { Object.assign(app.state, change); return app.load(); };
  app.arrange = (change) => { Object.assign(app.state, change); drawMaps(app); };
  app.zoom = (first, last) => zoom(app, first, last);
  app.open = (name, optimizer = app.state.optimizer) => {
    if (optimizer !== app.state.optimizer) return app.choose({layer: name, optimizer, folded: null});
    app.state.layer = name;
    paintMaps(app);
    return showLayer(app);
  };
  return app;
}

const numberOf = (text) => (text === undefined ? null : Number(text));

function follow(app) {
  const {run, layer, step, optimizer} = readLink();
  if (!app.shown.length || !layer) return;
  app.state.step = numberOf(step);
  const chosen = matchRun(app.runs, run) ?? app.state.run;
  const index = Number(optimizer ?? app.state.optimizer);
  if (chosen === app.state.run && index === app.state.optimizer) app.open(layer);
  else app.choose({run: chosen, layer, optimizer: index, ends: null, folded: null});
}

// Ask once; ask again only after a reload, or when it failed.
function recall(app, ask, ...key) {
  const text = JSON.stringify([ask, ...key]);
  if (!app.known.has(text)) {
    const answer = app.source[ask](...key);
    answer.catch(() => app.known.delete(text));
    app.known.set(text, answer);
    if (app.known.size > MOST_KNOWN) app.known.delete(app.known.keys().next().value);
  }
  return app.known.get(text);
}

async function load(app) {
  const {state} = app;
  const turn = ++app.turn;
  app.parts.maps.setAttribute("aria-busy", "true");
  try {
    const {runs, latest, message} = await recall(app, "runs");
    const notes = [message || (runs.length ? "" : "No gradguard/history.sqlite was found beneath the log directory yet.")];
    app.runs = runs;
    if (runs.length) notes.push(chooseRuns(app, latest));
    const wanted = runs.length ? [state.run, state.other].filter(Boolean) : [];
    const described = await Promise.all(wanted.map((name) => describe(app, name)));
    if (turn !== app.turn) return;
    settle(app, described.find((one) => one.part));
    const filled = await Promise.all(described.map((one) => fill(app, one)));
    if (turn !== app.turn) return;
    app.described = filled;
    app.shown = filled.filter((one) => one.map);
    app.tell([...notes, ...filled.map((one) => one.error)].filter(Boolean).join(" "));
    draw(app);
  } finally {
    if (turn === app.turn) app.parts.maps.removeAttribute("aria-busy");
  }
}

function chooseRuns(app, latest) {
  const {state, runs} = app;
  const asked = state.run;
  state.run = matchRun(runs, asked) ?? latest ?? runs[0];
  // A report about several runs is there to compare them.
  if (state.other === null && app.report) state.other = runs.find((name) => name !== state.run);
  if (!runs.includes(state.other) || state.other === state.run) state.other = "";
  return asked && asked !== state.run && !matchRun(runs, asked) ? `There is no run ${asked} here; this is ${state.run}.` : "";
}

// A run that cannot be read says why, and hides no other.
async function describe(app, name) {
  try {
    const overview = await recall(app, "overview", name);
    const part = overview.optimizers.find((one) => one.index === app.state.optimizer) || overview.optimizers[0];
    return {name, overview, part, error: part?.range && part.layers.length ? "" : `${name} has no step with a layer yet.`};
  } catch (error) {
    return {name, error: `${name}: ${error.message}`};
  }
}

// What was chosen must be there in the first run; many layers begin folded.
function settle({state}, first) {
  if (!first) return;
  const {overview, part} = first;
  if (!overview.statistics.includes(state.statistic)) state.statistic = overview.statistics[0];
  const owner = [part, ...overview.optimizers].find(({layers}) => layers.includes(state.layer)) ?? part;
  first.part = owner;
  state.optimizer = owner.index;
  state.folded ??= new Set(owner.layers.length > FOLDED_FROM ? owner.layers.map(stemOf).filter(Boolean) : []);
}

async function fill(app, one) {
  const {state, source} = app;
  if (one.error || !one.overview.statistics.includes(state.statistic)) return one;
  try {
    [one.map, one.scalars] = await Promise.all([
      source.heatmap(one.name, {statistic: state.statistic, optimizer: one.part.index,
        relative: state.mode === "last" ? "last" : "none",
        first: state.ends?.[0], last: state.ends?.[1], columns: COLUMNS}),
      recall(app, "scalars", one.name, one.part.index, state.ends),
    ]);
  } catch (error) {
    one.error = `${one.name}: ${error.message}`;
  }
  return one;
}

function draw(app) {
  drawControls(app);
  drawVerdict(app);
  drawFindings(app);
  if (!app.shown.length) {
    for (const part of ["maps", "legend", "detail", "steps"]) app.parts[part].replaceChildren();
    return;
  }
  app.extent = app.state.ends || wholeExtent(app);
  scale(app);
  drawMaps(app);
  drawLegend(app);
  drawSteps(app);
  showLayer(app);
}

// The steps of all runs shown.
function wholeExtent(app) {
  const ranges = app.shown.map(({part}) => part.range);
  return [Math.min(...ranges.map((r) => r[0])), Math.max(...ranges.map((r) => r[1]))];
}

function zoom(app, first, last) {
  const [low, high] = wholeExtent(app);
  const from = Math.max(low, Math.min(Math.round(first), high - 1));
  return app.choose({ends: [from, Math.max(from + 1, Math.min(Math.round(last), high))]});
}

// Put the numbers of the pictures on one scale: in log10, perhaps relative to each layer's median.
function scale(app) {
  const {shown, state} = app;
  app.isLog = shown.every(({map}) => map.scale === "log2");
  app.around = app.isLog && state.mode !== "plain";
  const unit = app.isLog ? Math.log10(2) : 1;
  for (const {map} of shown) {
    const width = map.steps.length;
    const usual = map.medians.map((m) => (m === null ? 0 : m * unit));
    const isRelative = app.isLog && state.mode === "median";
    map.shown = Float32Array.from(map.cells, (v, i) => v * unit - (isRelative ? usual[Math.floor(i / width)] : 0));
    map.usual = app.around ? usual.map(() => 0) : usual;
  }
  app.range = app.isLog ? dataRange(shown.map(({map}) => map.shown), app.around) : [0, 1];
}

function showLayer(app) {
  return app.guarded(async () => {
    const {turn, shown, state: {layer}} = app;
    if (layer === null) return drawLayer(app, null, []);
    const having = shown.filter(({part}) => part.layers.includes(layer));
    if (app.parts.detail.dataset.layer !== layer) app.parts.detail.replaceChildren(layerTitle(app, layer));
    const found = await Promise.all(having.map(async (one) => ({one,
      lines: await recall(app, "lines", one.name, layer, one.part.index, app.state.ends),
      histogram: await recall(app, "histogram", one.name, layer, one.part.index),
      overTime: await recall(app, "overTime", one.name, layer, one.part.index)})));
    if (turn === app.turn && layer === app.state.layer) drawLayer(app, layer, found);
  })();
}
