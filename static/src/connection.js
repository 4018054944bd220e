import { CLOSED } from "./errors.js";
import { Link, live } from "./link.js";
import { saveAll } from "./positions.js";
import { listen, noop, page } from "./scope.js";
import { timer } from "./timing.js";
import { websocket } from "./wires/websocket.js";

/** A connection that reconnects until close(). It follows the life of its page, and may rest while that is hidden. */
export class Connection extends Link {
  // Set later: _probeDelay, the ms until the next probe.
  _probe = timer(() => this._tryWebSocket());
  _hide = timer(() => page.hidden && this.transport && this._restTime() && this._rest("hidden"));

  /** Start, also after close(). If the connection waits for its next attempt, try now. */
  connect() {
    live.add(this);
    if (!this._wire) this.status = "connecting";
    queueMicrotask(() => this._open()); // after the page has added its handlers
    return this;
  }

  /** Connect again, for example after a login, so that the relay gets the new cookies. Registrations are kept. */
  reconnect() {
    if (this.transport) this._cut();
    return this.connect();
  }

  close() {
    if (!live.delete(this)) return this;
    this._sendAcks();
    const registrations = [...this._registrations];
    this._registrations.clear(); // the page may connect again for another user
    this._token = null;
    this._ids.forEach((state) => this._release(state));
    registrations.forEach((it) => it._answers.forEach((answer) => answer(CLOSED)));
    this._buffer.splice(0).forEach(([, answer]) => answer(CLOSED));
    this._leave("offline", { reason: "io client disconnect" });
    return this;
  }

  /** Start the timers of a new connection. */
  _watch() {
    this._hide(this._restTime() * 1000);
    this._probe((this._probeDelay = this._options.probeDelay));
  }

  /** Close until the page is visible. A page that needs the connection tries again to get a place to poll. */
  _rest(reason) {
    this._retry();
    this._leave("resting", { reason });
    // The page that took the place may be hidden by now, so try again soon.
    if (reason === "no place" && !(page.hidden && this._restTime())) this._retry(this._backOff(this._failures++));
  }

  /** Return the seconds after which a hidden page rests; 0 if it does not rest. */
  _restTime() {
    const { rest } = this._options;
    if ([...this._ids.values()].some((state) => state._queue)) return 0;
    return rest < 0 ? this.transport !== "websocket" && 10 : rest;
  }

  /** Connect if the page rests. */
  _wakeUp() {
    if (this.status === "resting") this._open();
  }

  /** Test whether WebSocket works while polling. If so, reconnect with it; recovery bridges the gap. */
  async _tryWebSocket() {
    if (this.transport !== "polling" || !this._options.transports.includes("websocket")) return;
    this._opened = Date.now();
    const wire = { close: noop };
    const first = (resolve, reject) => {
      wire._receive = resolve;
      wire.end = reject;
      timer(reject)(this._options.timeout);
      websocket(wire, this._url);
    };
    const works = await new Promise(first).catch(noop);
    wire.close();
    if (this.transport !== "polling") return;
    if (works && !this._answers.size) {
      this._pollsFirst = false;
      return this.reconnect();
    }
    // If WebSocket works, an answer is still outstanding: reconnecting now would lose it.
    this._probe(works ? 1000 : (this._probeDelay = Math.min(2 * this._probeDelay, 300000)));
  }

  /** Handle an event of the page: the network or the page comes or goes. */
  _on(type, { persisted, blockedURI: url }) {
    if (url) return url.replace("ws", "http").startsWith(this._url) && this._report({ error: "blocked", message: `use connect-src ${url}`, url });
    if (type === "offline") return this.transport && this._drop(type);
    if (type === "freeze") return this.transport === "polling" && this._rest(type);
    if (type === "pagehide") {
      this._sendAcks();
      return persisted && this._rest(type); // into the back/forward cache
    }
    this._hide(this._restTime() * 1000);
    if (page.hidden && (type === "visibilitychange" || (type === "online" && this.status === "resting"))) return;
    // The network or the page is back: try now, but at most once per second.
    if (this.transport && Date.now() - this._heard > this._patience) this._drop("ping timeout");
    const isResting = this.status === "resting";
    const wait = !isResting && this._opened > Date.now() - 1000 ? 1000 : 0;
    this._probe(wait);
    if (isResting || !this._drained) this._retry(wait);
  }
}

for (const name of ["online", "offline", "pageshow", "pagehide", "visibilitychange", "freeze", "resume", "securitypolicyviolation"]) {
  const on = (event) => {
    saveAll();
    live.forEach((connection) => connection._on(name, event));
  };
  listen(name, on, true);
}

