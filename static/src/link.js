import { CLOSED, CUT, asError, noRelay } from "./errors.js";
import { Publications } from "./publications.js";
import { noop } from "./scope.js";
import { timer } from "./timing.js";
import { polling } from "./wires/polling.js";
import { websocket } from "./wires/websocket.js";

export const live = new Set(); // connections that were started and not closed

/** The link to the relay: it opens a wire, handles its packets, and opens the next one if it ends. */
export class Link extends Publications {
  // Set later:
  // _heard, _opened, _since: times of the last packet, attempt and success, by the wall clock, because timers stop
  //   during sleep
  // _patience: maximum ms of silence
  // _failure: the error code that was reported last
  // _drained: whether the relay set the time to reconnect
  // _pollsFirst: whether WebSocket hung, or failed while long polling worked
  _failures = 0;

  _silence = timer(() => this._wire.end(this.transport ? "ping timeout" : "timeout"));
  _retry = timer(() => this._open());

  _open() {
    if (this._wire || !live.has(this)) return;
    this._opened = Date.now();
    this._say("connecting");
    const transports = [...this._options.transports];
    if (live.has(this)) this._try(this._pollsFirst ? transports.sort() : transports);
  }

  /**
   * Try the transports in order. WebSocket is first, or a restart would leave pages on long polling. But it is last if it
   * has failed before, because Firefox then delays each attempt, by up to a minute, in all tabs.
   */
  _try([name = "websocket", ...others]) {
    const wire = (this._wire = { name, close: noop });
    wire._receive = (packet) => this._wire === wire && this._packet(packet);
    wire.end = (reason, error) => {
      if (this._wire !== wire) return;
      if (reason === "no place") return this._rest(reason);
      if (this.transport || !others.length) return this._drop(reason, error);
      this._pollsFirst ||= reason === "timeout";
      this._hangUp();
      this._try(others);
    };
    this._silence(this._options.timeout);
    try {
      (name === "polling" ? polling : websocket)(wire, this._url);
    } catch (error) {
      wire.end("transport error", error); // there is no WebSocket, or ws: is forbidden from https:
    }
  }

  /** Handle an Engine.IO packet; type "4" contains a Socket.IO packet. */
  _packet(packet) {
    const wire = this._wire;
    this._log("<", packet);
    try {
      const [, type, id, json] = /^(4?[0-6b]|\[)(\d*)([[{].*)?/s.exec(packet);
      const body = json && JSON.parse(json);
      if (type === "0") {
        this._patience = body.pingInterval + body.pingTimeout;
        Object.assign(wire, body);
        wire.send("40");
      } else if (type === "1") this._drop("transport close");
      else if (type === "2") wire.send("3");
      else if (type === "40") this._welcome(body);
      else if (type === "41") this._drop("io server disconnect");
      else if (type === "44") this._drop("connect_error", asError({ error: "connect_error", url: this._url, ...body, ...body.data }));
      else if (type === "43") this._answer(+id, ...body);
      else if (type === "42" && body) this._take(body);
      // Other known packets are ignored.
    } catch (error) {
      wire.end("transport error", error);
    }
    if (!this.transport) return; // before that, the timeout of _try() applies
    this._heard = Date.now();
    this._silence(this._patience);
  }

  _welcome({ sid }) {
    this.sid = sid;
    this.transport = this._wire.name;
    this._pollsFirst = this.transport === "polling";
    this._since = Date.now();
    if (!this._pollsFirst) this._failure = ""; // otherwise each probe would report the same again
    this._watch();
    // Registrations first, so that a page receives what it pushes to itself.
    this._registrations.forEach((registration) => this._register(registration));
    if (!this.transport) return; // a token function called close() or reconnect()
    this._buffer.splice(0).forEach((message) => this._transmit(...message));
    this._say("online");
  }

  _say(status, detail, error) {
    this._log(status, detail);
    const before = this.status;
    this.status = status;
    this._changed(status, detail, before, error);
  }

  /** End this connection and schedule the next one: after `delay` ms if the relay asked for that. */
  _drop(reason, error, delay) {
    const details = error?.details;
    const retryAfter = details?.retryAfter || 0;
    // A connection that ends soon counts as a failure too.
    if (this.transport && Date.now() - this._since > this._options.reconnectDelayMax) this._failures = 0;
    this._drained = delay >= 0 || retryAfter > 0;
    const retryIn = delay >= 0 ? delay : retryAfter * 1000 + this._backOff(this._failures++);
    // Report once why there is no connection: a server refused it, or it has never worked.
    if (!this.transport && (details || !(this._since || this._failure))) this._report(details || noRelay(this._url));
    if (!live.has(this)) return;
    this._retry(retryIn); // before the handlers, because one may call close()
    this._leave("offline", { reason, retryIn }, error);
  }

  /** Report once why there is no connection, or not the best one. */
  _report(body) {
    if (this._failure === body.error) return;
    this._failure = body.error;
    console.warn("relay:", body.message);
    this._fire("error", body);
  }

  /** End this connection and report the status that follows. */
  _leave(status, detail, error) {
    this._cut();
    this._say(status, detail, error);
  }

  _cut() {
    this._hangUp();
    this.sid = this.transport = null;
    this._answers.forEach((_, number) => this._answer(number, live.has(this) ? CUT : CLOSED));
    // The last acknowledgement may have been lost with the wire.
    this._ids.forEach((state) => (state._live = state._told = 0));
  }

  _hangUp() {
    this._silence();
    this._wire?.close();
    this._wire = null;
  }
}
