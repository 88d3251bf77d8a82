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
    scalars: (run, optimizer, ends) => packed("scalars", {run, optimizer, ...spanOf(ends)}),
    lines: (run, layer, optimizer, ends) => packed("lines", {run, layer, optimizer, ...spanOf(ends)}),
    histogram: (run, layer, optimizer) => packed("histogram", {run, layer, optimizer}),
    overTime: (run, layer, optimizer) => packed("over_time", {run, layer, optimizer}),
  };
}

const spanOf = (ends) => (ends ? {first: ends[0], last: ends[1]} : {});

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
      return linesOf(maps, row, names);
    },
    histogram: async (run, layer, optimizer) => read("histogram", run, layer, optimizer),
    overTime: async (run, layer, optimizer) => read("over_time", run, layer, optimizer),
  };
}

// Each column has two points: its value, and what else was in it.
function linesOf(maps, row, names) {
  const width = maps[0].steps.length;
  const step = (i) => maps[0].steps[i] ?? (maps[0].last ?? 0) + 1;
  const x = new Float64Array(2 * width);
  for (let i = 0; i < width; i++) [x[2 * i], x[2 * i + 1]] = [step(i), (step(i) + step(i + 1)) / 2];
  const y = new Float32Array(names.length * 2 * width);
  maps.forEach((map, k) => {
    for (let i = 0; i < width; i++) {
      const cell = row * width + i;
      const value = map.scale === "log2" ? 2 ** map.cells[cell] : map.cells[cell];
      const beside = [Number.isFinite(value) && value ? value : NaN, 0, Infinity][map.special.length ? map.special[cell] : 0];
      y.set([value, beside], k * 2 * width + 2 * i);
    }
  });
  return {names, x, y};
}

function cutColumns(map, first, last) {
  if (first === undefined || first === null) return map;
  const kept = map.steps.map((step, i) => [step, i]).filter(([step, i]) => {
    const end = i + 1 < map.steps.length ? map.steps[i + 1] : map.last + 1;
    return end > first && step <= last;
  }).map(([, i]) => i);
  const cut = (numbers) => {
    const found = new numbers.constructor(numbers.length ? kept.length * map.layers : 0);
    for (let i = 0; i < found.length; i++) {
      found[i] = numbers[Math.floor(i / kept.length) * map.steps.length + kept[i % kept.length]];
    }
    return found;
  };
  return {...map, cells: cut(map.cells), special: cut(map.special), steps: kept.map((i) => map.steps[i]),
    last: Math.min(last, map.last)};
}
