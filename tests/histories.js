// Random histories of pages that use relay.js against a real relay: node histories.js RELAY SCRIPT SEED COUNT
//
// A browser has two tabs. Each shows a page with two connections, and a frame with one; the page and its frame share the
// tab's sessionStorage. Pages register, register again, unregister, lose the network, get it back, and are loaded again,
// while PHP pushes. The reference is short: after an id went live, its handler receives each accepted push once, in
// order, across all pages of the tab. `lost` is never announced, because the history is long enough.
"use strict";

const fs = require("fs");
const vm = require("vm");
const WebSocketOfNode = require("ws");

const [, , relay, scriptFile, seed, count] = process.argv;
const script = new vm.Script(fs.readFileSync(scriptFile, "utf8"), { filename: "relay.js" });
const STEPS = 16;
// The events, each with the frequency with which it is listed here.
const ACTS = [
  ..."register register register register push push wait wait wait gap gap".split(" "),
  ..."back back slow quick quick cut away leave unregister load load load".split(" "),
];
const TOGETHER = 8; // histories at a time
const OPTIONS = { reconnectDelay: 2, reconnectDelayMax: 8 };
const offsetOf = (position) => Number(position.split(":")[1]);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** Return a generator of numbers from a seed: mulberry32. */
function random(state) {
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 4294967296) * below);
  };
}

/** The network between one connection and the relay. It can hold up what arrives, and cut sockets. */
class Network {
  constructor() {
    this.sockets = new Set();
    this.away = false;
    this.slow = false;
  }

  deliver() {
    this.sockets.forEach((socket) => socket.deliver());
  }

  cut() {
    this.sockets.forEach((socket) => socket.cut());
  }
}

/** A page's WebSocket, on the network of the connection that creates it. */
class PageSocket {
  constructor(network, url, isDead) {
    this.network = network;
    this.late = [];
    this.over = isDead;
    if (isDead) return;
    network.sockets.add(this);
    this.ws = network.away ? null : new WebSocketOfNode(url);
    if (!this.ws) return void setTimeout(() => this.cut(), 1);
    this.ws.on("message", (data) => {
      this.late.push(data.toString());
      if (!network.slow) this.deliver();
    });
    this.ws.on("error", () => this.cut());
    this.ws.on("close", () => this.cut());
  }

  deliver() {
    while (this.late.length && !this.over) this.onmessage({ data: this.late.shift() });
  }

  send(text) {
    if (!this.over) this.ws.send(text);
  }

  close() {
    this.over = true;
    this.network.sockets.delete(this);
    if (this.ws) this.ws.terminate();
  }

  cut() {
    if (this.over) return;
    this.close();
    this.onclose({});
  }
}

/** One window: a page, or the frame in it. */
class Window {
  constructor(storage, top) {
    this.network = null; // of the connection that opens a socket now
    this.networks = [];
    this.isDead = false; // unloaded: nothing in it runs
    this.timers = new Set();
    this.listeners = new Map();
    const window = this;
    const WebSocket = class extends PageSocket {
      constructor(url) {
        super(window.network, url, window.isDead);
      }
    };
    const box = vm.createContext({
      console: { error() {}, warn() {}, log() {} },
      URL,
      AbortController,
      Blob,
      queueMicrotask,
      WebSocket,
      sessionStorage: storage,
      location: { href: "http://127.0.0.1/", origin: "http://127.0.0.1" },
      document: { currentScript: { src: relay + "/static/relay.js" } },
      setTimeout: (fn, ms, ...args) => {
        if (this.isDead) return 0;
        const timer = setTimeout(() => this.timers.delete(timer) && fn(...args), ms);
        this.timers.add(timer);
        return timer;
      },
      clearTimeout: (timer) => {
        clearTimeout(timer);
        this.timers.delete(timer);
      },
      addEventListener: (name, fn) => this.listeners.set(name, [...(this.listeners.get(name) || []), fn]),
    });
    this.self = vm.runInContext("globalThis", box);
    box.self = box.window = this.self;
    box.top = top || this.self;
    script.runInContext(box);
  }

  /** A connection on a network of its own: it reads the names of its transports before it opens a socket. */
  connect(network) {
    const window = this;
    const name = () => ((window.network = network), "websocket");
    const transports = Object.defineProperty([], 0, { get: name, enumerable: true });
    this.networks.push(network);
    return this.self.Relay.connect(relay, { ...OPTIONS, transports });
  }

  unload() {
    (this.listeners.get("pagehide") || []).forEach((fn) => fn({}));
    this.isDead = true;
    this.networks.forEach(({ sockets }) => sockets.forEach((socket) => socket.close()));
    this.timers.forEach(clearTimeout);
  }
}

function sessionStorage() {
  const items = new Map();
  return { getItem: (name) => (items.has(name) ? items.get(name) : null), setItem: (name, value) => items.set(name, value) };
}

/** The publications that the handlers for one id of a connection must receive: in a page across reloads, in a frame until the reload. */
class Expectation {
  constructor(name) {
    this.name = name;
    this.seen = [];
    this.since = null; // everything later must arrive; null before it went live
    this.active = true; // between register() and unregister()
  }

  handle(offset) {
    if (!this.active) throw new Error(`${this.name}: ${offset} came behind unregister()`);
    if (this.seen.length && offset <= this.seen[this.seen.length - 1]) throw new Error(`${this.name}: ${offset} came after ${this.seen}`);
    this.seen.push(offset);
  }

  answered({ position }) {
    if (this.since === null) this.since = this.seen.length ? this.seen[0] - 1 : offsetOf(position);
  }

  missing(pushed) {
    return pushed.filter((offset) => this.since !== null && offset > this.since && !this.seen.includes(offset));
  }
}

/** One connection of a window. It is created again when the page is loaded again. */
class Handle {
  constructor(history, tab, name) {
    Object.assign(this, { history, tab, name });
    this.keeps = name !== "frame";
    this.expected = new Map(); // id -> Expectation, in the order of their registration
  }

  open(window) {
    this.network = new Network();
    const connection = (this.connection = window.connect(this.network));
    const isNow = () => this.connection === connection;
    connection.on("*", (_, { id, destination }) => isNow() && this.history.try(() => this.handle(destination, offsetOf(id))));
    connection.on("error", () => {});
    connection.on("status", (status, ids) => {
      if (status === "lost" && isNow()) this.history.fail(`${this.tab.name} ${this.name}: lost was announced for ${ids}`);
    });
    if (!this.keeps) this.expected.clear();
  }

  handle(id, offset) {
    const expectation = this.expected.get(id);
    if (!expectation) throw new Error(`${this.name}: ${id} came and was never registered`);
    expectation.handle(offset);
  }

  ask(id) {
    const { connection } = this;
    const expectation = this.expected.get(id);
    connection.register(id).then(
      ({ ids }) => connection === this.connection && this.expected.get(id) === expectation && expectation.answered(ids[id]),
      () => {},
    );
  }

  register(id) {
    const before = this.expected.get(id);
    if (!before || !before.active) {
      this.expected.set(id, new Expectation(`${this.tab.name} ${this.name} ${id}`));
      this.tab.order.push([this, id]);
    }
    this.ask(id);
  }

  unregister(id) {
    const expectation = this.expected.get(id);
    const others = this.tab.order.filter(([handle, its]) => its === id && handle !== this && handle.keeps && this.keeps);
    if (!expectation || !expectation.active || others.length) return;
    expectation.active = false;
    this.tab.order = this.tab.order.filter(([handle, its]) => its !== id || handle !== this);
    this.connection.unregister(id).catch(() => {});
  }
}

class Tab {
  constructor(history, number) {
    this.name = `tab ${number}`;
    this.storage = sessionStorage();
    this.order = []; // [handle, id] in the order of registration, which is the same in each page
    this.handles = ["first", "second", "frame"].map((name) => new Handle(history, this, name));
    this.open();
  }

  open() {
    const page = new Window(this.storage);
    const frame = new Window(this.storage, page.self);
    this.windows = [page, frame];
    this.handles.forEach((handle) => handle.open(handle.keeps ? page : frame));
    this.order = this.order.filter(([handle]) => handle.keeps);
    this.order.forEach(([handle, id]) => handle.ask(id));
  }

  load() {
    this.windows.forEach((window) => window.unload());
    this.open();
  }
}

class History {
  constructor(number) {
    this.number = number;
    this.pick = random(Number(seed) * 100003 + number);
    this.ids = ["a", "b"].map((name) => `${seed}-${number}-${name}`);
    this.pushed = new Map(this.ids.map((id) => [id, []]));
    this.log = [];
    this.failure = null;
    this.tabs = [new Tab(this, 0), new Tab(this, 1)];
  }

  fail(message) {
    this.failure = this.failure || message;
  }

  try(work) {
    try {
      work();
    } catch (error) {
      this.fail(error.message);
    }
  }

  async push(id, many) {
    const items = Array.from({ length: many }, () => ({ destination: id, data: 1 }));
    const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(items) };
    const response = await fetch(relay + "/push", options);
    if (response.status !== 200) throw new Error(`push: ${response.status}`);
    for (const { id: position } of await response.json()) this.pushed.get(id).push(offsetOf(position));
  }

  async step() {
    const { pick } = this;
    const tab = this.tabs[pick(2)];
    const handle = tab.handles[pick(3)];
    const id = this.ids[pick(2)];
    const { network } = handle;
    const acts = {
      push: () => this.push(id, 1 + pick(3)),
      register: () => handle.register(id),
      unregister: () => handle.unregister(id),
      away: () => ((network.away = true), network.cut()),
      back: () => (network.away = false),
      slow: () => (network.slow = true),
      quick: () => ((network.slow = false), network.deliver()),
      cut: () => network.cut(),
      load: () => tab.load(),
      gap: async () => {
        acts.away(); // for one connection; others may still have it
        await this.push(id, 2);
        await sleep(5 + pick(10));
        if (pick(2)) tab.load();
      },
      leave: async () => {
        network.slow = true;
        await this.push(id, 2);
        handle.unregister(id);
        acts.quick();
      },
      wait: () => sleep(1 + pick(12)),
    };
    const name = ACTS[pick(ACTS.length)];
    this.log.push(`${tab.name} ${handle.name} ${name} ${id.slice(-1)}`);
    await acts[name]();
  }

  async rest() {
    for (const { handles } of this.tabs) {
      for (const { network } of handles) {
        network.away = network.slow = false;
        network.deliver();
      }
    }
    for (const id of this.ids) await this.push(id, 1);
    const end = Date.now() + 30000;
    while (this.missing() && !this.failure && Date.now() < end) await sleep(2);
    if (this.missing()) this.fail(this.missing());
  }

  missing() {
    for (const { handles } of this.tabs) {
      for (const { expected, connection } of handles) {
        for (const [id, expectation] of expected) {
          const missing = expectation.active ? expectation.missing(this.pushed.get(id)) : [];
          if (missing.length) return `${expectation.name}: ${missing} did not come, but ${expectation.seen}`;
          if (expectation.active && expectation.since === null) return `${expectation.name}: no answer to register, ${connection.status}`;
        }
      }
    }
    return "";
  }

  async run() {
    for (const { handles } of this.tabs) {
      for (const handle of handles) if (this.pick(3)) handle.register(this.ids[this.pick(2)]);
    }
    for (let step = 0; step < STEPS && !this.failure; step++) await this.step();
    if (!this.failure) await this.rest();
    this.tabs.forEach(({ windows }) => windows.forEach((window) => window.unload()));
    if (this.failure) throw new Error(`history ${this.number} of seed ${seed}: ${this.failure}\n  ${this.log.join("\n  ")}`);
  }
}

async function main() {
  let next = 0;
  let failed = null;
  const work = async () => {
    while (next < Number(count) && !failed) {
      const number = next++;
      await new History(number).run().catch((error) => (failed = failed || error));
    }
  };
  await Promise.all(Array.from({ length: TOGETHER }, work));
  console.log(failed ? failed.message : `histories: ${next}`);
  process.exit(failed ? 1 : 0);
}

main();
