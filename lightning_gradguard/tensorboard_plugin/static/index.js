// What TensorBoard loads: the page over its server, in its colours, drawn again when it reloads.

import {startApp} from "./app.js";
import {make} from "./dom.js";
import {serverSource} from "./source.js";

const here = new URL(".", import.meta.url);

function loaded(element) {
  return new Promise((done, failed) => {
    element.onload = done;
    element.onerror = () => failed(new Error(`cannot load ${element.src || element.href}`));
    document.head.append(element);
  });
}

export async function render() {
  const sheet = (name) => loaded(make("link", {rel: "stylesheet", href: new URL(name, here).href}));
  await Promise.all([sheet("style.css"), sheet("uplot.css"),
    loaded(make("script", {src: new URL("uplot.js", here).href}))]);
  const root = make("main");
  document.body.append(root);
  let app = null;
  followTheme(() => app?.redraw());
  app = await startApp(root, serverSource(new URL("../", here).href));
  onReload(() => app.refresh());
}

// TensorBoard does not pass its theme on, but its page is of the same origin.
function followTheme(changed) {
  let outer = null;
  try { outer = window.parent.document.body; } catch { return; }
  const follow = () => {
    document.documentElement.classList.toggle("gg-dark", outer.classList.contains("dark-mode"));
    document.documentElement.classList.toggle("gg-light", !outer.classList.contains("dark-mode"));
    changed();
  };
  follow();
  new MutationObserver(follow).observe(outer, {attributes: true, attributeFilter: ["class"]});
}

// The little of TensorBoard's experimental protocol that says when its data were reloaded.
function onReload(refresh) {
  const {port1, port2} = new MessageChannel();
  port1.onmessage = (event) => {
    let message = {};
    try { message = JSON.parse(event.data); } catch { return; }
    if (message.isReply) return;
    port1.postMessage(JSON.stringify({type: message.type, id: message.id, payload: null, error: null, isReply: true}));
    if (message.type === "experimental.DataReloaded") refresh();
  };
  window.parent.postMessage("experimental.bootstrap", "*", [port2]);
}
