import { HOME, locate } from "./address.js";
import { Connection } from "./connection.js";
import { Emitter, call } from "./emitter.js";
import { isRefused } from "./errors.js";
import { live } from "./link.js";
import { here } from "./scope.js";
import { isFunction, isObject } from "./values.js";

const ANY = 0; // the name of the handlers for all events; those of events are text

/**
 * A connection with the parts of socket.io-client that pages use most. docs/socket-api.md lists them.
 *
 * `send`, `timeout()`, `volatile`, `listeners`, `io.Manager` and a warning about ignored options would add 0.4 KB. Pages
 * that need them can load the official file of 15 KB.
 */
class Socket extends Connection {
  io = new Emitter(); // stands for the manager

  get connected() {
    return !!this.transport;
  }

  get disconnected() {
    return !this.transport;
  }

  get id() {
    return this.sid || undefined;
  }

  get active() {
    return live.has(this);
  }

  open() {
    return this.connect();
  }

  disconnect() {
    return this.close();
  }

  onAny(fn) {
    return this.on(ANY, fn);
  }

  offAny() {
    return this.off(ANY);
  }

  emitWithAck(...args) {
    return new Promise((resolve) => this.emit(...args, resolve));
  }

  /** Emit an event. Pages of the old Node server register once, outside "connect", so registrations are remembered. */
  emit(name, ...args) {
    const fn = isFunction(args[args.length - 1]) && args.pop();
    const [payload] = args;
    const answer = (...body) => (fn ? call(fn, this, body) : isRefused(body[0]) && this._error(body[0]));
    if (name === "register" && payload) this._remember(payload, answer);
    else if (name === "unregister" && payload) this._unregister(payload.id, answer);
    else this._send([name, ...args], answer);
    return this;
  }

  _changed(status, detail = {}, before, error = new Error(detail.reason)) {
    const { reason } = detail;
    const tries = this._failures;
    if (status === "lost") console.warn("relay:", status, detail);
    if (status === "online") this._fire("connect");
    if (status === "online" && tries) this.io._fire("reconnect", tries);
    if (status === "connecting" && tries) this.io._fire("reconnect_attempt", tries);
    if (reason && before === "online") this._fire("disconnect", reason);
    else if (reason && live.has(this)) this._fire("connect_error", error);
  }

  _event(name, ...args) {
    return [...this._calls(ANY, name, ...args), ...this._calls(name, ...args)];
  }
}

/** Return a socket, as socket.io-client's io() does. */
export function io(url, { path = "socket.io/", autoConnect = true, ...others } = {}) {
  if (isObject(url)) return io(undefined, url);
  // As in socket.io-client, an address without a scheme or a host uses that of the page.
  const address = url ? url.replace(/^:/, here.hostname + ":").replace(/^(?!(\w+:)?\/)/, "//") : HOME;
  const socket = new Socket(locate(new URL(path, locate(address))), others);
  return autoConnect ? socket.connect() : socket;
}

io.connect = io;
