/** The limits and their use: a meter, two numbers and, from 80 % on, a warning. */

import { bytes, count, percent } from "./format.js";
import { write } from "./figures.js";

const NEAR = 0.8;
const FULL = 0.95;

/** By name: what is used, the limit, how both are written, and whether reaching it is normal. */
const LIMITS = {
  clients: ({ clients }) => [clients.now, clients.limit, count],
  files: ({ files }) => [files.open, files.limit, count],
  store: ({ store }) => [store.bytes, store.limit, bytes, true], // a full store drops the oldest
  outbox: ({ process }) => [process.outbox_bytes, process.outbox_limit, bytes],
  threads: ({ process }) => [process.threads_busy, process.threads, count],
};

export function showLimits(status) {
  for (const row of document.querySelectorAll("[data-limit]")) {
    const [used, limit, written, isNormal] = LIMITS[row.dataset.limit](status);
    const [text, meter] = [row.querySelector("span"), row.querySelector("meter")];
    const isKnown = limit && used !== null;
    const share = isKnown ? Math.min(used / limit, 1) : 0;
    meter.hidden = !isKnown;
    meter.value = share;
    meter.dataset.kind = isNormal || share < NEAR ? "ok" : share < FULL ? "warn" : "bad";
    const words = { ok: "", warn: "▲ near · ", bad: "▲ reached · " }[meter.dataset.kind];
    const numbers = isKnown ? `${written(used)} of ${written(limit)} · ${percent(100 * share)}` : written(used);
    write(text, words + numbers);
    meter.setAttribute("aria-valuetext", words + numbers);
  }
}
