import { locate } from "./address.js";
import { Connection } from "./connection.js";
import { CLOSED, asError, isRefused } from "./errors.js";
import { live } from "./link.js";
import { asText, isObject, listOf } from "./values.js";

/** A connection to a relay, for pages: docs/socket-api.md. */
export class Relay extends Connection {
  static connect(url, options) {
    return new Relay(locate(url) + "socket.io/", options, true).connect();
  }

  /** Return a promise of the answer. Its leave() undoes this call; the last leave() of an id unregisters it. */
  register(id, options) {
    let states = [];
    const undo = () => states.splice(0).filter((state) => !--state._calls);
    const leave = { value: () => this.unregister(undo().map((state) => state.id)) };
    const promise = this._promise((answer) => {
      this._remember({ ...options, id }, (body) => answer(Object.defineProperty({ ...body }, "leave", leave)));
      states = this._all(listOf(id));
      states.forEach((state) => state._calls++);
    });
    promise.catch(undo); // a refused call does not count
    return Object.defineProperty(promise, "leave", leave);
  }

  unregister(ids) {
    return this._promise((answer) => this._unregister(ids, answer));
  }

  /** Push to others. It is never sent again after a reconnect, because it might arrive twice. */
  push(destination, data, event) {
    return this._promise((answer) => {
      const to = isObject(destination) ? listOf(destination) : asText(destination);
      this._send(["push", { destination: to, data, event }], answer, this._options.timeout);
    });
  }

  /** Return a promise. A rejection, handled or not, is an "error" event too. */
  _promise(ask) {
    const promise = new Promise((resolve, reject) => {
      const answer = (body) => (isRefused(body) ? reject(asError(body)) : resolve(body));
      if (live.has(this)) ask(answer);
      else answer(CLOSED);
    });
    promise.catch(({ name, message, details = { error: name, message } }) => this._error(details));
    return promise;
  }

  _changed(status, detail) {
    this._fire("status", ...(detail ? [status, detail] : [status]));
  }

  _event(name, { data, id, destination } = {}) {
    const ours = ["status", "error", "*"].includes(name);
    const info = { id, destination, event: name };
    return [...this._calls(ours ? "push" : name, data, info), ...this._calls("*", data, info)];
  }
}
