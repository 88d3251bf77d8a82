// Lines over the steps, with uPlot, and the histogram of one layer over time.

import {ramp} from "./colour.js";
import {clean, make, short} from "./dom.js";
import {ticks} from "./heatmap.js";

const INKS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

// Series: [{label, x, y, dash}]. All on one step axis; `log` where sizes span decades.
export function lineChart(home, title, series, {log, unit, ends, sync}) {
  const steps = [...new Set(series.flatMap((one) => [...one.x]))].sort((a, b) => a - b);
  const place = new Map(steps.map((step, i) => [step, i]));
  let lost = 0;
  const rows = series.map((one) => {
    const row = new Array(steps.length).fill(undefined);
    one.x.forEach((step, i) => {
      const value = one.y[i];
      const fine = Number.isFinite(value) && (!log || value > 0);
      if (value === Infinity || value === -Infinity) lost++;
      row[place.get(step)] = fine ? value : null;
    });
    return row;
  });
  if (!rows.some((row) => row.some((value) => value !== null && value !== undefined))) return null;
  const ink = getComputedStyle(home).color;
  const faint = "rgba(128,128,128,0.25)";
  const box = make("figure", {className: "gg-chart"},
    make("figcaption", {}, clean(title), lost ? ` (${lost} not finite)` : ""));
  home.append(box);
  const chart = new window.uPlot({
    width: Math.max(260, box.clientWidth), height: 170,
    cursor: {sync: {key: sync}},
    scales: {x: {time: false, range: () => ends}, y: log ? {distr: 3, log: 10} : unit ? {range: [0, 1.05]} : {}},
    axes: [
      {stroke: ink, grid: {stroke: faint}, ticks: {stroke: faint}},
      {stroke: ink, grid: {stroke: faint, ...(log ? {filter: powersOfTen} : {})}, ticks: {stroke: faint}, size: 62,
        values: (_, splits) => splits.map((v) => (v === null ? "" : short(v, 1)))},
    ],
    series: [{label: "step"}, ...series.map((one, k) => ({
      label: clean(one.label), stroke: INKS[k % INKS.length], width: 1.5, dash: one.dash,
      spanGaps: false, points: {show: false}, value: (_, v) => short(v),
    }))],
  }, [steps, ...rows], box);
  return chart;
}

const powersOfTen = (_, splits) => splits.map((v) => (Number.isInteger(Math.round(1e6 * Math.log10(v)) / 1e6) ? v : null));

export function drawHistogram(canvas, histogram, ends) {
  const [octaves, columns] = histogram.cellsShape;
  const width = canvas.parentElement.clientWidth || 400;
  const height = 190;
  const ratio = window.devicePixelRatio || 1;
  [canvas.width, canvas.height] = [width * ratio, height * ratio];
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const ink = getComputedStyle(canvas).color;
  const [left, low] = [62, height - 20];
  const inner = width - left - 10;
  const x = (step) => left + ((step - ends[0]) / Math.max(1, ends[1] + 1 - ends[0])) * inner;
  const tall = (low - 8) / Math.max(1, octaves);
  const edges = [...histogram.steps, Math.max(histogram.last ?? 0, ends[1]) + 1].map(x);
  pen.save();
  pen.beginPath();
  pen.rect(left, 0, inner, height);
  pen.clip();
  for (let o = 0; o < octaves; o++) {
    for (let c = 0; c < columns; c++) {
      const share = histogram.cells[o * columns + c];
      if (!share) continue;
      pen.fillStyle = `rgb(${ramp(Math.sqrt(share / 255), false)})`;
      pen.fillRect(edges[c], low - (o + 1) * tall, edges[c + 1] - edges[c] + 0.5, tall + 0.5);
    }
  }
  pen.restore();
  pen.fillStyle = ink;
  pen.font = "11px system-ui, sans-serif";
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  for (const octave of ticks([histogram.low, histogram.low + octaves], 6)) {
    pen.fillText(`2^${octave}`, left - 6, low - (octave - histogram.low) * tall);
  }
  pen.textAlign = "center";
  pen.textBaseline = "top";
  for (const step of ticks(ends, Math.max(2, inner / 90))) pen.fillText(String(step), x(step), low + 5);
}
