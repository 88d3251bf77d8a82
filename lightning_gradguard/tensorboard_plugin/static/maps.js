// The heatmaps of the runs shown: drawn, legend, pointer and keyboard.

import {NONFINITE, ramp, ZERO} from "./colour.js";
import {clean, make, short} from "./dom.js";
import {rowsOf, specialOf, worstOf} from "./groups.js";
import {A_DRAG, cellAt, drawHeatmap, stepAt, ticks} from "./heatmap.js";

const MOVES = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
  Home: [0, -1e9], End: [0, 1e9], PageUp: [-10, 0], PageDown: [10, 0]};

export function drawMaps(app) {
  const {parts, shown, state} = app;
  const focused = [...parts.maps.querySelectorAll("canvas")].indexOf(document.activeElement);
  parts.maps.replaceChildren(...shown.map((one) => make("div", {className: "gg-map"},
    make("h2", {}, clean(one.name)),
    one.canvas = make("canvas", {tabIndex: 0, role: "application", "aria-label": labelOf(app, one)}),
    one.readout = make("p", {className: "gg-readout", "aria-live": "polite"}))));
  for (const one of shown) {
    one.rows = rowsOf(one.part.layers, state.filter, state.folded);
    one.cells = null;
    one.cursor = null;
    pointer(app, one);
    keys(app, one);
    hint(one);
  }
  paintMaps(app);
  shown[focused]?.canvas.focus();
}

export function paintMaps(app) {
  for (const one of app.shown) paint(app, one);
}

function paint(app, one) {
  const mine = (list) => list.filter((item) => item.optimizer_index === one.part.index);
  one.layout = drawHeatmap(one.canvas, {map: one.map, rows: one.rows, range: app.range, around: app.around,
    ends: app.extent, findings: mine(one.overview.findings), actions: mine(one.overview.actions),
    layers: one.part.layers, selected: app.state.layer, step: app.state.step, cursor: one.cursor,
    drag: one.drag, cells: one.cells});
  one.cells = one.layout.cells;
}

function labelOf(app, one) {
  return `Heatmap of ${app.state.statistic}, ${one.part.layers.length} layers. ` +
    "Arrows move, Enter opens the layer, Space folds its module, plus and minus zoom, 0 shows all steps.";
}

function hint(one) {
  one.readout.textContent = one.rows.length ? "" : "No layer has that in its name.";
}

function tellCell(app, one, cell) {
  const row = one.rows[cell.row];
  const begin = one.map.steps[cell.column];
  const end = (one.map.steps[cell.column + 1] ?? one.map.last + 1) - 1;
  const when = end > begin ? `steps ${begin} to ${end}` : `step ${begin}`;
  const index = worstOf(one.map, row, cell.column);
  const name = clean(row.folded ? `${row.name} (${row.members.length} layers), ${one.part.layers[index]}` : row.name);
  one.readout.textContent = `${name}, ${when}: ${valueText(app, one, index, cell.column)}`;
}

// What stands above the picture is told where the pointer is on it.
function tellMark(app, one, px) {
  const near = (item) => Math.abs(one.layout.x(item.step + 0.5) - px) < 6;
  const mine = (list) => list.filter((item) => item.optimizer_index === one.part.index && near(item));
  const said = [...mine(one.overview.findings).map((f) => `step ${f.step}: ${f.kind.replaceAll("_", " ")} ${f.state}, ${f.message}`),
    ...mine(one.overview.actions).map(actionText)];
  if (said.length) one.readout.textContent = clean(said.slice(0, 4).join(" · "));
}

function actionText({step, times, last_step: last, what, why}) {
  const when = times > 1 ? `steps ${step} to ${last}: ${what}, ${times} times` : `step ${step}: ${what}`;
  return why ? `${when}, ${why}` : when;
}

function valueText(app, one, index, column) {
  const raw = one.map.cells[index * one.map.steps.length + column];
  const special = ["", "exactly 0", "not finite"][specialOf(one.map, index, column)];
  if (!Number.isFinite(raw)) return special || "not measured";
  return `${sizeText(app, one, index, raw)}${special && `, and ${special} at times`}`;
}

function sizeText(app, one, index, raw) {
  if (!app.isLog) return short(raw);
  if (app.state.mode === "last") return `${about(2 ** raw)} × last layer`;
  const usual = one.map.medians[index];
  const times = app.state.mode === "median" && usual !== null ? `, ${about(2 ** (raw - usual))} × its median` : "";
  return `${about(2 ** raw)}${times}`;
}

// Cells are good to a few hundredths.
const about = (value) => short(Number(value.toPrecision(2)), 2);

function pointer(app, one) {
  const {canvas} = one;
  const at = (event) => cellAt(one.layout, one.map, one.rows, event.offsetX, event.offsetY);
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    one.drag = [event.offsetX, event.offsetX];
  });
  canvas.addEventListener("pointermove", (event) => {
    const cell = at(event);
    if (cell) tellCell(app, one, cell);
    else if (event.offsetY < one.layout.top) tellMark(app, one, event.offsetX);
    if (!one.drag) return;
    one.drag[1] = event.offsetX;
    paint(app, one);
  });
  canvas.addEventListener("pointerup", (event) => {
    const [from, to] = (one.drag || [0, 0]).slice().sort((a, b) => a - b);
    one.drag = null;
    const cell = at(event);
    if (to - from > A_DRAG) app.zoom(stepAt(one.layout, app.extent, from), stepAt(one.layout, app.extent, to));
    else if (cell) act(app, one, cell);
  });
  canvas.addEventListener("pointercancel", () => { one.drag = null; paint(app, one); });
  canvas.addEventListener("dblclick", () => app.state.ends && app.choose({ends: null}));
}

function act(app, one, cell) {
  const row = one.rows[cell.row];
  if (row.folded || (cell.onLabel && row.starts)) toggle(app, row.stem);
  else app.open(row.name);
}

function toggle(app, stem) {
  if (!stem) return;
  const folded = new Set(app.state.folded);
  if (!folded.delete(stem)) folded.add(stem);
  app.arrange({folded});
}

function keys(app, one) {
  one.canvas.addEventListener("keydown", async (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !one.rows.length) return;
    const place = app.shown.indexOf(one);
    const done = press(app, one, event.key);
    if (done === undefined) return;
    event.preventDefault();
    await done;
    // Another picture may have taken its place.
    app.shown[place]?.canvas.focus();
  });
}

function press(app, one, key) {
  const cell = one.cursor || {row: 0, column: one.map.steps.length - 1};
  const [low, high] = app.extent;
  const middle = one.map.steps[cell.column] ?? (low + high) / 2;
  const around = (span) => app.zoom(middle - span / 2, middle + span / 2);
  if (MOVES[key]) return move(app, one, cell, MOVES[key]);
  if (key === "Enter") return act(app, one, cell) ?? null;
  if (key === " ") return toggle(app, one.rows[cell.row].stem) ?? null;
  if (key === "+" || key === "=") return around(Math.max(2, (high - low) / 2));
  if (key === "-") return around((high - low) * 2);
  if (key === "0") return app.choose({ends: null});
  return undefined;
}

function move(app, one, cell, [down, right]) {
  const limit = (v, most) => Math.max(0, Math.min(most, v));
  one.cursor = {row: limit(cell.row + down, one.rows.length - 1),
    column: limit(cell.column + right, one.map.steps.length - 1)};
  paint(app, one);
  tellCell(app, one, one.cursor);
  return null;
}

export function drawLegend(app) {
  const {range, around} = app;
  const end = (power) => (app.isLog
    ? make("span", {}, "10", make("sup", {}, String(Number(power.toFixed(1)))), around ? " ×" : "")
    : make("span", {}, short(power)));
  app.parts.legend.replaceChildren(
    make("span", {}, end(range[0]), " ", rampBar(app), " ", end(range[1])),
    app.isLog ? swatch(ZERO, "exactly zero") : "", swatch(NONFINITE, "not finite"),
    make("span", {}, make("span", {className: "gg-swatch gg-hatched"}), "not measured"),
    make("span", {}, "▼ finding"), make("span", {}, "❘ action"),
    make("span", {className: "gg-faint"}, "click: open a layer · drag: zoom · double-click: all steps"));
}

// The colours, with a tick at each power of ten, or as many as there is room for.
function rampBar({range, around, isLog, parts}) {
  const [width, ratio] = [220, window.devicePixelRatio || 1];
  const bar = make("canvas", {width: width * ratio, height: 26 * ratio, className: "gg-ramp"});
  bar.style.width = `${width}px`;
  const pen = bar.getContext("2d");
  pen.scale(ratio, ratio);
  for (let i = 0; i < width; i++) {
    pen.fillStyle = `rgb(${ramp(i / (width - 1), around)})`;
    pen.fillRect(i, 0, 1, 12);
  }
  pen.fillStyle = getComputedStyle(parts.legend).color;
  pen.font = "10px system-ui, sans-serif";
  pen.textAlign = "center";
  for (const tick of isLog ? ticks(range, 4) : []) {
    const x = ((tick - range[0]) / (range[1] - range[0])) * width;
    if (x < 16 || x > width - 16) continue;
    pen.fillRect(x - 0.5, 12, 1, 3);
    pen.fillText(short(10 ** tick, 2), x, 25);
  }
  return bar;
}

function swatch(colour, text) {
  const box = make("span", {className: "gg-swatch"});
  box.style.background = `rgb(${colour})`;
  return make("span", {}, box, text);
}
