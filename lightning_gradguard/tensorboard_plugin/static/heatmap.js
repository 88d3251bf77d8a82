// The picture: layers in depth order by steps, with findings and actions marked on it.

import {HATCHING, cellColours, severityOf} from "./colour.js";
import {clean} from "./dom.js";
import {rowCell} from "./groups.js";

const STRIP = 16;
const AXIS = 20;
const RIGHT = 10;
const TALLEST = 560;
const ROW = 20;
// Pixels: less is a click.
export const A_DRAG = 6;

// Returns where things are, for `cellAt` and `stepAt`, and the `cells` to hand in the next time
// unless rows or colours have changed.
export function drawHeatmap(canvas, picture) {
  const {map, rows, ends, findings, actions, layers, selected} = picture;
  const layout = layoutOf(canvas, rows, ends);
  const {pen, ink, left, inner, x} = layout;
  const tall = rows.length * layout.rowHeight;
  layout.cells = picture.cells || cellsOf(picture);
  pen.save();
  pen.beginPath();
  pen.rect(left, STRIP, inner, tall);
  pen.clip();
  hatch(pen, ink, left, STRIP, inner, tall);
  columns(pen, layout.cells, map, rows.length, layout);
  pen.restore();
  labels(pen, ink, rows, layout, selected);
  axis(pen, ink, ends, layout, STRIP + tall);
  for (const action of actions) mark(pen, ink, x(action.step + 0.5), action, ends);
  for (const finding of findings) flag(pen, finding, rows, layers, layout, ends);
  pointers(picture, layout, tall);
  return layout;
}

function layoutOf(canvas, rows, ends) {
  const width = canvas.parentElement.clientWidth || 800;
  const left = Math.min(230, Math.round(width * 0.3));
  const rowHeight = Math.max(2, Math.min(ROW, Math.floor(TALLEST / Math.max(1, rows.length))));
  const height = STRIP + rows.length * rowHeight + AXIS;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const inner = width - left - RIGHT;
  const x = (step) => left + ((step - ends[0]) / Math.max(1, ends[1] + 1 - ends[0])) * inner;
  return {pen, ink: getComputedStyle(canvas).color, left, inner, rowHeight, top: STRIP, x, width, height};
}

// Two pixels per cell, one above the other, to be stretched: the value, and what is special beside it.
function cellsOf({map, rows, range, around}) {
  const width = map.steps.length;
  const image = new ImageData(Math.max(1, width), Math.max(1, 2 * rows.length));
  rows.forEach((row, r) => {
    for (let c = 0; c < width; c++) {
      cellColours(rowCell(map, row, c), range, around).forEach((colour, half) => {
        if (colour) image.data.set([...colour, 255], ((2 * r + half) * width + c) * 4);
      });
    }
  });
  const small = document.createElement("canvas");
  [small.width, small.height] = [image.width, image.height];
  small.getContext("2d").putImageData(image, 0, 0);
  return small;
}

// Each column reaches to the next, so that a thinned history leaves no gaps. Columns of one width
// are drawn at once.
function columns(pen, cells, map, rows, {x, rowHeight}) {
  pen.imageSmoothingEnabled = false;
  const count = map.steps.length;
  const edges = edgesOf(map, x);
  for (let from = 0, to; from < count; from = to) {
    const step = edges[from + 1] - edges[from];
    for (to = from + 1; to < count && Math.abs(edges[to + 1] - edges[to] - step) < 1e-6;) to++;
    pen.drawImage(cells, from, 0, to - from, 2 * rows, edges[from], STRIP, edges[to] - edges[from], rows * rowHeight);
  }
}

const edgesOf = (map, x) => [...map.steps, (map.last ?? 0) + 1].map(x);

function hatch(pen, ink, left, top, width, height) {
  pen.globalAlpha = HATCHING;
  pen.strokeStyle = ink;
  pen.lineWidth = 1;
  pen.beginPath();
  for (let i = -height; i < width; i += 8) {
    pen.moveTo(left + i, top + height);
    pen.lineTo(left + i + height, top);
  }
  pen.stroke();
  pen.globalAlpha = 1;
}

function labels(pen, ink, rows, {left, rowHeight, top}, selected) {
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  pen.fillStyle = ink;
  const every = Math.ceil(12 / rowHeight);
  const shared = sharedStart(rows.map((row) => row.name));
  rows.forEach((row, r) => {
    if (row.stem && !row.folded) {
      pen.globalAlpha = 0.35;
      pen.fillRect(left - 5, top + r * rowHeight + (row.starts ? 2 : 0), 2, rowHeight - (row.starts ? 2 : 0) - (row.ends ? 2 : 0));
      pen.globalAlpha = 1;
    }
    const chosen = !row.folded && row.name === selected;
    if (r % every && !chosen) return;
    const name = clean(row.name.slice(shared));
    const text = row.folded ? `▸ ${name} (${row.members.length})` : `${row.starts ? "▾ " : ""}${name}`;
    pen.font = `${chosen ? "bold " : ""}11px system-ui, sans-serif`;
    pen.fillText(shorten(pen, text, left - 16), left - 10, top + (r + 0.5) * rowHeight);
  });
}

// How much all names begin with, in whole modules; short beginnings stay.
function sharedStart(names) {
  const [first, ...others] = names;
  if (!others.length) return 0;
  let end = first.lastIndexOf(".") + 1;
  while (end && !others.every((name) => name.startsWith(first.slice(0, end)))) end = first.lastIndexOf(".", end - 2) + 1;
  return end > 8 ? end : 0;
}

function shorten(pen, text, room) {
  if (pen.measureText(text).width <= room) return text;
  let kept = Math.max(4, Math.floor(text.length * room / pen.measureText(text).width) - 1);
  const half = () => `${text.slice(0, Math.ceil(kept * 0.4))}…${text.slice(-Math.floor(kept * 0.6))}`;
  while (kept > 4 && pen.measureText(half()).width > room) kept--;
  return half();
}

// Round numbers of steps, at most about so many.
export function ticks(ends, count) {
  const span = Math.max(1, ends[1] - ends[0]);
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(1, [1, 2, 5, 10].find((m) => m * power >= rough) * power);
  const found = [];
  for (let t = Math.ceil(ends[0] / step) * step; t <= ends[1]; t += step) found.push(t);
  return found;
}

function axis(pen, ink, ends, {x, inner}, top) {
  pen.font = "11px system-ui, sans-serif";
  pen.textAlign = "center";
  pen.textBaseline = "top";
  pen.fillStyle = ink;
  for (const step of ticks(ends, Math.max(2, inner / 90))) {
    pen.fillRect(x(step + 0.5), top, 1, 4);
    pen.fillText(String(step), x(step + 0.5), top + 6);
  }
}

function mark(pen, ink, x, action, ends) {
  if (action.step < ends[0] || action.step > ends[1]) return;
  pen.fillStyle = ink;
  pen.globalAlpha = action.what === "clip" ? 0.25 : 0.9;
  pen.fillRect(x - 0.75, 0, 1.5, 6);
  pen.globalAlpha = 1;
}

function flag(pen, finding, rows, layers, {x, rowHeight, top}, ends) {
  if (finding.state === "resolved" || finding.step < ends[0] || finding.step > ends[1]) return;
  const [, colour] = severityOf(finding);
  const at = x(finding.step + 0.5);
  pen.fillStyle = colour;
  pen.beginPath();
  pen.moveTo(at - 5, 5);
  pen.lineTo(at + 5, 5);
  pen.lineTo(at, 15);
  pen.fill();
  const concerned = new Set(finding.layers);
  rows.forEach((row, r) => {
    if (!row.members.some((index) => concerned.has(layers[index]))) return;
    pen.beginPath();
    pen.arc(at, top + (r + 0.5) * rowHeight, Math.min(4, Math.max(2, rowHeight / 3)), 0, 7);
    pen.fill();
    pen.strokeStyle = "#fff";
    pen.lineWidth = 1;
    pen.stroke();
  });
}

// What the reader points at: the step of a link, the cell of the keyboard, the span of a drag.
function pointers({map, ends, step, cursor, drag}, {pen, ink, x, rowHeight, height}, tall) {
  pen.strokeStyle = pen.fillStyle = ink;
  if (step !== null && step >= ends[0] && step <= ends[1]) {
    pen.globalAlpha = 0.7;
    pen.fillRect(x(step + 0.5) - 0.75, STRIP, 1.5, tall);
  }
  if (drag) {
    pen.globalAlpha = 0.25;
    pen.fillRect(drag[0], 0, drag[1] - drag[0], height - AXIS);
  }
  pen.globalAlpha = 1;
  if (cursor) {
    const edges = edgesOf(map, x);
    pen.lineWidth = 2;
    pen.strokeRect(edges[cursor.column], STRIP + cursor.row * rowHeight,
      Math.max(3, edges[cursor.column + 1] - edges[cursor.column]), rowHeight);
  }
}

export function stepAt({left, inner}, ends, px) {
  return ends[0] + ((px - left) / inner) * (ends[1] + 1 - ends[0]);
}

export function cellAt(layout, map, rows, px, py) {
  const row = Math.floor((py - layout.top) / layout.rowHeight);
  if (row < 0 || row >= rows.length || !map.steps.length) return null;
  const edges = edgesOf(map, layout.x);
  let column = edges.findIndex((edge) => edge > px) - 1;
  if (column < 0) column = px < edges[0] ? 0 : map.steps.length - 1;
  return {row, column, onLabel: px < layout.left};
}
