import { Emitter } from "./emitter.js";
import { LATE, asError, refusal } from "./errors.js";
import { complete } from "./options.js";
import { timer } from "./timing.js";
import { jsonOnly } from "./values.js";

/**
 * The messages that a connection sends, and their answers.
 *
 * A connection is a chain of classes, from what it sends to when it connects. Each class uses those before it:
 * Messages, Ids, Registrations, Publications, Link, Connection. Relay and Socket add what the page sees: _changed(), which
 * reports a status, and _event(), which returns the calls of a publication's handlers.
 */
export class Messages extends Emitter {
  status = "offline";
  sid = null; // the socket's name while online
  transport = null; // "websocket" or "polling" while online

  _wire = null; // {name, send(packet), close()} of this connection or of the attempt
  _sent = 0;
  _answers = new Map(); // number of an acknowledgement -> function
  _buffer = []; // arguments of _transmit()

  constructor(url, options, isStrict) {
    super();
    this._url = url;
    this._options = complete(options, isStrict);
  }

  /** Send now, or when online. answer() gets the server's answer, or CUT or CLOSED. */
  _send(args, answer, patience) {
    const message = [JSON.stringify(args, jsonOnly), answer, patience];
    if (this.transport) this._transmit(...message);
    else if (!this._buffer[99]) this._buffer.push(message); // bounded
    else answer(refusal("offline"));
    this._wakeUp();
  }

  /** Send now. If there is no answer within `patience` ms, answer() gets `timeout`. */
  _transmit(text, answer, patience) {
    const number = answer ? this._sent++ : "";
    const packet = "42" + number + text;
    if (new Blob([packet]).size > this._wire.maxPayload) return answer(refusal("too_large")); // the relay would disconnect
    if (answer) this._answers.set(number, answer);
    timer(() => this._answer(number, LATE))(patience);
    this._log(">", text);
    this._wire.send(packet);
  }

  _answer(number, ...body) {
    const answer = this._answers.get(number);
    this._answers.delete(number);
    answer?.(...body);
  }

  _log(...what) {
    if (this._options.debug) console.debug("relay:", ...what);
  }

  /** Return a random wait in ms, so that pages do not all come back at the same moment. */
  _backOff(failures) {
    const options = this._options;
    return Math.random() * Math.min(options.reconnectDelayMax, options.reconnectDelay * 2 ** failures);
  }

  /** Fire an error, or log it if no handler listens, unless the page itself called close() or unregister(). */
  _error(body) {
    const name = this.io ? "relay_error" : "error";
    if (body.error !== "closed" && !this._fire(name, asError(body).details)) console.warn("relay:", body.message, body);
  }
}
