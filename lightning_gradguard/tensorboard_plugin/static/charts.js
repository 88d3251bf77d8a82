// Lines over the steps, with uPlot, and the entries of one layer's gradient by size, over time.

import {ramp} from "./colour.js";
import {clean, make, short} from "./dom.js";
import {A_DRAG, ticks} from "./heatmap.js";

const INKS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const FAINT = "rgba(128,128,128,0.25)";
const LEFT = 62;

// Series: [{label, x, y, dash}], all on one step axis; `log` where sizes span decades, `unit` for shares.
export function lineChart(app, group, home, title, series, {log, unit}) {
  const {steps, rows, lost, zeros} = joined(series, log);
  if (!rows.some((row) => row.some((value) => value !== null && value !== undefined))) return;
  const value = make("span", {className: "gg-value"});
  const notes = [lost && `${lost} not finite`, zeros && `${zeros} exactly zero`].filter(Boolean).join(", ");
  const box = make("figure", {className: "gg-chart"},
    make("figcaption", {}, clean(title), notes ? ` (${notes})` : "", " ", value));
  home.append(box);
  const options = {
    width: Math.max(260, box.clientWidth), height: 150, legend: {show: series.length > 1},
    cursor: {sync: {key: "gradguard"}, drag: {x: true, y: false, setScale: false}},
    scales: {x: {time: false, range: () => app.extent}, y: log ? {distr: 3, log: 10} : unit ? {range: [0, 1.05]} : {}},
    axes: axes(getComputedStyle(home).color, log),
    series: [{label: "step"}, ...series.map((one, k) => ({
      label: clean(one.label), stroke: INKS[k % INKS.length], width: 1.5, dash: one.dash,
      spanGaps: false, points: {show: steps.length < 3}, value: (_, v) => short(v),
    }))],
    hooks: {
      setCursor: [(chart) => { value.textContent = underCursor(chart, series.length); }],
      setSelect: [(chart) => select(app, chart)],
    },
  };
  (app.charts[group] ??= []).push(new window.uPlot(options, [steps, ...rows], box));
}

// uPlot keeps what it draws until it is told to let go.
export function closeCharts(app, group) {
  for (const chart of app.charts[group] ?? []) chart.destroy();
  app.charts[group] = [];
}

function joined(series, log) {
  const steps = [...new Set(series.flatMap((one) => [...one.x]))].sort((a, b) => a - b);
  const place = new Map(steps.map((step, i) => [step, i]));
  let [lost, zeros] = [0, 0];
  const rows = series.map((one) => {
    const row = new Array(steps.length).fill(undefined);
    one.x.forEach((step, i) => {
      const value = one.y[i];
      if (value === Infinity || value === -Infinity) lost++;
      if (log && value === 0) zeros++;
      row[place.get(step)] = Number.isFinite(value) && (!log || value > 0) ? value : null;
    });
    return row;
  });
  return {steps, rows, lost, zeros};
}

function axes(ink, log) {
  const common = {stroke: ink, ticks: {stroke: FAINT}};
  return [
    {...common, grid: {stroke: FAINT}, size: 28},
    {...common, grid: {stroke: FAINT, ...(log ? {filter: powersOfTen} : {})}, size: LEFT,
      ...(log ? {filter: labelled} : {}), values: (_, splits) => splits.map((v) => (v === null ? "" : short(v, 1)))},
  ];
}

const isPower = (v) => Number.isInteger(Math.round(1e6 * Math.log10(v)) / 1e6);
const powersOfTen = (_, splits) => splits.map((v) => (isPower(v) ? v : null));

// Of many decades every second, third ... has its number; within one, 1, 2 and 5.
function labelled(_, splits) {
  const powers = splits.filter(isPower).length;
  const every = Math.ceil(powers / 6);
  return splits.map((v) => {
    if (isPower(v)) return Math.round(Math.log10(v)) % every ? null : v;
    return powers < 3 && /^[25]/.test(v.toExponential()) ? v : null;
  });
}

function underCursor(chart, several) {
  const {idx} = chart.cursor;
  if (idx === null || idx === undefined) return "";
  const step = `step ${Math.floor(chart.data[0][idx])}`;
  return several > 1 ? step : `${short(chart.data[1][idx])} at ${step}`;
}

function select(app, chart) {
  const {left, width} = chart.select;
  if (width < A_DRAG) return;
  app.zoom(chart.posToVal(left, "x"), chart.posToVal(left + width, "x"));
}

export function drawHistogram(canvas, histogram, ends) {
  const width = canvas.parentElement.clientWidth || 400;
  const height = 150;
  const ratio = window.devicePixelRatio || 1;
  [canvas.width, canvas.height] = [width * ratio, height * ratio];
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const [low, inner] = [height - 20, width - LEFT - 10];
  const x = (step) => LEFT + ((step - ends[0]) / Math.max(1, ends[1] + 1 - ends[0])) * inner;
  pen.save();
  pen.beginPath();
  pen.rect(LEFT, 0, inner, height);
  pen.clip();
  shares(pen, histogram, x, ends, low);
  pen.restore();
  pen.fillStyle = getComputedStyle(canvas).color;
  pen.font = "11px system-ui, sans-serif";
  scales(pen, histogram, x, ends, low, inner);
}

function shares(pen, histogram, x, ends, low) {
  const [octaves, columns] = histogram.cellsShape;
  const tall = (low - 8) / Math.max(1, octaves);
  const edges = [...histogram.steps, Math.max(histogram.last ?? 0, ends[1]) + 1].map(x);
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
  pen.textAlign = "center";
  pen.textBaseline = "top";
  for (const step of ticks(ends, Math.max(2, inner / 90))) pen.fillText(String(step), x(step), low + 5);
}
