// Rows of the heatmap: layers in depth order, under the module that holds them.

// The module a layer is grouped under: up to its innermost number, else its first part.
export function stemOf(name) {
  const parts = name.split(".");
  for (let i = parts.length - 2; i >= 0; i--) {
    if (/^\d+$/.test(parts[i])) return parts.slice(0, i + 1).join(".");
  }
  return parts.length > 1 ? parts[0] : "";
}

// Neighbours under one module form a group; folded groups are one row, others a row per layer. What
// a filter finds is shown.
export function rowsOf(layers, filter, folded) {
  const wanted = filter.trim().toLowerCase();
  const rows = [];
  let group = null;
  layers.forEach((name, index) => {
    if (wanted && !name.toLowerCase().includes(wanted)) return;
    const stem = stemOf(name);
    if (!group || !stem || group.stem !== stem) {
      group = {stem, members: []};
      rows.push(group);
    }
    group.members.push(index);
  });
  return rows.flatMap(({stem, members}) => {
    if (members.length > 1 && folded.has(stem) && !wanted) {
      return [{name: stem, members, folded: true, stem}];
    }
    return members.map((index, k) => ({
      name: layers[index], members: [index], folded: false, stem: members.length > 1 ? stem : "",
      starts: members.length > 1 && k === 0, ends: k === members.length - 1,
    }));
  });
}

// What a row shows in a column: of several layers, what is worst.
export function rowValue(map, row, column) {
  return map.shown[worstOf(map, row, column) * map.steps.length + column];
}

// The layer of a row that stands out in a column: not finite, else zero, else furthest from its median.
export function worstOf(map, row, column) {
  const width = map.steps.length;
  let [worst, furthest] = [row.members[0], -1];
  for (const index of row.members) {
    const value = map.shown[index * width + column];
    if (value === Infinity) return index;
    if (Number.isNaN(value)) continue;
    const away = value === -Infinity ? 1e9 : Math.abs(value - (map.usual[index] ?? 0));
    if (away > furthest) [furthest, worst] = [away, index];
  }
  return worst;
}
