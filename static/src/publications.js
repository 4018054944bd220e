import { isAfter, isPosition, reach } from "./positions.js";
import { Registrations } from "./registrations.js";
import { soon } from "./timing.js";

/** The publications that arrive: each is handed over once, and those of an inbox are acknowledged. */
export class Publications extends Registrations {
  _acknowledge = soon(() => this._sendAcks(), 20); // one for many publications

  /** Handle an event. A replay may contain publications that have already arrived. */
  _take([name, message, ...others]) {
    const { id: position, destination, error, ids } = message || {};
    if (name === "relay_drain") return this._drop("transport close", null, message.reconnect_in_ms);
    if (name === "relay_error") {
      if (error === "token_expired" && ids?.[0] && !(message.ids = this._renew(ids)).length) return;
      return this._error(message);
    }
    if (name === "relay_presence" && !this.io) return this._present(destination, message);
    if (isPosition(position) && this._isLeft(destination)) return;
    const state = isPosition(position) ? this._of(destination) : {};
    if (!isAfter(position, state._handed)) return;
    reach(state, position);
    const calls = this._event(name, message, ...others);
    const queue = state._queue;
    if (!queue) return calls.forEach((run) => run());
    const entry = { position, _calls: calls, _tries: 0 };
    queue.push(entry);
    this._handle(state, queue, entry);
  }

  /** Call the handlers of one publication. Call those that fail, and only those, again after a while. */
  async _handle(state, queue, entry) {
    const results = await Promise.all(entry._calls.map((run) => run()));
    if (state._queue !== queue) return; // unregistered, or lost
    entry._calls = entry._calls.filter((_, i) => !results[i]);
    if (entry._calls[0]) {
      const tries = ++entry._tries;
      this._error({ error: "handler_failed", ids: [state.id], id: entry.position, tries });
      if (!(tries >= state._tries)) {
        const again = () => state._queue === queue && this._handle(state, queue, entry);
        return setTimeout(again, this._backOff(tries));
      }
      entry._calls = [];
    }
    while (queue[0] && !queue[0]._calls[0]) state._acked = queue.shift().position;
    this._acknowledge();
  }

  /** Acknowledge registered ids up to their first failure, because a position stands for all before it. */
  _sendAcks() {
    this._ids.forEach((state) => {
      const position = state._acked;
      if (state._live < 2 || !position || position === state._told) return;
      state._told = position;
      this._send(["ack", { id: state.id, position }]);
    });
  }
}
