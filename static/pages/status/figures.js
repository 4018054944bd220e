/** The text of each figure, by the name in its data-figure. A text with ▲ needs attention. */

import { DASH, bytes, count, large, percent, plural, seconds, span } from "./format.js";

const SERVERS = { own: "the relay’s own", werkzeug: "Werkzeug", imported: "another WSGI server" };
const STORES = { sqlite: "SQLite", memory: "memory: a restart loses it", redis: "Redis", own: "your own broker" };
const MANY_POLL = 30; // percent of long polling from which a proxy is the likely reason

const attention = (text, asks) => (asks ? `▲ ${text}` : text);
const share = (part, all) => (part ? `${count(part)} · ${percent((100 * part) / all)}` : all ? "none" : "0");

export const FIGURES = {
  version: ({ relay }) => relay.version + (relay.commit ? ` (${relay.commit})` : ""),
  up: ({ relay }) => `· up ${span(relay.up)}`,

  browsers: ({ clients }) => count(clients.now),
  "browsers-more": ({ clients }) => `${clients.limit ? `of ${count(clients.limit)} · ` : ""}peak this hour: ${count(clients.most)}`,
  pushes: ({ pushes }) => large(pushes.rate),
  "pushes-more": ({ pushes }) => {
    const parts = [`${large(pushes.hour)} this hour`];
    if (pushes.refused || !pushes.failed) parts.push(attention(`${large(pushes.refused)} refused`, pushes.refused));
    if (pushes.failed) parts.push(attention(`${large(pushes.failed)} failed`, true));
    return parts.join(" · ");
  },
  delivered: ({ deliveries }) => large(deliveries.rate),
  "delivered-more": ({ deliveries }) => `${large(deliveries.hour)} this hour`,
  latency: ({ latency }) => seconds(latency.p50),
  "latency-more": ({ latency }) => `median · p99 ${seconds(latency.p99)}`,

  websocket: ({ clients }) => share(clients.websocket, clients.now),
  polling: ({ clients }) => attention(share(clients.polling, clients.now), (100 * clients.polling) / clients.now >= MANY_POLL),

  nobody: ({ pushes }) => (pushes.publications && pushes.nobody !== null ? share(pushes.nobody, pushes.publications) : DASH),
  recovered: ({ recoveries }) => count(recoveries.recovered),
  lost: ({ recoveries }) => (recoveries.lost ? `▲ ${count(recoveries.lost)}` : "none"),
  replayed: ({ recoveries }) => count(recoveries.replayed),

  store: ({ store }) => (store.trouble ? `▲ ${store.trouble}` : STORES[store.kind]),
  kept: ({ store }) => count(store.publications),
  "kept-size": ({ store }) => bytes(store.bytes) + (store.limit ? ` of ${bytes(store.limit)}` : ""),
  oldest: ({ store }) => (store.oldest === null ? DASH : `${span(store.oldest)} of ${span(store.history_ttl)}`),
  commit: ({ store }) => (store.commit_p99 === null ? DASH : `p99 ${seconds(store.commit_p99)}`),
  free: ({ store }) => bytes(store.disk_free),
  redis: ({ store: { redis } }) => redis && attention(`${redis.up ? "connected" : "not connected"} · ${plural(redis.nodes, "node", "nodes")}`, !redis.up),
  "redis-echo": ({ store: { redis } }) => redis && `${seconds(redis.echo_p50)} · p99 ${seconds(redis.echo_p99)}`,

  uptime: ({ relay }) => span(relay.up),
  memory: ({ process }) => bytes(process.memory),
  cpu: ({ process }) => percent(process.cpu_percent),
  threads: ({ process }) => count(process.threads_busy) + (process.threads ? ` of ${count(process.threads)} busy` : " busy"),
  destinations: ({ clients }) => count(clients.destinations),
  registrations: ({ clients }) => count(clients.registrations),
  connects: ({ clients }) => `${large(clients.connects)} this hour`,
  server: ({ relay }) => SERVERS[relay.server] ?? relay.server,
  node: ({ relay }) => relay.node || null,
  python: ({ relay }) => relay.python,
};

/** Write all figures. A row whose figure is null is hidden: it does not apply to this relay. */
export function showFigures(status) {
  for (const place of document.querySelectorAll("[data-figure]")) {
    const text = FIGURES[place.dataset.figure](status);
    if (place.localName === "dd") place.parentElement.hidden = text === null;
    write(place, text ?? "");
  }
}

/** Write a text if it has changed, so that a reader's selection stays. */
export function write(place, text) {
  if (place.textContent !== text) place.textContent = text;
  place.classList.toggle("attention", text.includes("▲"));
}
