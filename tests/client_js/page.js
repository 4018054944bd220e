// A page with relay.js, on a clock, a network and a browser that the test controls.
//
// The script runs in a realm of its own (node:vm), with this page's setTimeout(), Date.now(), Math.random(), WebSocket,
// fetch(), document and sessionStorage. Nothing in it waits for real time, so the tests are exact and fast. The tests use
// what a page can see, and what is sent, so they also run with the minified file: RELAY_SCRIPT=relay.min.js node --test
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const vm = require("node:vm");
const { Browser } = require("./browser.js");
const { FakeSocket, fakeFetch } = require("./network.js");

const file = path.resolve(__dirname, "../../static", process.env.RELAY_SCRIPT || "relay.js");
const script = new vm.Script(fs.readFileSync(file, "utf8"), { filename: file });

/** Let everything run that waits for nothing but promises. */
const settle = () => new Promise((done) => setImmediate(done));

/** Return the payload of a register as a person would write it. */
const short = ({ id, since, ...others }) => ({
  id: id.length === 1 ? id[0] : id,
  ...others,
  ...(Object.keys(since).length && { since }),
});

class Page {
  /**
   * Load a page. Options: `browser`, which it shares with other pages; `src`, the script's address (null in a module);
   * `top`, the page of which this is a frame; `isHidden`; and `scope`, other globals (undefined removes one).
   */
  constructor({ browser = new Browser(), src = "http://relay.test/static/relay.js", top, isHidden = false, scope = {} } = {}) {
    this.browser = browser;
    this.now = 1_800_000_000_000; // ms, by the wall clock
    this.random = 0.5; // what Math.random() returns, or a function
    // The state of the network: "works", "refused", "silent" (nothing answers) or "throws"; fetch also answers with
    // {status, body, headers}. A function is asked at each attempt.
    this.websocket = "works";
    this.polling = "works";
    this.answer = {}; // event name -> function(payload, session) that returns the relay's answer, or undefined for none
    this.sessions = []; // of the fake relay, with what this page sent
    this.attempts = []; // [transport, ms since the page was loaded]
    this.warnings = []; // lines on the console
    this.reported = []; // what reportError() got
    this.began = this.now;
    this._timers = new Map(); // number -> {at, run}
    this._number = 0;
    this._listeners = new Map();

    const page = this;
    const realm = vm.createContext({});
    this.window = vm.runInContext("globalThis", realm);
    Object.assign(this.window, {
      URL,
      AbortController,
      Blob,
      queueMicrotask,
      ArrayBuffer,
      console: { error: (...args) => this.reported.push(args[0]), warn: (...args) => this.warnings.push(args) },
      reportError: (error) => this.reported.push(error),
      document: { hidden: isHidden, currentScript: src && { src }, baseURI: "http://shop.test/page" },
      location: { href: "http://shop.test/page", origin: "http://shop.test", hostname: "shop.test" },
      navigator: { locks: browser.locks },
      addEventListener: (name, fn) => this._listeners.set(name, [...(this._listeners.get(name) || []), fn]),
      setTimeout: (run, ms = 0, ...args) => this._start(() => run(...args), ms),
      clearTimeout: (number) => this._timers.delete(number),
      fetch: (...args) => fakeFetch(this, ...args),
      WebSocket: class extends FakeSocket {
        constructor(url) {
          super(page, url);
        }
      },
      ...scope,
    });
    if (!("sessionStorage" in scope)) Object.defineProperty(this.window, "sessionStorage", { get: () => browser.openStorage() });
    this.window.top = top ? top.window : this.window;
    this.window.Date.now = () => this.now;
    this.window.Math.random = () => (typeof this.random === "function" ? this.random() : this.random);
    this._realm = realm;
    this.reload();
  }

  /** Run the script, also a second time in the same page. */
  reload() {
    script.runInContext(this._realm);
    this.Relay = this.window.Relay;
    this.io = this.window.io;
  }

  _start(run, ms) {
    const wait = ms > 2 ** 31 - 1 ? 1 : Math.max(0, ms || 0); // browsers do not wait for more than 25 days, or for NaN
    this._timers.set(++this._number, { at: this.now + wait, run });
    return this._number;
  }

  /** Let `ms` pass. Timers run in their order, each at its time. */
  async pass(ms = 0) {
    const end = this.now + ms;
    await settle();
    for (;;) {
      const due = [...this._timers].filter(([, { at }]) => at <= end).sort(([a, x], [b, y]) => x.at - y.at || a - b)[0];
      if (!due) break;
      const [number, { at, run }] = due;
      this._timers.delete(number);
      this.now = Math.max(this.now, at);
      run();
      await settle();
    }
    this.now = end;
  }

  /** Let time pass during which no timer runs, as in a laptop that sleeps. */
  sleep(ms) {
    this.now += ms;
  }

  /** The milliseconds until the next timer; Infinity if none waits. */
  get untilTimer() {
    return Math.min(...[...this._timers.values()].map(({ at }) => at)) - this.now;
  }

  /** Fire an event of the window. */
  async fire(name, event = {}) {
    (this._listeners.get(name) || []).forEach((fn) => fn(event));
    await settle();
  }

  async hide() {
    this.window.document.hidden = true;
    await this.fire("visibilitychange");
  }

  async show() {
    this.window.document.hidden = false;
    await this.fire("visibilitychange");
  }

  /** The newest session of the fake relay. */
  get session() {
    return this.sessions[this.sessions.length - 1];
  }

  /** All payloads of an event that the page sent, over all sessions. */
  sent(name) {
    const payloads = this.sessions.flatMap((session) => session.events.filter((event) => event[0] === name).map((event) => event[1]));
    return name === "register" ? payloads.map(short) : payloads;
  }

  /** Count the attempts to connect so far. */
  get tries() {
    return this.attempts.length;
  }

  /** Connect with Relay and note what the page gets: relay.statuses, relay.errors, relay.handed. */
  async connect(options, url) {
    const relay = this.Relay.connect(url, options);
    relay.statuses = [];
    relay.errors = [];
    relay.handed = [];
    relay.on("status", (...args) => relay.statuses.push(args[1] ? args : args[0]));
    relay.on("error", (error) => relay.errors.push(error));
    relay.on("*", (data) => relay.handed.push(data));
    await settle();
    return relay;
  }
}

/** Return a copy in this realm, so that deepEqual() compares values and not prototypes. */
const plain = (value) => (value === undefined ? undefined : JSON.parse(JSON.stringify(value)));

/** Return the error with which a promise of the page is rejected, and "resolved" or "pending" otherwise. */
async function outcome(promise) {
  const pending = settle().then(() => "pending");
  return Promise.race([promise.then((value) => ["resolved", plain(value)], (error) => ["rejected", error.code]), pending]);
}

module.exports = { Browser, Page, outcome, plain, settle };
