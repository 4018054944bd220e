/** The lists: problems, access rules, reasons, and the busiest destinations. Each is written only when it has changed. */

import { count, time } from "./format.js";

const AT_ONCE = 6; // problems that are shown without a click
const shown = new Map(); // by id: the JSON of what the list shows

function element(name, text = "", kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

/** Replace the children of an element with those that `build` returns, if `value` has changed. */
function update(id, value, build) {
  const text = JSON.stringify(value);
  if (shown.get(id) === text) return;
  shown.set(id, text);
  const place = document.getElementById(id);
  const made = build(place);
  place.replaceChildren(...(made.length || !place.dataset.empty ? made : [nothing(place.dataset.empty)]));
}

/** The row of an empty list. */
function nothing(text) {
  const row = element("div", "", "nothing");
  row.append(element("dt", text), element("dd", ""));
  return row;
}

const row = (name, value, hint = "") => {
  const made = element("div");
  const term = element("dt", name);
  if (hint) term.append(element("span", hint, "hint"));
  made.append(term, element("dd", value));
  return made;
};

const names = (list) => () => list.map(({ name, count: number }) => row(name, count(number)));

/** Advice, with the command at its end as code: messages put two spaces before it. */
function advice(text) {
  const [sentence, command] = text.split(/ {2,}(?=\S)/, 2);
  const line = element("p", "", "advice");
  line.append(element("span", "→ "), sentence);
  line.firstChild.setAttribute("aria-hidden", "true");
  if (command) line.append(" ", element("code", command));
  return line;
}

function problem({ first, last, count: number, level, text, todo }, now) {
  const item = element("li", "", level);
  const when = element("p", "", "when");
  when.append(element("b", level === "error" ? "✕ Error" : "▲ Warning"), ` ${time(last, now)}`);
  if (number > 1) when.append(` · ${count(number)} times since ${time(first, now)}`);
  item.append(when, element("p", text ?? "Its text is shown only on the relay’s own machine, and in the log."));
  if (todo) item.append(advice(todo));
  return item;
}

function showProblems(problems, now) {
  const [newest, older] = [problems.slice(0, AT_ONCE), problems.slice(AT_ONCE)];
  const none = [element("li", "Nothing since the start.", "nothing")];
  update("problems", newest, () => (newest.length ? newest.map((each) => problem(each, now)) : none));
  update("older-problems", older, () => older.map((each) => problem(each, now)));
  const box = document.getElementById("older");
  box.hidden = !older.length;
  box.firstElementChild.textContent = `${older.length} older`;
}

function access(rights) {
  if (!rights) return [row("Not shown here", "Browsers on the relay’s own machine see who may push, connect and register.")];
  const { lines, warnings, origins, trusted_proxies: trusted, proxies_seen: seen } = rights;
  const rows = lines.map(({ what, who }) => row(what, who));
  const list = (name, values) => values.length && rows.push(row(name, values.join(", ")));
  list("origins", origins);
  list("trusted proxies", trusted);
  list("proxies seen", seen.map(({ address, count: number, trusted: is }) => `${is ? "" : "▲ not trusted: "}${address} (${count(number)} clients)`));
  warnings.forEach((text) => rows.push(row("▲ Warning", text)));
  return rows;
}

const PARTS = { outbox: "Outbox", spool: "Spool", presence: "Presence", webhooks: "Webhooks", requests: "Requests from pages" };

/** The parts that serve the site's backend. A page that was loaded before the first of them was set has no list. */
function showBackend(backend) {
  if (!document.getElementById("backend")) return;
  update("backend", backend, () =>
    Object.entries(backend).map(([name, { summary, trouble }]) => {
      const made = row(PARTS[name] ?? name, summary);
      if (!trouble) return made;
      const value = made.lastElementChild;
      value.replaceChildren(element("p", `▲ ${trouble}`, "attention"), element("p", summary));
      return made;
    }),
  );
}

export function showLists({ now, problems, backend, access: rights, clients, pushes, busiest, local }) {
  showProblems(problems, now);
  showBackend(backend);
  update("access", [rights, local], () => access(rights));
  update("nobody-to", pushes.nobody_to.slice(0, 3), names(pushes.nobody_to.slice(0, 3)));
  update("refusals", pushes.refusals, () => pushes.refusals.map(({ code, count: number, meaning }) => row(code, count(number), meaning)));
  update("closed", clients.closed, () => clients.closed.map(({ reason, count: number, meaning }) => row(reason, count(number), meaning)));
  update("top-connections", busiest.connections, names(busiest.connections));
  update("top-pushes", busiest.pushes, names(busiest.pushes));
}
