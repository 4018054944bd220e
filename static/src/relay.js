import { locate } from "./address.js";
import { Connection } from "./connection.js";
import { CLOSED, LATE, asError, isRefused, refusal } from "./errors.js";
import { live } from "./link.js";
import { Room } from "./room.js";
import { noop } from "./scope.js";
import { timer } from "./timing.js";
import { asText, isObject, jsonOnly, listOf } from "./values.js";

/** A connection to a relay, for pages: docs/socket-api.md. */
export class Relay extends Connection {
  static connect(url, options) {
    return new Relay(locate(url) + "socket.io/", options, true).connect();
  }

  /** Return a promise of the answer. Its leave() undoes this call; the last leave() of an id unregisters it. */
  register(id, options) {
    let states = [];
    const undo = () => states.splice(0).filter((state) => !--state._calls);
    const leave = () => this.unregister(undo().map((state) => state.id));
    const promise = this._promise((answer) => {
      this._remember({ ...options, id }, answer);
      states = this._all(listOf(id));
      states.forEach((state) => state._calls++);
    }, (body) => ({ __proto__: { leave }, ...body }));
    promise.catch(undo); // a refused call does not count
    return Object.assign(promise, { leave });
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

  /** Ask the site's PHP. It is never asked again after a reconnect, because it might do the same twice. */
  request(name, data, options) {
    const ask = (answer) => {
      const late = () => {
        this._buffer = this._buffer.filter(([, its]) => its !== answer);
        answer(this.transport ? LATE : refusal("offline"));
      };
      timer(late)(options?.timeout ?? 15000);
      this._send(["request", { name, data }], answer);
    };
    return this._promise(ask, (body) => body.answer);
  }

  /** Send to the site's PHP. The promise resolves when the relay has stored it. */
  send(name, data) {
    return this._promise((answer) => {
      const id = Math.random() + "" + Math.random();
      const payload = JSON.parse(JSON.stringify({ name, data, id }, jsonOnly)); // as it is now
      if (this._sends()[99]) answer(refusal("offline")); // bounded
      else this._register(this._add({ _payload: payload }, "send", answer));
    });
  }

  /** Return a promise of a Room. Without a token, the last one of register() counts. */
  presence(id, options) {
    const room = new Room();
    const leave = () => {
      this._forget(room);
      const isWatched = [...this._registrations].some((it) => it._payload.id === id);
      if (this.transport && !isWatched) this._send(["presence", { id, watch: false }], noop);
    };
    room.leave = leave;
    const promise = this._promise((answer) => {
      const { token = this._token } = options || {};
      id = asText(id);
      room._payload = { id, token };
      this._register(this._add(room, "presence", answer));
    }, () => room);
    return Object.assign(promise, { leave });
  }

  /** Return a promise. A rejection, handled or not, is an "error" event too. */
  _promise(ask, valueOf = (body) => body) {
    const promise = new Promise((resolve, reject) => {
      const answer = (body) => (isRefused(body) ? reject(asError(body)) : resolve(valueOf(body)));
      if (live.has(this)) ask(answer);
      else answer(CLOSED);
    });
    promise.catch(({ name, message, details = { error: name, message } }) => this._error(details));
    return promise;
  }

  _changed(status, detail) {
    this._fire("status", status, detail);
  }

  _event(name, { data, id, destination } = {}) {
    const ours = ["status", "error", "*"].includes(name);
    const info = { id, destination, event: name };
    return [...this._calls(ours ? "push" : name, data, info), ...this._calls("*", data, info)];
  }
}
