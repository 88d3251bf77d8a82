// Deep links: `#layer=…&run=…` in the page's own address, `#gradguard&p.gradguard.layer=…` in TensorBoard's around it.

const LINK_KEYS = ["layer", "run", "statistic", "step", "optimizer"];
const OUTER = "p.gradguard.";

export function readLink() {
  const found = {};
  for (const address of [window.location.href, outerAddress()]) {
    for (const part of (address?.split("#")[1] ?? "").split("&")) {
      const [key, ...rest] = (part.startsWith(OUTER) ? part.slice(OUTER.length) : part).split("=");
      if (!LINK_KEYS.includes(key) || !rest.length) continue;
      try { found[key] = decodeURIComponent(rest.join("=")); } catch { /* not for us */ }
    }
  }
  for (const key of ["step", "optimizer"]) if (!/^\d{1,15}$/.test(found[key] ?? "0")) delete found[key];
  return found;
}

export function linkTo(values) {
  const outer = outerAddress();
  const pairs = LINK_KEYS.filter((key) => values[key] !== undefined && values[key] !== null)
    .map((key) => `${outer ? OUTER : ""}${key}=${encodeURIComponent(values[key])}`).join("&");
  return outer ? `${outer.split("#")[0]}#gradguard&${pairs}` : `#${pairs}`;
}

// A run is named relative to the log directory, which a link may know more or less of.
export function matchRun(runs, name) {
  if (!name) return undefined;
  return runs.find((run) => run === name) ?? runs.find((run) => run.endsWith(`/${name}`) || name.endsWith(`/${run}`));
}

// TensorBoard's window, where the page is its tab.
export function outerWindow() {
  try { return window.parent !== window && window.parent.location.href ? window.parent : null; } catch { return null; }
}

const outerAddress = () => outerWindow()?.location.href ?? null;
