// The list of what arrived, newest first. It draws at most once per frame, is bounded, can wait, and can be filtered.

import { $, atMostOncePerSecond, copyFor, counted, element, soon, timeOfDay } from "../dom.js";
import { contains, entryOf, lineOf, rowOf, showLatency } from "./row.js";

export const MAX_ROWS = 300; // so that the memory of a page that is open all day does not grow
const FEW = 5; // rows drawn at the same time that light up: more would only flicker

export class Arrivals {
  constructor() {
    this.list = $("arrived");
    this.entries = []; // what the list shows, the oldest first
    this.queue = []; // entries and rules that are not drawn yet
    this.total = 0;
    this.unread = 0; // since the page was hidden
    this.isPaused = false;
    this.waiting = 0; // arrivals since the pause
    this.wanted = ""; // the text to filter by
    this.rule = null; // the rule of the time away, until the missed publications have arrived
    this.lastRule = null; // of the last time away
    this.drawSoon = soon(() => this.draw(), 16);
    this.announce = atMostOncePerSecond((count) => ($("news").textContent = `${count.toLocaleString("en")} new`));
    $("pause").addEventListener("click", () => this.pause(!this.isPaused));
    $("clear").addEventListener("click", () => this.clear());
    $("copy-all").addEventListener("click", () => copyFor($("copy-all"), this.shown().map(lineOf).join("\n"), this.list));
    $("filter").addEventListener("input", () => this.filter());
    $("filter").addEventListener("keydown", ({ key }) => key === "Escape" && this.filter(""));
  }

  /** Add a publication that arrived just now. */
  add(data, publication, isCaughtUp) {
    const entry = entryOf(data, publication, new Date());
    if (isCaughtUp) Object.assign(entry, { isCaughtUp, rule: this.rule });
    this.total += 1;
    this.announce(1);
    this.put(entry);
    return entry;
  }

  put(item) {
    this.queue.push(item);
    if (item.text !== undefined && this.isPaused) this.waiting += 1;
    if (this.queue.length > 2 * MAX_ROWS) this.queue.splice(0, MAX_ROWS); // in a burst, or a long pause
    this.drawSoon();
  }

  draw() {
    this.showCounts();
    if (this.isPaused) return;
    const items = this.queue.splice(0).slice(-MAX_ROWS);
    for (const item of items) {
      if (item instanceof Node) this.list.prepend(item);
      else this.place(item, items.length <= FEW);
    }
    while (this.entries.length > MAX_ROWS) this.entries.shift().node.remove();
    while (this.list.lastChild && this.list.lastChild.matches(".rule:not(:first-child)")) this.list.lastChild.remove();
    this.showCounts();
  }

  /** Place a row: above all others, or below the rule of the time away if it was caught up. */
  place(entry, isFresh) {
    const row = rowOf(entry);
    row.classList.toggle("fresh", isFresh);
    row.hidden = !contains(entry, this.wanted);
    this.entries.push(entry);
    if (entry.rule && entry.rule.parentNode) entry.rule.after(row);
    else this.list.prepend(row);
  }

  /** Show the latency of a push that this page sent. */
  showLatency(position, ms) {
    const entry = [...this.queue, ...this.entries].find((each) => each.position === position);
    if (!entry) return;
    entry.latency = ms;
    showLatency(entry);
  }

  showCounts() {
    const shown = this.wanted ? this.shown().length : this.entries.length;
    let text = this.total || this.entries.length ? this.total.toLocaleString("en") : "";
    if (this.wanted) text = `${shown.toLocaleString("en")} of ${this.entries.length.toLocaleString("en")}`;
    else if (this.total > MAX_ROWS) text += `, the newest ${MAX_ROWS} shown`;
    $("count").textContent = text;
    this.list.classList.toggle("matchless", Boolean(this.wanted) && !shown);
    $("pause").textContent = this.isPaused ? `Resume${this.waiting ? ` (${this.waiting.toLocaleString("en")} new)` : ""}` : "Pause";
    $("arrivals").classList.toggle("has-rows", this.entries.length > 0 || this.waiting > 0 || this.list.childElementCount > 0);
    $("list-tools").inert = !this.entries.length && !this.waiting;
  }

  // --- Actions of the reader ---

  pause(isPaused) {
    this.isPaused = isPaused;
    this.waiting = 0;
    $("pause").setAttribute("aria-pressed", String(isPaused));
    this.draw();
  }

  clear() {
    this.entries = [];
    this.queue = [];
    this.total = this.waiting = 0;
    this.list.replaceChildren(...(this.rule ? [this.rule] : []));
    this.filter("");
  }

  filter(text = $("filter").value) {
    $("filter").value = text;
    this.wanted = text.trim().toLowerCase();
    this.entries.forEach((entry) => (entry.node.hidden = !contains(entry, this.wanted)));
    this.list.classList.toggle("filtered", this.wanted !== "");
    this.showCounts();
  }

  shown() {
    return this.entries.filter((entry) => contains(entry, this.wanted));
  }

  // --- Rules: times away, lost publications, kept publications ---

  /** Begin a time away. A page that goes away again before anything has arrived continues the last one. */
  away(from) {
    const [last] = this.queue.length ? [] : [this.list.firstChild];
    if (last && last === this.lastRule) this.rule = last;
    else {
      this.rule = this.lastRule = element("li", "rule");
      this.rule.dataset.from = timeOfDay(from);
      this.put(this.rule);
    }
    this.rule.textContent = `away since ${this.rule.dataset.from}`;
  }

  back(to) {
    if (this.rule) this.rule.textContent = spanOf(this.rule, to);
  }

  /** Complete the rule of the time away: `outcome` is "", "recovered" or "lost". */
  settled({ to, caughtUp, outcome }) {
    const { rule } = this;
    if (!rule) return;
    this.draw();
    const missed = caughtUp ? `${caughtUp.toLocaleString("en")} caught up` : outcome === "recovered" && "nothing missed";
    rule.textContent = [spanOf(rule, to), missed].filter(Boolean).join(" · ");
    if (outcome === "lost") this.markLost(rule);
    this.rule = null;
  }

  /** Mark the place of what is missing: before the oldest publication that was caught up. */
  markLost(rule) {
    const lost = element("li", "rule lost", "some pushes are missing here: the relay no longer keeps them");
    const oldest = this.entries.find((entry) => entry.rule === rule);
    if (rule.parentNode) (oldest ? oldest.node : rule).after(lost);
    else this.queue.splice(this.queue.indexOf(rule), 0, lost);
  }

  /** Mark all arrivals so far as caught up: this page was open before, and the relay has sent what it missed since. */
  settledAtStart(outcome) {
    const entries = [...this.entries, ...this.queue];
    if (!entries.length && outcome !== "lost") return;
    this.lastRule = element("li", "rule", `while this page was closed · ${entries.length.toLocaleString("en")} caught up`);
    entries.forEach((entry) => Object.assign(entry, { isCaughtUp: true, rule: this.lastRule }));
    this.entries.forEach(({ node }) => node.classList.add("caught-up"));
    this.draw();
    this.list.prepend(this.lastRule);
    if (outcome === "lost") this.markLost(this.lastRule);
    this.showCounts();
  }

  /** Put publications that the relay keeps, the oldest first, below all others. Return how many were not here yet. */
  addKept(publications, destination) {
    const here = new Set([...this.queue, ...this.entries].map(({ position }) => position));
    const missing = publications.filter(({ id }) => !here.has(id));
    const room = Math.max(0, MAX_ROWS - this.entries.length);
    const entries = missing.slice(Math.max(0, missing.length - room)).map(({ id, event, data, created }) => {
      const entry = entryOf(data, { id, event, destination }, new Date(created * 1000));
      return Object.assign(entry, { isKept: true });
    });
    this.list.querySelectorAll(".rule.kept").forEach((rule) => rule.remove());
    const rows = entries.map(rowOf).reverse();
    let text = "the relay keeps nothing else for this id";
    if (missing.length) text = "the list is full: clear it to see what the relay keeps";
    if (rows.length) text = `kept by the relay: ${counted(rows.length, "earlier push", "earlier pushes")}`;
    this.list.append(element("li", "rule kept", text), ...rows);
    this.entries.unshift(...entries);
    this.filter();
    return rows.length;
  }
}

const spanOf = (rule, to) => `away ${rule.dataset.from} to ${timeOfDay(to)}`;
