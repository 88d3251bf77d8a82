// The page: what is chosen, what is fetched for it, and in which order it is drawn.

import {dataRange} from "./colour.js";
import {drawControls} from "./controls.js";
import {clean, make} from "./dom.js";
import {stemOf} from "./groups.js";
import {drawLayer, layerTitle} from "./layer.js";
import {readLink} from "./link.js";
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
  addEventListener("hashchange", () => follow(app));
  await app.load();
  root.dataset.ready = "yes";
  return {refresh: () => { app.known.clear(); return app.load(); }, redraw: () => app.shown.length && draw(app)};
}

// What all parts of the page are handed: what is chosen, what is shown, and how to change it.
function newApp(root, source, report) {
  const {run, layer, statistic, step} = readLink();
  const parts = Object.fromEntries((report ? REPORT_ORDER : ORDER).map(
    (name) => [name, make("section", {className: `gg-${name}`})]));
  root.classList.add("gg");
  root.replaceChildren(...Object.values(parts));
  const app = {source, report, parts, turn: 0, known: new Map(), runs: [], shown: [], charts: {},
    state: {run, other: null, statistic, mode: "plain", filter: "", optimizer: 0, ends: null,
      layer: layer ?? null, step: step === undefined ? null : Number(step), folded: null}};
  app.tell = (text) => parts.message.replaceChildren(text ? make("p", {role: "status"}, clean(text)) : "");
  app.guarded = (work) => async (...args) => {
    try { await work(...args); } catch (error) { app.tell(error.message); console.warn(error); }
  };
  app.load = app.guarded(() => load(app));
  app.choose = (change) => { Object.assign(app.state, change); return app.load(); };
  app.arrange = (change) => { Object.assign(app.state, change); drawMaps(app); };
  app.zoom = (first, last) => zoom(app, first, last);
  app.open = (name) => { app.state.layer = name; paintMaps(app); return showLayer(app); };
  return app;
}

function follow(app) {
  const {run, layer, step} = readLink();
  if (!app.shown.length || !layer) return;
  app.state.step = step === undefined ? null : Number(step);
  if (run && run !== app.state.run && app.runs.includes(run)) app.choose({run, layer});
  else app.open(layer);
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
    const {runs, message} = await recall(app, "runs");
    app.tell(message || (runs.length ? "" : "No gradguard/history.sqlite was found beneath the log directory yet."));
    if (!runs.length) return;
    chooseRuns(app, runs);
    const shown = await Promise.all([state.run, state.other].filter(Boolean).map((name) => describe(app, name)));
    if (turn !== app.turn) return;
    settle(app, shown[0]);
    if (!shown[0].part?.layers.length) { app.tell("This run has no step yet."); return; }
    await Promise.all(shown.map((one) => fill(app, one)));
    if (turn !== app.turn) return;
    app.shown = shown.filter((one) => one.map);
    draw(app);
  } finally {
    if (turn === app.turn) app.parts.maps.removeAttribute("aria-busy");
  }
}

function chooseRuns(app, runs) {
  const {state} = app;
  app.runs = runs;
  if (!runs.includes(state.run)) state.run = runs[0];
  // A report about several runs is there to compare them.
  if (state.other === null && app.report) state.other = runs.find((name) => name !== state.run);
  if (!runs.includes(state.other) || state.other === state.run) state.other = "";
}

async function describe(app, name) {
  const overview = await recall(app, "overview", name);
  const part = overview.optimizers.find((one) => one.index === app.state.optimizer) || overview.optimizers[0];
  return {name, overview, part};
}

// What was chosen must be there in the first run; many layers begin folded.
function settle({state}, {overview, part}) {
  if (!overview.statistics.includes(state.statistic)) state.statistic = overview.statistics[0];
  if (part) state.optimizer = part.index;
  if (part && !state.folded) {
    state.folded = new Set(part.layers.length > FOLDED_FROM ? part.layers.map(stemOf).filter(Boolean) : []);
  }
}

async function fill(app, one) {
  const {state, source} = app;
  if (!one.part?.layers.length || !one.overview.statistics.includes(state.statistic)) return;
  [one.map, one.scalars] = await Promise.all([
    source.heatmap(one.name, {statistic: state.statistic, optimizer: one.part.index,
      relative: state.mode === "last" ? "last" : "none",
      first: state.ends?.[0], last: state.ends?.[1], columns: COLUMNS}),
    recall(app, "scalars", one.name, one.part.index),
  ]);
}

function draw(app) {
  app.extent = app.state.ends || wholeExtent(app);
  scale(app);
  drawControls(app);
  drawVerdict(app);
  drawMaps(app);
  drawLegend(app);
  drawSteps(app);
  drawFindings(app);
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

// Put the numbers of the pictures on one scale, in log10, perhaps relative to each layer's median.
function scale(app) {
  const {shown, state} = app;
  app.around = state.mode !== "plain";
  for (const {map} of shown) {
    const width = map.steps.length;
    const usual = map.medians.map((m) => (m === null ? 0 : m * Math.log10(2)));
    map.shown = Float32Array.from(map.cells, (v, i) => v * Math.log10(2) -
      (state.mode === "median" ? usual[Math.floor(i / width)] : 0));
    map.usual = app.around ? usual.map(() => 0) : usual;
  }
  app.range = dataRange(shown.map(({map}) => map.shown), app.around);
}

function showLayer(app) {
  return app.guarded(async () => {
    const {turn, shown, state: {layer}} = app;
    if (layer === null) return drawLayer(app, null, []);
    const having = shown.filter(({part}) => part.layers.includes(layer));
    const wanted = app.parts.detail.dataset.layer;
    if (wanted !== layer) app.parts.detail.replaceChildren(layerTitle(app, layer));
    const found = await Promise.all(having.map(async (one) => ({one,
      lines: await recall(app, "lines", one.name, layer, one.part.index),
      histogram: await recall(app, "histogram", one.name, layer, one.part.index)})));
    if (turn === app.turn && layer === app.state.layer) drawLayer(app, layer, found);
  })();
}
