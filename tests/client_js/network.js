// The network between a page and a fake relay, which speaks Engine.IO 4 and Socket.IO 5 over both transports.
"use strict";

const HANDSHAKE = { upgrades: [], pingInterval: 25000, pingTimeout: 20000, maxPayload: 1000000 };

/** A connection, as the fake relay sees it. */
class Session {
  constructor(page, transport) {
    this.page = page;
    this.transport = transport;
    this.sid = `sid${page.sessions.length + 1}`;
    this.began = page.now - page.began; // ms after the page was loaded
    this.packets = []; // all that the page sent
    this.events = []; // [name, payload, …] of its Socket.IO events
    this.isOpen = true;
    page.sessions.push(this);
  }

  open() {
    this.send("0" + JSON.stringify({ sid: this.sid, ...HANDSHAKE, ...this.page.handshake }));
  }

  /** Handle a packet of the page. */
  receive(packet) {
    this.packets.push(packet);
    if (packet === "40" && this.page.welcome !== false) this.later(`40{"sid":"${this.sid}"}`);
    if (packet === "1") this.isOpen = false;
    const [, number, json] = /^42(\d*)(\[.*)$/s.exec(packet) || [];
    if (!json) return;
    const event = JSON.parse(json);
    this.events.push(event);
    const answer = (this.page.answer[event[0]] || answers[event[0]] || (() => undefined))(event[1], this);
    if (number && answer !== undefined) this.later(`43${number}${JSON.stringify([answer])}`);
  }

  /** Send after the page has done what it does now, because an answer takes time. */
  later(packet) {
    queueMicrotask(() => this.send(packet));
  }

  /** Answer an event that got no answer: the newest one with this name, by its acknowledgement's number. */
  reply(name, body) {
    const packet = this.packets.findLast((each) => each.startsWith("42") && each.includes(`["${name}"`));
    this.send(`43${/^42(\d+)/.exec(packet)[1]}${JSON.stringify([body])}`);
  }

  /** Send an event to the page. */
  emit(name, payload) {
    this.send("42" + JSON.stringify([name, payload]));
  }

  /** Send a publication. */
  publish(destination, offset, data = offset, event = "push", epoch = "e") {
    this.emit(event, { data, id: `${epoch}:${offset}`, destination });
  }
}

/** The answer of the relay unless the test sets page.answer: every id is live at its own `since`, or at offset 0. */
const answers = {
  register({ id, since = {} }) {
    const state = (each) => ({ position: since[each] && since[each] !== "acked" ? since[each] : "e:0", recovered: each in since, replayed: 0 });
    return { ok: true, ids: Object.fromEntries([].concat(id).map((each) => [each, state(each)])) };
  },
  unregister: () => ({ ok: true }),
  ack: () => ({ ok: true }),
  push: () => ({ ok: true, id: "e:1", connections: 1 }),
};

const behavior = (page, transport) => {
  page.attempts.push([transport, page.now - page.began]);
  return typeof page[transport] === "function" ? page[transport]() : page[transport];
};

class FakeSocket {
  constructor(page, url) {
    this.url = url;
    const how = behavior(page, "websocket");
    if (how === "throws") throw new Error("SecurityError");
    if (how === "refused") queueMicrotask(() => this.onerror && this.onerror({}));
    if (how !== "works") return;
    this.session = new Session(page, "websocket");
    this.session.url = url;
    this.session.send = (packet) => this.isClosed || this.onmessage({ data: packet });
    this.session.cut = () => this.isClosed || this.onclose({});
    queueMicrotask(() => this.session.open());
  }

  send(packet) {
    this.session.receive(packet);
  }

  close() {
    this.isClosed = true;
    if (this.session) this.session.isOpen = false;
  }
}

/** Long polling: a GET waits until there is something to send; a POST carries packets of the page. */
class PolledSession extends Session {
  constructor(page) {
    super(page, "polling");
    this.outbox = [];
    this.posts = []; // numbers of packets in each POST
    this.waiting = null;
  }

  send(packet) {
    this.outbox.push(packet);
    this.deliver();
  }

  deliver() {
    if (!this.waiting || !this.outbox.length) return;
    this.waiting.resolve(text(this.outbox.splice(0).join("\x1e")));
    this.waiting = null;
  }

  poll(signal) {
    return new Promise((resolve, reject) => {
      this.waiting = { resolve, reject };
      signal.onabort = () => this.waiting && ((this.waiting = null), reject(new Error("aborted")));
      this.deliver();
    });
  }

  cut() {
    if (this.waiting) this.waiting.reject(new TypeError("network error"));
  }
}

const text = (body) => ({ ok: true, status: 200, text: async () => body });

const failure = ({ status, body, headers = {} }) => ({
  ok: false,
  status,
  headers: { get: (name) => (name in headers ? headers[name] : null) },
  json: async () => (body === undefined ? JSON.parse("<html>") : body),
});

function fakeFetch(page, url, { method = "GET", body, signal } = {}) {
  if (signal?.aborted) return Promise.reject(new Error("aborted"));
  const sid = new URL(url).searchParams.get("sid");
  const session = page.sessions.find((each) => each.sid === sid);
  if (session && page.posting && method === "POST") return page.posting(session, body);
  if (session && method === "POST") {
    const packets = body.split("\x1e");
    session.posts.push(packets.length);
    packets.forEach((packet) => session.receive(packet));
    return Promise.resolve(text("ok"));
  }
  if (session) return session.poll(signal);
  const how = behavior(page, "polling");
  if (how === "refused") return Promise.reject(new TypeError("network error"));
  if (how === "silent") return new Promise(() => {});
  if (how !== "works") return Promise.resolve(failure(how));
  const opened = new PolledSession(page);
  opened.url = url;
  opened.open();
  return Promise.resolve(text(opened.outbox.splice(0).join("\x1e")));
}

module.exports = { FakeSocket, fakeFetch };
