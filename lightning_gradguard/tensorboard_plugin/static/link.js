// Deep links: `#layer=…&run=…`, in the page's own address or in TensorBoard's around it.

const LINK_KEYS = ["layer", "run", "statistic", "step"];

export function readLink() {
  const found = {};
  for (const view of [window, window.parent]) {
    let hash = "";
    try { hash = view.location.hash; } catch { continue; }
    for (const part of hash.replace(/^#/, "").split("&")) {
      const [key, ...rest] = part.replace(/^p\.gradguard\./, "").split("=");
      if (!LINK_KEYS.includes(key) || !rest.length) continue;
      try { found[key] = decodeURIComponent(rest.join("=")); } catch { /* not for us */ }
    }
  }
  return found;
}

export function linkTo(values) {
  return `#${LINK_KEYS.filter((key) => values[key])
    .map((key) => `${key}=${encodeURIComponent(values[key])}`).join("&")}`;
}
