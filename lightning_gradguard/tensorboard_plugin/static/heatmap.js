// The picture: layers in depth order by steps, with findings and actions marked on it.

import {cellColour, severityOf} from "./colour.js";
import {rowValue} from "./groups.js";
import {clean} from "./dom.js";

const STRIP = 16;
const AXIS = 20;
const RIGHT = 10;

export function drawHeatmap(canvas, picture) {
  const {map, rows, range, around, ends, findings, actions, layers, selected, cursor} = picture;
  const width = canvas.parentElement.clientWidth || 800;
  const left = Math.min(230, Math.round(width * 0.3));
  const rowHeight = Math.max(2, Math.min(20, Math.floor(560 / Math.max(1, rows.length))));
  const height = STRIP + rows.length * rowHeight + AXIS;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.height = `${height}px`;
  const ink = getComputedStyle(canvas).color;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.clearRect(0, 0, width, height);
  const inner = width - left - RIGHT;
  const x = (step) => left + ((step - ends[0]) / Math.max(1, ends[1] + 1 - ends[0])) * inner;
  const layout = {left, inner, rowHeight, top: STRIP, x, width, height};
  const columns = map.steps.length;
  const image = new ImageData(Math.max(1, columns), Math.max(1, rows.length));
  rows.forEach((row, r) => {
    for (let c = 0; c < columns; c++) {
      const colour = cellColour(rowValue(map, row, c), range, around);
      if (colour) image.data.set([...colour, 255], (r * columns + c) * 4);
    }
  });
  const small = document.createElement("canvas");
  [small.width, small.height] = [image.width, image.height];
  small.getContext("2d").putImageData(image, 0, 0);
  pen.imageSmoothingEnabled = false;
  pen.save();
  pen.beginPath();
  pen.rect(left, STRIP, inner, rows.length * rowHeight);
  pen.clip();
  hatch(pen, ink, left, STRIP, inner, rows.length * rowHeight);
  // Each column reaches to the next, so that a thinned history leaves no gaps. Columns of one
  // width are drawn at once.
  const edges = [...map.steps, (map.last ?? 0) + 1].map(x);
  for (let from = 0, to; from < columns; from = to) {
    const step = edges[from + 1] - edges[from];
    for (to = from + 1; to < columns && Math.abs(edges[to + 1] - edges[to] - step) < 1e-6;) to++;
    pen.drawImage(small, from, 0, to - from, rows.length,
      edges[from], STRIP, edges[to] - edges[from], rows.length * rowHeight);
  }
  pen.restore();
  labels(pen, ink, rows, layout, selected);
  axis(pen, ink, ends, layout, STRIP + rows.length * rowHeight);
  for (const action of actions) mark(pen, ink, x(action.step + 0.5), action, ends);
  for (const finding of findings) flag(pen, finding, rows, layers, layout, ends);
  if (cursor) {
    pen.strokeStyle = ink;
    pen.lineWidth = 2;
    pen.strokeRect(edges[cursor.column], STRIP + cursor.row * rowHeight,
      Math.max(3, edges[cursor.column + 1] - edges[cursor.column]), rowHeight);
  }
  return layout;
}

function hatch(pen, ink, left, top, width, height) {
  pen.globalAlpha = 0.15;
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
  pen.font = "11px system-ui, sans-serif";
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  const every = Math.ceil(12 / rowHeight);
  rows.forEach((row, r) => {
    const chosen = !row.folded && row.name === selected;
    if (r % every && !chosen) return;
    const text = row.folded ? `▸ ${clean(row.name)} (${row.members.length})`
      : `${row.starts ? "▾ " : ""}${clean(row.name)}`;
    pen.font = `${chosen ? "bold " : ""}11px system-ui, sans-serif`;
    pen.fillStyle = ink;
    pen.fillText(shorten(pen, text, left - 14), left - 8, top + (r + 0.5) * rowHeight);
  });
}

function shorten(pen, text, room) {
  if (pen.measureText(text).width <= room) return text;
  let kept = Math.max(4, Math.floor(text.length * room / pen.measureText(text).width) - 1);
  const half = () => `${text.slice(0, Math.ceil(kept * 0.4))}…${text.slice(-Math.floor(kept * 0.6))}`;
  while (kept > 4 && pen.measureText(half()).width > room) kept--;
  return half();
}

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

export function cellAt(layout, map, rows, px, py) {
  const row = Math.floor((py - layout.top) / layout.rowHeight);
  if (row < 0 || row >= rows.length || !map.steps.length) return null;
  const edges = [...map.steps, (map.last ?? 0) + 1].map(layout.x);
  let column = edges.findIndex((edge) => edge > px) - 1;
  if (column < 0) column = px < edges[0] ? 0 : map.steps.length - 1;
  return {row, column, onLabel: px < layout.left};
}
