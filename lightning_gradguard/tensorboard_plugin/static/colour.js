// Colours that colour-blind people can tell apart: viridis, and blue to orange around a middle.
// What is no size, such as zero, is far from all of them, also for eyes without one kind of cone.

const VIRIDIS = [
  [68, 1, 84], [72, 36, 117], [65, 68, 135], [53, 95, 141], [42, 120, 142], [33, 145, 140],
  [34, 168, 132], [68, 191, 112], [122, 209, 81], [189, 223, 38], [253, 231, 37],
];
const AROUND = [
  [8, 48, 107], [45, 85, 140], [110, 125, 160], [165, 170, 185], [208, 206, 200],
  [238, 190, 135], [240, 145, 65], [200, 85, 10], [110, 45, 5],
];

export const ZERO = [0, 0, 0];
export const NONFINITE = [255, 0, 255];
// How much ink is in the lines over what was not measured.
export const HATCHING = 0.3;

export function ramp(share, around) {
  const stops = around ? AROUND : VIRIDIS;
  const place = Math.max(0, Math.min(1, share)) * (stops.length - 1);
  const low = Math.min(Math.floor(place), stops.length - 2);
  return stops[low].map((c, k) => Math.round(c + (stops[low + 1][k] - c) * (place - low)));
}

export const SPECIAL = [null, ZERO, NONFINITE];

// The upper and the lower half of a cell; null where nothing was measured.
export function cellColours({value, special}, range, around) {
  const colour = Number.isNaN(value) ? null : ramp((value - range[0]) / (range[1] - range[0] || 1), around);
  const beside = SPECIAL[special];
  return [colour ?? beside, beside ?? colour];
}

// The range of what is finite, without the outermost half per cent; symmetric around 0 if asked.
export function dataRange(lists, around) {
  const values = [];
  for (const list of lists) {
    const stride = Math.max(1, Math.floor(list.length / 100000));
    for (let i = 0; i < list.length; i += stride) if (Number.isFinite(list[i])) values.push(list[i]);
  }
  if (!values.length) return around ? [-1, 1] : [0, 1];
  values.sort((a, b) => a - b);
  const at = (share) => values[Math.round(share * (values.length - 1))];
  let [low, high] = [at(0.005), at(0.995)];
  if (around) {
    high = Math.max(Math.abs(low), Math.abs(high), 1);
    low = -high;
  }
  return high - low < 1 ? [(low + high) / 2 - 0.5, (low + high) / 2 + 0.5] : [low, high];
}

export const SEVERITIES = {20: ["info", "#4c8bf5"], 30: ["warning", "#e69f00"],
  40: ["error", "#d55e00"], 50: ["critical", "#c2185b"]};

export function severityOf(finding) {
  return SEVERITIES[finding.severity] || SEVERITIES[20];
}
