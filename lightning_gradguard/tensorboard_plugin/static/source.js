// Where the data come from: TensorBoard's server, or the page itself.

import {fromBase64, unpack} from "./decode.js";
import {LEVELS, verdictOf} from "./findings.js";

export function serverSource(base) {
  const ask = async (route, query = {}) => {
    const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
    const answer = await fetch(`${base}${route}?${new URLSearchParams(given)}`);
    if (!answer.ok) {
      const told = await answer.json().catch(() => ({}));
      throw new Error(told.error || `the server answered ${answer.status}`);
    }
    return answer;
  };
  const json = async (...args) => (await ask(...args)).json();
  const packed = async (...args) => unpack(await (await ask(...args)).arrayBuffer());
  return {
    runs: () => json("runs"),
    overview: (run) => json("overview", {run}),
    heatmap: (run, options) => packed("heatmap", {run, ...options}),
    scalars: (run, optimizer) => packed("scalars", {run, optimizer}),
    lines: (run, layer, optimizer) => packed("lines", {run, layer, optimizer}),
    histogram: (run, layer, optimizer) => packed("histogram", {run, layer, optimizer}),
  };
}

export function inlineSource(page) {
  const read = (...key) => {
    const text = page.packs[JSON.stringify(key)];
    return text === undefined ? null : unpack(fromBase64(text));
  };
  const overviewOf = (run) => page.overviews.find((one) => one.name === run);
  const all = page.overviews.map((overview) => ({name: overview.name, overview, ...verdictOf(overview)}))
    .sort((a, b) => LEVELS.indexOf(b.level) - LEVELS.indexOf(a.level));
  return {
    all: () => all,
    runs: async () => ({runs: all.map((one) => one.name), message: ""}),
    overview: async (run) => overviewOf(run),
    heatmap: async (run, {statistic, relative, optimizer, first, last}) =>
      cutColumns(read("heatmap", run, statistic, relative, optimizer), first, last),
    scalars: async (run, optimizer) => read("scalars", run, optimizer),
    lines: async (run, layer, optimizer) => {
      const parts = overviewOf(run).optimizers.find((part) => part.index === optimizer);
      const row = parts.layers.indexOf(layer);
      const names = overviewOf(run).statistics;
      const maps = names.map((name) => read("heatmap", run, name, "none", optimizer));
      const x = Float64Array.from(maps[0].steps);
      const y = new Float32Array(names.length * x.length);
      maps.forEach((map, k) => {
        for (let i = 0; i < x.length; i++) y[k * x.length + i] = valueOf(map, row * x.length + i);
      });
      return {names, x, y};
    },
    histogram: async (run, layer, optimizer) => read("histogram", run, layer, optimizer),
  };
}

const valueOf = (map, i) => (map.scale === "log2" ? 2 ** map.cells[i] : map.cells[i]);

function cutColumns(map, first, last) {
  if (first === undefined || first === null) return map;
  const kept = map.steps.map((step, i) => [step, i]).filter(([step, i]) => {
    const end = i + 1 < map.steps.length ? map.steps[i + 1] : map.last + 1;
    return end > first && step <= last;
  }).map(([, i]) => i);
  const width = map.steps.length;
  const cells = new Float32Array(kept.length * map.layers);
  for (let row = 0; row < map.layers; row++) {
    kept.forEach((i, k) => { cells[row * kept.length + k] = map.cells[row * width + i]; });
  }
  return {...map, cells, steps: kept.map((i) => map.steps[i]), last: Math.min(last, map.last)};
}
