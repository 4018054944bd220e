// One arrival: a row of one line, which opens to show all its details.

import { copyFor, element, timeOfDay } from "../dom.js";
import { layOut } from "./json.js";
import { milliseconds } from "./latency.js";

const SHOWN = 300; // characters of data in a row
const SHOWN_OPEN = 50000; // in the full view: a browser needs seconds to lay a million out

/** Return the publication as it is listed, filtered and copied. `date` is the time of its arrival or, if it was kept, of its push. */
export function entryOf(data, { id, event, destination }, date) {
  const text = typeof data === "string" ? data : String(JSON.stringify(data));
  return { position: id, event, destination, data, text, date, latency: null, isCaughtUp: false, isKept: false, rule: null, node: null };
}

/** Return the entry as a line of JSON. */
export function lineOf({ position, event, destination, data, date }) {
  return JSON.stringify({ time: date.toISOString(), id: position, destination, event, data });
}

/** Return whether an entry contains a text, which is in lower case. */
export const contains = ({ text, event }, wanted) => text.toLowerCase().includes(wanted) || event.toLowerCase().includes(wanted);

/** Return the list item of an entry. The full view is built when it is opened. */
export function rowOf(entry) {
  const details = document.createElement("details");
  const event = element("span", "event", entry.event === "push" ? "" : entry.event);
  const data = element("span", "data", entry.text.slice(0, SHOWN));
  const latency = element("span", "latency");
  const time = element("time", "", timeOfDay(entry.date, true));
  time.dateTime = entry.date.toISOString();
  const summary = document.createElement("summary");
  summary.append(time, event, data, latency);
  details.append(summary);
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(fullView(entry));
  });
  const item = element("li", "arrival", details);
  item.dataset.id = entry.position;
  item.classList.toggle("caught-up", entry.isCaughtUp);
  item.classList.toggle("kept", entry.isKept);
  entry.node = item;
  showLatency(entry);
  return item;
}

/** Show the latency of a push of this page, once it is known. */
export function showLatency({ node, latency }) {
  if (!node || latency === null) return;
  node.querySelector(".latency").textContent = `+${milliseconds(latency)}`;
}

function fullView(entry) {
  const { data, text, event, position, date } = entry;
  const type = data === null ? "null" : Array.isArray(data) ? "array" : typeof data;
  const body = element("pre", "value");
  body.tabIndex = 0;
  body.setAttribute("role", "region");
  body.setAttribute("aria-label", "Data");
  let lines = 0;
  try {
    lines = layOut(body, text);
  } catch (_) {} // plain text that begins like JSON
  if (!lines) body.textContent = text.slice(0, SHOWN_OPEN);
  const copy = element("button", "quiet small", "Copy");
  copy.type = "button";
  copy.addEventListener("click", () => copyFor(copy, text, body));
  const facts = element("dl", "facts");
  const size = `${text.length.toLocaleString("en")} characters`;
  for (const [name, value] of [["event", event], ["type", `${type}, ${size}`], ["position", position], ["time", date.toLocaleString("sv")]]) {
    facts.append(element("div", "", element("dt", "", name), element("dd", "", value)));
  }
  const full = element("div", "full", body, element("div", "about", facts, copy));
  if (text.length > SHOWN_OPEN) body.after(element("p", "hint", `The first ${SHOWN_OPEN.toLocaleString("en")} characters. The button Copy copies all.`));
  return full;
}
