// io(): the parts of socket.io-client that old pages use.
"use strict";

const assert = require("node:assert/strict");
const test = require("node:test");
const { Browser, Page, plain } = require("./page.js");

/** A page with a socket, and the names of the events that it fires. */
async function connected(...args) {
  const page = new Page();
  const socket = page.io(...args);
  const fired = [];
  for (const name of ["connect", "disconnect", "connect_error"]) {
    socket.on(name, (detail) => fired.push(detail === undefined ? name : [name, detail.message || detail]));
  }
  for (const name of ["reconnect", "reconnect_attempt"]) socket.io.on(name, (n) => fired.push([name, n]));
  await page.pass(0);
  return [page, socket, fired];
}

test("a socket connects, and has the state that pages read", async () => {
  const page = new Page();
  const socket = page.io();
  assert.deepEqual([socket.connected, socket.disconnected, socket.active, socket.id], [false, true, true, undefined]);
  await page.pass(0);
  assert.deepEqual([socket.connected, socket.disconnected, socket.active, socket.id], [true, false, true, "sid1"]);
  socket.disconnect();
  assert.deepEqual([socket.connected, socket.disconnected, socket.active, socket.id], [false, true, false, undefined]);
});

test("connect, disconnect and the manager's reconnect events", async () => {
  const [page, , fired] = await connected();
  page.session.cut();
  await page.pass(500);
  assert.deepEqual(fired, ["connect", ["disconnect", "transport close"], ["reconnect_attempt", 1], "connect", ["reconnect", 1]]);
});

test("an attempt that fails is a connect_error with an Error", async () => {
  const page = new Page();
  page.websocket = "refused";
  page.polling = { status: 503, body: { error: "draining", message: "restarts" } };
  const errors = [];
  page.io().on("connect_error", (error) => errors.push(error));
  await page.pass(0);
  assert.equal(errors.length, 1);
  assert.match(String(errors[0]), /^Error: restarts$/);
});

test("disconnect() fires disconnect once, and no connect_error", async () => {
  const [page, socket, fired] = await connected();
  socket.disconnect();
  socket.close();
  await page.pass(60_000);
  assert.deepEqual(fired, ["connect", ["disconnect", "io client disconnect"]]);
});

test("autoConnect: false waits for connect() or open()", async () => {
  for (const method of ["connect", "open"]) {
    const [page, socket] = await connected({ autoConnect: false });
    assert.deepEqual([page.tries, socket.connected], [0, false]);
    socket[method]();
    await page.pass(0);
    assert.equal(socket.connected, true);
  }
});

test("emit() sends any event, with an acknowledgement if a function comes last", async () => {
  const [page, socket] = await connected();
  page.answer.hello = (payload) => ({ got: payload });
  const got = [];
  assert.equal(socket.emit("hello", { a: 1 }, "more", (answer) => got.push(plain(answer))), socket);
  socket.emit("hello");
  await page.pass(0);
  assert.deepEqual(got, [{ got: { a: 1 } }]);
  assert.deepEqual(page.session.events, [["hello", { a: 1 }, "more"], ["hello"]]);
});

test("emitWithAck() returns a promise of the answer", async () => {
  const [page, socket] = await connected();
  page.answer.hello = () => "world";
  assert.equal(await socket.emitWithAck("hello"), "world");
});

test("a registration is remembered: it is sent again after a reconnect, and unregister ends it", async () => {
  const [page, socket] = await connected();
  const answers = [];
  socket.emit("register", { id: 42, token: "t" }, (answer) => answers.push(answer.ok));
  await page.pass(0);
  page.session.publish("42", 5);
  page.session.cut();
  await page.pass(1000);
  assert.deepEqual(plain(page.sent("register")), [{ id: "42", token: "t" }, { id: "42", token: "t", since: { 42: "e:5" } }]);
  assert.deepEqual(answers, [true]);
  socket.emit("unregister", { id: 42 });
  await page.pass(0);
  page.session.cut();
  await page.pass(3000);
  assert.equal(page.sent("register").length, 2);
});

test("handlers of a publication get the payload as the relay sends it; onAny() gets its event too", async () => {
  const [page, socket] = await connected();
  const seen = [];
  socket.on("push", (payload) => seen.push(plain(payload)));
  socket.onAny((name, payload) => seen.push([name, payload.data]));
  page.session.publish("42", 1, "text");
  page.session.publish("42", 1, "text");
  assert.deepEqual(seen, [["push", "text"], { data: "text", id: "e:1", destination: "42" }]);
  socket.offAny();
  page.session.publish("42", 2);
  assert.equal(seen.length, 3);
});

test("removeListener() and removeAllListeners() remove handlers, also of the manager", async () => {
  const [page, socket, fired] = await connected();
  const seen = [];
  const handler = () => seen.push(1);
  socket.on("push", handler).removeListener("push", handler);
  socket.on("push", handler).on("push", () => seen.push(2));
  socket.removeListener("push", handler);
  page.session.publish("42", 1);
  assert.deepEqual(seen, [2]);
  socket.removeAllListeners("push");
  page.session.publish("42", 2);
  assert.deepEqual(seen, [2]);
  socket.io.removeAllListeners();
  socket.removeAllListeners();
  page.session.cut();
  await page.pass(1000);
  assert.deepEqual(fired, ["connect"]);
});

test("a refusal without a callback is a relay_error event, or a line on the console", async () => {
  const [page, socket] = await connected();
  page.answer.register = () => ({ ok: false, error: "not_allowed", message: "no" });
  socket.emit("register", { id: "42" });
  await page.pass(0);
  assert.equal(page.warnings.length, 1);
  const errors = [];
  socket.on("relay_error", ({ error }) => errors.push(error));
  socket.emit("register", { id: "42" });
  await page.pass(0);
  assert.deepEqual([errors, page.warnings.length], [["not_allowed"], 1]);
});

test("what a callback throws is reported", async () => {
  const [page, socket] = await connected();
  socket.emit("push", { destination: "42" }, () => { throw new Error("callback"); });
  await page.pass(0);
  assert.deepEqual(page.reported.map(({ message }) => message), ["callback"]);
});

test("a socket keeps nothing in storage, and `lost` is a line on the console", async () => {
  const [page, socket] = await connected();
  socket.emit("register", { id: "42" });
  await page.pass(100);
  assert.equal(page.browser.storage.items.size, 0);
  page.answer.register = () => ({ ok: true, ids: { 42: { position: "f:0", recovered: false } } });
  page.session.cut();
  await page.pass(1000);
  assert.deepEqual(plain(page.warnings), [["relay:", "lost", ["42"]]]);
});

test("io() reads an address as socket.io-client does", async () => {
  const addresses = {
    "http://a.test:81": "ws://a.test:81/socket.io/",
    "https://a.test/below": "wss://a.test/below/socket.io/",
    "ws://a.test": "ws://a.test/socket.io/",
    "a.test:81": "ws://a.test:81/socket.io/",
    ":81": "ws://shop.test:81/socket.io/",
    "//a.test": "ws://a.test/socket.io/",
    "/below": "ws://shop.test/below/socket.io/",
  };
  for (const [url, expected] of Object.entries(addresses)) {
    const [page] = await connected(url);
    assert.equal(page.session.url.split("?")[0], expected, url);
  }
  const [page] = await connected({ path: "/relay/socket.io" });
  assert.equal(page.session.url.split("?")[0], "ws://relay.test/relay/socket.io/");
});

test("io.connect is io, and a page's own io stays", async () => {
  const page = new Page();
  assert.equal(page.io.connect, page.io);
  const own = () => "own";
  assert.equal(new Page({ scope: { io: own } }).io, own);
});

test("a script that is loaded twice makes connections that do not share items", async () => {
  const browser = new Browser();
  const page = new Page({ browser });
  const first = await page.connect();
  first.register("42");
  await page.pass(0);
  page.reload();
  const second = await page.connect();
  second.register("42");
  await page.pass(100);
  assert.equal(browser.storage.items.size, 2);
});
