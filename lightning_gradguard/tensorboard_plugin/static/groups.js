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

// What a row shows in a column: what is finite and furthest from its median, and beside it what is
// special: 0 nothing, 1 an exact zero, 2 what is not finite.
export function rowCell(map, row, column) {
  let [value, furthest, special] = [NaN, -1, 0];
  for (const index of row.members) {
    special = Math.max(special, specialOf(map, index, column));
    const one = map.shown[index * map.steps.length + column];
    const away = Math.abs(one - (map.usual[index] ?? 0));
    if (Number.isFinite(one) && away > furthest) [value, furthest] = [one, away];
  }
  return {value, special};
}

export function specialOf(map, index, column) {
  const place = index * map.steps.length + column;
  const value = map.cells[place];
  if (value === Infinity) return 2;
  if (value === -Infinity) return 1;
  return map.special.length ? map.special[place] : 0;
}

// The layer of a row that stands out in a column: what is special, then what is furthest from its median.
export function worstOf(map, row, column) {
  const weight = (index) => {
    const away = Math.abs(map.shown[index * map.steps.length + column] - (map.usual[index] ?? 0));
    return 1e9 * specialOf(map, index, column) + (Number.isFinite(away) ? away : 0);
  };
  return row.members.reduce((a, b) => (weight(b) > weight(a) ? b : a));
}
