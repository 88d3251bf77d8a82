// The page: what is chosen, what is fetched for it, and where it is drawn.

import {cellColour, dataRange, ramp} from "./colour.js";
import {drawHistogram, lineChart} from "./charts.js";
import {clean, make, short} from "./dom.js";
import {actionsTable, episodesOf, findingItem, verdictOf} from "./findings.js";
import {rowsOf, stemOf} from "./groups.js";
import {cellAt, drawHeatmap} from "./heatmap.js";
import {linkTo, readLink} from "./link.js";

const LOG2 = Math.log10(2);
const LINEAR = new Set(["zero_fraction", "learning_rate", "lr_factor", "clip_coefficient",
  "guard_clip_coefficient", "grad_mean", "severity", "layers_flagged", "clipped_fraction", "dead_fraction"]);
const SHARES = new Set(["zero_fraction", "lr_factor", "clip_coefficient", "guard_clip_coefficient",
  "clipped_fraction", "dead_fraction"]);
const STEP_CHARTS = [
  ["Gradient norm, before and after clipping", ["global_grad_norm", "global_grad_norm_at_update"]],
  ["Clip coefficient", ["clip_coefficient", "guard_clip_coefficient"]],
  ["Learning rate", ["learning_rate"]],
  ["Loss", ["loss"]],
];
const MODES = [["plain", "log10 of the value"], ["median", "relative to the layer's own median"],
  ["last", "relative to the last layer"]];

const ORDER = ["message", "verdict", "controls", "maps", "legend", "readout", "detail", "steps",
  "findings", "actions"];
// A report is read from its top: what is wrong comes before the pictures.
const REPORT_ORDER = ["message", "verdict", "findings", "controls", "maps", "legend", "readout",
  "detail", "steps", "actions"];

export async function startApp(root, source, {report = false} = {}) {
  const link = readLink();
  const state = {run: link.run, other: "", statistic: link.statistic, mode: "plain", filter: "",
    optimizer: 0, ends: null, layer: link.layer ?? null, folded: null, turn: 0};
  root.classList.add("gg");
  const parts = Object.fromEntries((report ? REPORT_ORDER : ORDER).map(
    (name) => [name, make("section", {className: `gg-${name}`})]));
  parts.readout.setAttribute("aria-live", "polite");
  root.replaceChildren(...Object.values(parts));

  const tell = (text) => parts.message.replaceChildren(text ? make("p", {role: "status"}, clean(text)) : "");
  const guarded = (work) => async (...args) => {
    try { await work(...args); } catch (error) { tell(error.message); console.warn(error); }
  };

  const load = guarded(async () => {
    const turn = ++state.turn;
    const {runs, message} = await source.runs();
    tell(message || (runs.length ? "" : "No gradguard/history.sqlite was found beneath the log directory yet."));
    if (!runs.length) return;
    if (!runs.includes(state.run)) state.run = runs[0];
    if (report && state.turn === 1) state.other = runs.find((name) => name !== state.run) ?? "";
    if (!runs.includes(state.other) || state.other === state.run) state.other = "";
    const shown = await Promise.all([state.run, state.other].filter(Boolean).map(async (name) => {
      const overview = await source.overview(name);
      const part = overview.optimizers.find((one) => one.index === state.optimizer) || overview.optimizers[0];
      return {name, overview, part};
    }));
    const first = shown[0];
    if (!first.part?.layers.length) return tell("This run has no step yet.");
    if (!first.overview.statistics.includes(state.statistic)) state.statistic = first.overview.statistics[0];
    if (!state.folded) {
      const layers = first.part.layers;
      state.folded = new Set(layers.length > 60 ? layers.map(stemOf).filter(Boolean) : []);
    }
    await Promise.all(shown.map(async (one) => {
      if (!one.part || !one.overview.statistics.includes(state.statistic)) return;
      [one.map, one.scalars] = await Promise.all([
        source.heatmap(one.name, {statistic: state.statistic, optimizer: one.part.index,
          relative: state.mode === "last" ? "last" : "none",
          first: state.ends?.[0], last: state.ends?.[1], columns: 600}),
        source.scalars(one.name, one.part.index),
      ]);
    }));
    if (turn !== state.turn) return;
    state.runs = runs;
    state.shown = shown.filter((one) => one.map);
    draw();
  });

  function draw() {
    const shown = state.shown;
    const around = state.mode !== "plain";
    for (const {map} of shown) {
      const width = map.steps.length;
      map.usual = map.medians.map((m) => (m === null ? 0 : m * LOG2));
      map.shown = Float32Array.from(map.cells, (v, i) => v * LOG2 -
        (state.mode === "median" ? map.usual[Math.floor(i / width)] : 0));
      if (around) map.usual = map.usual.map(() => 0);
    }
    state.range = dataRange(shown.map(({map}) => map.shown), around);
    state.extent = state.ends || [Math.min(...shown.map(({part}) => part.range[0])),
      Math.max(...shown.map(({part}) => part.range[1]))];
    controls();
    verdict();
    legend(around);
    maps(around);
    stepCharts();
    findings();
    detail();
  }

  function controls() {
    const hadFocus = document.activeElement?.dataset?.control;
    const choice = (name, label, options, value, change) => {
      const select = make("select", {onchange: (event) => { change(event.target.value); load(); }},
        ...options.map(([key, text]) => make("option", {value: key, selected: key === value}, clean(text))));
      select.dataset.control = name;
      return make("label", {}, label, select);
    };
    const first = state.shown[0];
    const runs = state.runs.map((name) => [name, name]);
    const filter = make("input", {type: "search", value: state.filter, placeholder: "part of a name",
      oninput: (event) => { state.filter = event.target.value; maps(state.mode !== "plain"); }});
    filter.dataset.control = "filter";
    const stems = first.part.layers.map(stemOf).filter(Boolean);
    const fold = (all) => { state.folded = new Set(all ? stems : []); maps(state.mode !== "plain"); };
    parts.controls.replaceChildren(
      choice("run", "Run", runs, state.run, (v) => { state.run = v; }),
      state.runs.length > 1 ? choice("other", "Beside it", [["", "none"], ...runs.filter(([n]) => n !== state.run)],
        state.other, (v) => { state.other = v; }) : null,
      first.overview.optimizers.length > 1 ? choice("optimizer", "Optimizer",
        first.overview.optimizers.map((one) => [String(one.index), String(one.index)]),
        String(state.optimizer), (v) => { state.optimizer = Number(v); }) : null,
      choice("statistic", "Statistic", first.overview.statistics.map((n) => [n, n.replaceAll("_", " ")]),
        state.statistic, (v) => { state.statistic = v; }),
      choice("mode", "Colour", MODES, state.mode, (v) => { state.mode = v; }),
      make("label", {}, "Layers", filter),
      make("button", {type: "button", onclick: () => fold(true)}, "Fold all"),
      make("button", {type: "button", onclick: () => fold(false)}, "Unfold all"),
      state.ends ? make("button", {type: "button", onclick: () => zoom(null)}, "All steps") : "");
    for (const empty of [...parts.controls.childNodes]) if (empty.nodeType === 3) empty.remove();
    if (hadFocus) parts.controls.querySelector(`[data-control="${hadFocus}"]`)?.focus();
  }

  function verdict() {
    parts.verdict.replaceChildren(...state.shown.map(({name, overview}) => {
      const {text, level} = verdictOf(overview);
      const end = overview.meta.finished ? `Training: ${overview.meta.finished}.` : "Training goes on, or was cut off.";
      return make("p", {className: `gg-verdict-line gg-${level}`}, make("b", {}, clean(name)), " ", clean(text), " ",
        make("span", {className: "gg-faint"}, clean(end)));
    }));
  }

  function legend(around) {
    const bar = make("canvas", {width: 200, height: 12});
    const pen = bar.getContext("2d");
    for (let i = 0; i < 200; i++) {
      pen.fillStyle = `rgb(${ramp(i / 199, around)})`;
      pen.fillRect(i, 0, 1, 12);
    }
    const sample = (value, text) => {
      const box = make("span", {className: "gg-swatch"});
      box.style.background = `rgb(${cellColour(value, [0, 1], false)})`;
      return make("span", {}, box, text);
    };
    const tell10 = (v) => `10^${v.toFixed(1)}`;
    parts.legend.replaceChildren(
      make("span", {}, around ? `${tell10(state.range[0])} × ` : `${tell10(state.range[0])} `, bar,
        around ? ` ${tell10(state.range[1])} ×` : ` ${tell10(state.range[1])}`),
      sample(-Infinity, "exactly zero"), sample(Infinity, "not finite"),
      make("span", {}, make("span", {className: "gg-swatch gg-hatched"}), "not measured"),
      make("span", {}, "▼ finding"), make("span", {}, "❘ action"));
  }

  function maps(around) {
    parts.maps.replaceChildren(...state.shown.map((one) => make("div", {className: "gg-map"},
      make("h2", {}, clean(one.name)), one.canvas = make("canvas", {tabIndex: 0, role: "application"}))));
    for (const one of state.shown) {
      one.rows = rowsOf(one.part.layers, state.filter, state.folded);
      one.canvas.setAttribute("aria-label", `Heatmap of ${state.statistic}, ${one.part.layers.length} layers. ` +
        "Arrows move, Enter opens the layer, Space folds its module, plus and minus zoom, 0 shows all steps.");
      const paint = () => { one.layout = drawHeatmap(one.canvas, {map: one.map, rows: one.rows, range: state.range, around,
        ends: state.extent, findings: ofOptimizer(one, one.overview.findings),
        actions: ofOptimizer(one, one.overview.actions), layers: one.part.layers,
        selected: state.layer, cursor: one.cursor}); };
      one.paint = paint;
      paint();
      pointer(one);
      keys(one);
    }
  }

  const ofOptimizer = (one, list) => list.filter((item) => item.optimizer_index === one.part.index);

  function read(one, cell) {
    const row = one.rows[cell.row];
    const index = row.members[0];
    const raw = one.map.cells[index * one.map.steps.length + cell.column];
    const shown = raw === Infinity ? "not finite" : raw === -Infinity ? "exactly 0" : short(2 ** raw);
    const begin = one.map.steps[cell.column];
    const end = (one.map.steps[cell.column + 1] ?? one.map.last + 1) - 1;
    const when = end > begin ? `steps ${begin} to ${end}` : `step ${begin}`;
    parts.readout.textContent = row.folded ? `${clean(row.name)}: ${row.members.length} layers, ${when}`
      : `${clean(row.name)}, ${when}: ${state.mode === "last" ? "× last layer " : ""}${shown}`;
  }

  function pointer(one) {
    const {canvas} = one;
    let from = null;
    const at = (event) => cellAt(one.layout, one.map, one.rows, event.offsetX, event.offsetY);
    canvas.addEventListener("pointerdown", (event) => { from = event.offsetX; });
    canvas.addEventListener("pointermove", (event) => { const cell = at(event); if (cell) read(one, cell); });
    canvas.addEventListener("pointerup", (event) => {
      const moved = from === null ? 0 : Math.abs(event.offsetX - from);
      const cell = at(event);
      if (moved > 6) {
        const step = (px) => Math.round(state.extent[0] + ((px - one.layout.left) / one.layout.inner) *
          (state.extent[1] + 1 - state.extent[0]));
        const [low, high] = [from, event.offsetX].map(step).sort((a, b) => a - b);
        zoom([Math.max(low, state.extent[0]), Math.min(Math.max(high, low + 1), state.extent[1])]);
      } else if (cell) choose(one, cell);
      from = null;
    });
    canvas.addEventListener("dblclick", () => zoom(null));
  }

  function choose(one, cell) {
    const row = one.rows[cell.row];
    if (row.folded || (cell.onLabel && row.starts)) toggle(row.stem);
    else open(row.name);
  }

  function toggle(stem) {
    if (!stem) return;
    if (!state.folded.delete(stem)) state.folded.add(stem);
    maps(state.mode !== "plain");
  }

  function zoom(ends) {
    state.ends = ends;
    load();
  }

  function keys(one) {
    one.canvas.addEventListener("keydown", (event) => {
      const cell = one.cursor || {row: 0, column: one.map.steps.length - 1};
      const move = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
        Home: [0, -1e9], End: [0, 1e9], PageUp: [-10, 0], PageDown: [10, 0]}[event.key];
      const [low, high] = state.extent;
      const middle = one.map.steps[cell.column] ?? (low + high) / 2;
      const around = (span) => zoom([Math.max(one.part.range[0], Math.round(middle - span / 2)),
        Math.min(one.part.range[1], Math.round(middle + span / 2))]);
      if (move) {
        const limit = (v, most) => Math.max(0, Math.min(most, v));
        one.cursor = {row: limit(cell.row + move[0], one.rows.length - 1),
          column: limit(cell.column + move[1], one.map.steps.length - 1)};
        one.paint();
        read(one, one.cursor);
      } else if (event.key === "Enter") choose(one, cell);
      else if (event.key === " ") toggle(one.rows[cell.row].stem);
      else if (event.key === "+") around(Math.max(2, (high - low) / 2));
      else if (event.key === "-") around((high - low) * 2);
      else if (event.key === "0") zoom(null);
      else return;
      event.preventDefault();
      const again = () => parts.maps.querySelectorAll("canvas")[state.shown.indexOf(one)]?.focus();
      if (document.activeElement !== one.canvas) again();
    });
  }

  function open(layer) {
    state.layer = layer;
    try { if (window.parent === window) history.replaceState(null, "", linkTo({layer, run: state.run})); } catch { /* a file may refuse */ }
    for (const one of state.shown) one.paint();
    return detail();
  }

  const detail = guarded(async () => {
    const layer = state.layer;
    if (layer === null) {
      parts.detail.replaceChildren(make("p", {className: "gg-faint"}, "Choose a layer in the picture to see its numbers."));
      return;
    }
    const turn = state.turn;
    const having = state.shown.filter(({part}) => part.layers.includes(layer));
    const found = await Promise.all(having.map(async (one) => ({one,
      lines: await source.lines(one.name, layer, one.part.index),
      histogram: await source.histogram(one.name, layer, one.part.index)})));
    if (turn !== state.turn || layer !== state.layer) return;
    const close = make("button", {type: "button", onclick: () => { state.layer = null; draw(); }}, "Close");
    const charts = make("div", {className: "gg-charts"});
    parts.detail.replaceChildren(make("h2", {}, "Layer ", make("code", {}, clean(layer)), " ", close), charts);
    if (!found.length) charts.append(make("p", {}, "There is no such layer in this run."));
    const names = [...new Set(found.flatMap(({lines}) => lines.names))];
    for (const name of names) {
      const series = found.filter(({lines}) => lines.names.includes(name)).map(({one, lines}, k) => ({
        label: having.length > 1 ? one.name : name.replaceAll("_", " "), x: lines.x, dash: k ? [6, 3] : undefined,
        y: lines.y.subarray(lines.names.indexOf(name) * lines.x.length, (lines.names.indexOf(name) + 1) * lines.x.length)}));
      lineChart(charts, name.replaceAll("_", " "), series, {
        log: !LINEAR.has(name) && name !== "num_nonfinite", unit: SHARES.has(name), ends: state.extent, sync: "gg"});
    }
    for (const {one, histogram} of found) {
      if (!histogram?.cells.length) continue;
      const canvas = make("canvas");
      charts.append(make("figure", {className: "gg-chart"}, make("figcaption", {},
        `magnitudes of its gradient over time${having.length > 1 ? `, ${clean(one.name)}` : ""}`), canvas));
      drawHistogram(canvas, histogram, state.extent);
    }
  });

  function stepCharts() {
    const charts = make("div", {className: "gg-charts"});
    parts.steps.replaceChildren(make("h2", {}, "The run, step by step"), charts);
    for (const [title, names] of STEP_CHARTS) {
      const series = state.shown.flatMap(({name, scalars}, k) => names.filter((n) => scalars?.names.includes(n)).map((n) => {
        const place = scalars.names.indexOf(n) * scalars.x.length;
        return {label: `${n.replaceAll("_", " ")}${state.shown.length > 1 ? `, ${name}` : ""}`, x: scalars.x,
          y: scalars.y.subarray(place, place + scalars.x.length), dash: k ? [6, 3] : undefined};
      }));
      if (!series.length) continue;
      const positive = series.every(({y}) => y.every((v) => !(v <= 0)));
      lineChart(charts, title, series, {log: positive && !LINEAR.has(names[0]), unit: SHARES.has(names[0]),
        ends: state.extent, sync: "gg"});
    }
  }

  function findings() {
    parts.findings.replaceChildren(...state.shown.map(({name, overview}) => {
      const all = episodesOf(overview.findings);
      const list = make("ol", {}, ...all.map((one) => findingItem(one, open)));
      return make("div", {}, make("h2", {}, "Findings", state.shown.length > 1 ? ` of ${clean(name)}` : ""),
        all.length ? list : make("p", {className: "gg-faint"}, "None."));
    }));
    const acted = state.shown.filter(({overview}) => overview.actions.length);
    parts.actions.replaceChildren(...acted.map(({name, overview}) => make("div", {},
      make("h2", {}, "What was done", state.shown.length > 1 ? ` in ${clean(name)}` : ""),
      actionsTable(overview.actions))));
  }

  new ResizeObserver(() => {
    const width = root.clientWidth;
    if (state.shown && width !== state.width && state.width) draw();
    state.width = width;
  }).observe(root);
  addEventListener("hashchange", () => { const {layer} = readLink(); if (layer && state.shown) open(layer); });
  await load();
  root.dataset.ready = "yes";
  return {refresh: load, redraw: () => state.shown && draw()};
}
