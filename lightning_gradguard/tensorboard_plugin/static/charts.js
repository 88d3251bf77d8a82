// Lines over the steps, with uPlot, and the entries of one layer's gradient by size, over time.

import {NONFINITE, dataRange, ramp} from "./colour.js";
import {clean, make, short} from "./dom.js";
import {A_DRAG, ticks} from "./heatmap.js";

const INKS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const INKS_IN_THE_DARK = ["#6cc0f5", "#f5933d", "#3fd6a7", "#eda9cd", "#f0c04a", "#9ad4f5"];
const LOST = `rgb(${NONFINITE})`;
const FAINT = "rgba(128,128,128,0.25)";
const LEFT = 62;
const DECADES = [1e-5, 1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50];

// Series: [{label, x, y, dash}], all on one step axis; `log` where sizes span decades, `unit` for shares.
export function lineChart(app, group, home, title, series, {log, unit}) {
  const {steps, rows, lost, zeros} = joined(series, log);
  const isDrawn = rows.some((row) => row.some((value) => value !== null && value !== undefined));
  if (!isDrawn && !lost.length && !zeros.length) return;
  const value = make("span", {className: "gg-value"});
  const notes = [lost.length && `${lost.length} not finite`, zeros.length && `${zeros.length} exactly zero`]
    .filter(Boolean);
  const box = make("figure", {className: "gg-chart"},
    make("figcaption", {}, clean(title), notes.length ? ` (${notes.join(", ")})` : "", " ", value));
  home.append(box);
  if (!isDrawn) {
    box.append(make("p", {className: "gg-faint"}, zeros.length ? "exactly zero, whenever it was measured" : "never finite"));
    return;
  }
  const ink = getComputedStyle(home).color;
  const inks = isLight(ink) ? INKS_IN_THE_DARK : INKS;
  const options = {
    width: Math.max(240, box.clientWidth), height: 150, legend: {show: series.length > 1},
    cursor: {sync: {key: "gradguard"}, drag: {x: true, y: false, setScale: false}},
    scales: {x: {time: false, range: () => app.extent}, y: unit ? {range: (_, __, high) => [0, Math.max(1.05, 1.05 * (high ?? 1))]} : {}},
    axes: axes(ink, log),
    series: [{label: "step", value: (_, v) => (v === null ? "–" : Math.floor(v))}, ...series.map((one, k) => ({
      label: clean(one.label), stroke: inks[k % inks.length], width: 1.5, dash: one.dash,
      spanGaps: false, points: {show: steps.length < 3}, value: (_, v) => numberText(v, log),
    }))],
    hooks: {
      draw: [(chart) => marks(chart, lost, LOST, 0), (chart) => marks(chart, zeros, ink, 1)],
      setCursor: [(chart) => { value.textContent = underCursor(chart, series.length, log); }],
      setSelect: [(chart) => select(app, chart)],
    },
  };
  (app.charts[group] ??= []).push(new window.uPlot(options, [steps, ...rows], box));
}

const isLight = (colour) => (colour.match(/\d+/g) ?? [0]).slice(0, 3).map(Number).reduce((a, b) => a + b) > 382;

// A number as it was before it became a power of ten.
const numberText = (v, log) => short(log && v !== null && v !== undefined ? 10 ** v : v);

// Steps at which there is nothing to draw: not finite above, exactly zero beneath.
function marks(chart, steps, colour, share) {
  const {ctx, bbox} = chart;
  ctx.save();
  ctx.fillStyle = colour;
  for (const step of steps) {
    const x = chart.valToPos(step, "x", true);
    if (x >= bbox.left && x <= bbox.left + bbox.width) ctx.fillRect(x - 1, bbox.top + share * (bbox.height - 8), 2, 8);
  }
  ctx.restore();
}

// uPlot keeps what it draws until it is told to let go.
export function closeCharts(app, group) {
  for (const chart of app.charts[group] ?? []) chart.destroy();
  app.charts[group] = [];
}

// One row of numbers per series over the steps of all, in log10 if asked; and where none can be drawn.
function joined(series, log) {
  const steps = [...new Set(series.flatMap((one) => [...one.x]))].sort((a, b) => a - b);
  const place = new Map(steps.map((step, i) => [step, i]));
  // Steps, of which several lines may have the same.
  const [lost, zeros] = [new Set(), new Set()];
  const rows = series.map((one) => {
    const row = new Array(steps.length).fill(undefined);
    one.x.forEach((step, i) => {
      const value = one.y[i];
      if (value === Infinity || value === -Infinity) lost.add(step);
      if (log && value === 0) zeros.add(step);
      const isDrawn = Number.isFinite(value) && (!log || value > 0);
      row[place.get(step)] = isDrawn ? (log ? Math.log10(value) : value) : null;
    });
    return row;
  });
  return {steps, rows, lost: [...lost], zeros: [...zeros]};
}

function axes(ink, log) {
  const common = {stroke: ink, ticks: {stroke: FAINT}, grid: {stroke: FAINT}};
  return [
    {...common, size: 28},
    {...common, size: LEFT, ...(log ? {incrs: DECADES} : {}),
      values: (_, splits) => tickTexts(splits.map((v) => (v !== null && log ? 10 ** v : v)))},
  ];
}

// Labels with as few digits as tell them apart.
export function tickTexts(values) {
  const known = values.filter((v) => v !== null);
  let digits = 1;
  const text = (v) => (v === 0 ? "0" : shorter(v, digits));
  while (digits < 6 && new Set(known.map(text)).size < known.length) digits++;
  return values.map((v) => (v === null ? "" : text(v)));
}

function shorter(value, digits) {
  const size = Math.abs(value);
  const plain = String(Number(value.toPrecision(digits)));
  return size >= 1e-3 && size < 1e5 && plain.length < 8 ? plain : value.toExponential(digits - 1);
}

function underCursor(chart, several, log) {
  const {idx} = chart.cursor;
  if (idx === null || idx === undefined) return "";
  const step = `step ${Math.floor(chart.data[0][idx])}`;
  return several > 1 ? step : `${numberText(chart.data[1][idx], log)} at ${step}`;
}

function select(app, chart) {
  const {left, width} = chart.select;
  if (width < A_DRAG) return;
  app.zoom(chart.posToVal(left, "x"), chart.posToVal(left + width, "x"));
}

export function drawHistogram(canvas, histogram, ends) {
  const {pen, x, low, inner} = besideAxes(canvas, ends);
  inside(pen, inner, low, () => shares(pen, histogram, x, ends, low));
  scales(pen, histogram, x, ends, low, inner);
}

// Time steps downwards, training steps to the right, a colour for the size of the gradient.
export function drawOverTime(canvas, {steps, last, times}, cells, ends) {
  const {pen, x, low, inner} = besideAxes(canvas, ends);
  const [from, to] = dataRange([cells], false);
  const gaps = steps.slice(1).map((step, i) => step - steps[i]).sort((a, b) => a - b);
  const edges = [...steps, last + (gaps.length ? gaps[gaps.length >> 1] : 1)].map(x);
  const tall = (low - 8) / times.length;
  inside(pen, inner, low, () => {
    times.forEach((_, row) => steps.forEach((__, c) => {
      const value = cells[row * steps.length + c];
      if (Number.isNaN(value)) return;
      pen.fillStyle = value === -Infinity ? "#000" : `rgb(${ramp((value - from) / (to - from), false)})`;
      pen.fillRect(edges[c], 8 + row * tall, edges[c + 1] - edges[c] + 0.5, tall + 0.5);
    }));
  });
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  pen.fillText(`t=${times[0]}`, LEFT - 6, 12);
  pen.fillText(`t=${times.at(-1)}`, LEFT - 6, low - 5);
  stepTicks(pen, x, ends, low, inner);
  canvas.title = `from ${short(2 ** from, 2)} (dark) to ${short(2 ** to, 2)} (bright)`;
}

function besideAxes(canvas, ends) {
  const width = canvas.parentElement.clientWidth || 400;
  const height = 150;
  const ratio = window.devicePixelRatio || 1;
  [canvas.width, canvas.height] = [width * ratio, height * ratio];
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const [low, inner] = [height - 20, width - LEFT - 10];
  const x = (step) => LEFT + ((step - ends[0]) / Math.max(1, ends[1] + 1 - ends[0])) * inner;
  pen.font = "11px system-ui, sans-serif";
  pen.fillStyle = getComputedStyle(canvas).color;
  return {pen, x, low, inner};
}

function inside(pen, inner, low, draw) {
  pen.save();
  pen.beginPath();
  pen.rect(LEFT, 0, inner, low);
  pen.clip();
  draw();
  pen.restore();
}

function stepTicks(pen, x, ends, low, inner) {
  pen.textAlign = "center";
  pen.textBaseline = "top";
  for (const step of ticks(ends, Math.max(2, inner / 90))) pen.fillText(String(step), x(step), low + 5);
}

function shares(pen, histogram, x, ends, low) {
  const [octaves, columns] = histogram.cellsShape;
  const tall = (low - 8) / Math.max(1, octaves);
  // The last one holds for as long as the one before did, and not to the end of another run.
  const gaps = histogram.steps.slice(1).map((step, i) => step - histogram.steps[i]).sort((a, b) => a - b);
  const gap = gaps.length ? gaps[gaps.length >> 1] : ends[1] + 1 - ends[0];
  const edges = [...histogram.steps, (histogram.steps.at(-1) ?? 0) + gap].map(x);
  for (let o = 0; o < octaves; o++) {
    for (let c = 0; c < columns; c++) {
      const share = histogram.cells[o * columns + c];
      if (!share) continue;
      pen.fillStyle = `rgb(${ramp(Math.sqrt(share / 255), false)})`;
      pen.fillRect(edges[c], low - (o + 1) * tall, edges[c + 1] - edges[c] + 0.5, tall + 0.5);
    }
  }
}

function scales(pen, histogram, x, ends, low, inner) {
  const [octaves] = histogram.cellsShape;
  const tall = (low - 8) / Math.max(1, octaves);
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  for (const octave of ticks([histogram.low, histogram.low + octaves], 6)) {
    pen.fillText(`2^${octave}`, LEFT - 6, low - (octave - histogram.low) * tall);
  }
  stepTicks(pen, x, ends, low, inner);
}
