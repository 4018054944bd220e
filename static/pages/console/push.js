// The form that pushes as a program would, checks JSON while it is typed, and shows how fast the push arrived.

import { $, counted, element, soon } from "../dom.js";
import { address, base, destination, id, isMe } from "./facts.js";
import { findError, findRounded } from "./json.js";
import { milliseconds } from "./latency.js";

const SAMPLES = { text: "Hello from the form", json: '{"text": "Hello", "from": "the form"}' };

export class PushForm {
  /** `latency` learns of arrivals, `list` shows the latency, and `showPresence` takes the connections of an answer. */
  constructor(latency, list, showPresence) {
    Object.assign(this, { latency, list, showPresence });
    this.form = $("push-form");
    this.output = $("push-answer");
    $("destination").value = destination;
    this.form.addEventListener("submit", (event) => this.submitted(event));
    this.form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.form.requestSubmit();
    });
    this.form.addEventListener("change", ({ target }) => target.name === "format" && this.formatChosen());
    this.form.addEventListener("input", () => this.output.dataset.kind === "bad" && this.say("", "")); // the cause may be gone
    $("data").addEventListener("input", soon(() => this.check(), 250));
  }

  get isJson() {
    return this.form.elements.format.value === "json";
  }

  /** Change the example with the format, but leave data that somebody typed. */
  formatChosen() {
    const data = $("data");
    if (Object.values(SAMPLES).includes(data.value)) data.value = SAMPLES[this.isJson ? "json" : "text"];
    this.check();
  }

  /** Show the position of the first error, or a number that pages cannot read exactly. Return the error, or null. */
  check() {
    const error = this.isJson ? findError($("data").value) : null;
    this.rounded = this.isJson && !error ? findRounded($("data").value) : null;
    $("data").setAttribute("aria-invalid", String(Boolean(error)));
    if (error) this.say("bad json", `Not JSON yet. Line ${error.line}, column ${error.column}: expected ${error.expected}.`);
    else if (this.rounded) this.say("warn json", `JavaScript reads ${this.rounded.join(" as ")}. Send large numbers as text.`);
    else if (/json$/.test(this.output.dataset.kind)) this.say("", "");
    return error;
  }

  say(kind, ...content) {
    this.output.dataset.kind = kind;
    this.output.replaceChildren(...content);
  }

  async submitted(event) {
    event.preventDefault();
    const error = this.check();
    if (error) {
      $("data").focus();
      return $("data").setSelectionRange(error.at, error.at + 1);
    }
    this.say("", ""); // otherwise screen readers would not read the same answer twice
    const started = performance.now();
    try {
      const answer = await this.push();
      this.answered(answer, started);
    } catch (failure) {
      this.say(failure.isAway ? "bad away" : "bad", failure.isAway ? failure.message : `Not pushed: ${failure.message}`);
    }
  }

  /** Post the fields as PHP would: a form, or JSON. Return the answer, or throw an Error whose message can be shown. */
  async push() {
    const fields = { destination: $("destination").value, data: $("data").value };
    if ($("event").value) fields.event = $("event").value;
    const request = this.isJson ? asJson(fields) : { body: new URLSearchParams(fields) };
    const response = await fetch(address("push"), { method: "POST", ...request }).catch(() => {
      throw Object.assign(new Error(`No answer from ${base.host}. Is the relay running?`), { isAway: true });
    });
    // If it is not JSON, something else answered, for example a proxy with an HTML page. Its status is shown.
    const answer = await response.json().catch(() => ({}));
    if (response.ok && answer.id) return answer;
    throw new Error(answer.message || answer.error || `HTTP ${response.status} ${response.statusText}`);
  }

  async answered({ id: position, destination: to, connections }, started) {
    const isOwn = to === destination;
    if (isOwn) this.showPresence(connections);
    if (!connections) return this.say("warn", `Accepted, but no window is registered for “${to}” now.`);
    const delivered = `Delivered to ${counted(connections, "window")}`;
    const rounded = this.rounded ? `. JavaScript reads ${this.rounded.join(" as ")}` : "";
    this.say("ok", delivered, rounded);
    if (!isOwn) return;
    const number = (this.number = (this.number || 0) + 1);
    const ms = await this.latency.of(isMe ? id : to, position, started);
    if (ms === null) return;
    this.list.showLatency(position, ms);
    if (number === this.number && this.output.dataset.kind === "ok") this.say("ok", `${delivered}, here in `, element("strong", "", milliseconds(ms)), rounded);
  }

  /** Remove the message that the relay does not answer. */
  forgetNoAnswer() {
    if (this.output.dataset.kind === "bad away") this.say("", "");
  }
}

/** Return a request with the data exactly as it was typed: parsing it here would round large numbers. */
function asJson({ data, ...others }) {
  const members = Object.entries(others).map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`);
  return { body: `{${members.join(",")},"data":${data}}`, headers: { "Content-Type": "application/json" } };
}
