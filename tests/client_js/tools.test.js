// Tools for developers: options that are checked, the debug switch, reconnect(), handles, and tokens renewed in time.
"use strict";

const assert = require("node:assert/strict");
const test = require("node:test");
const { Page, outcome, plain } = require("./page.js");

test("an option that does not exist or has another type is ignored, with a warning", async () => {
  for (const transports of [undefined, null]) {
    const page = new Page();
    page.websocket = "refused";
    assert.equal((await page.connect({ transports })).transport, "polling");
  }
  const page = new Page();
  const relay = await page.connect({ timeOut: 5, reconnectDelay: "5", transports: "polling", rest: 0 });
  assert.deepEqual(page.warnings.map((line) => line.at(-1)), ["timeOut", "reconnectDelay"]);
  assert.equal(relay.transport, "polling");
  page.session.cut();
  await page.pass(0);
  assert.equal(relay.statuses.at(-1)[1].retryIn, 500);
});

test("io() ignores the options of socket.io-client without a warning", async () => {
  const page = new Page();
  page.io({ reconnection: false, query: {}, auth: {} });
  await page.pass(0);
  assert.deepEqual(page.warnings, []);
});

test("debug logs packets and statuses; without it nothing is logged", async () => {
  for (const debug of [true, false]) {
    const lines = [];
    const page = new Page();
    page.window.console.debug = (...line) => lines.push(line.join(" "));
    const relay = await page.connect({ debug });
    relay.register("42");
    await page.pass(0);
    page.session.publish("42", 1, "hello");
    const text = lines.join("\n");
    const parts = ["connecting", '40{"sid":', '["register",{"id":["42"]', "online", '"data":"hello"'];
    assert.deepEqual(parts.filter((part) => text.includes(part)), debug ? parts : []);
  }
});

test("relay:debug in the fragment of the page's address switches debug on", async () => {
  const lines = [];
  const page = new Page({ scope: { location: { href: "http://shop.test/page#relay:debug", origin: "http://shop.test" } } });
  page.window.console.debug = (...line) => lines.push(line);
  await page.connect();
  assert.ok(lines.length);
});

test("reconnect() opens a new connection at once, and everything is registered again", async () => {
  const page = new Page();
  const relay = await page.connect();
  relay.register("42");
  await page.pass(0);
  page.session.publish("42", 3);
  relay.reconnect();
  await page.pass(0);
  assert.deepEqual(page.sessions.map(({ isOpen }) => isOpen), [false, true]);
  assert.deepEqual(plain(page.sent("register").at(-1)), { id: "42", since: { 42: "e:3" } });
  assert.deepEqual(plain(relay.statuses.slice(2)), ["connecting", "online", ["recovered", []]]);
});

test("reconnect() while waiting, resting or closed connects at once, and only once", async () => {
  const acts = [(page) => page.session.cut(), (page) => page.fire("pagehide", { persisted: true }), (page, relay) => relay.close()];
  for (const act of acts) {
    const page = new Page();
    const relay = await page.connect();
    await act(page, relay);
    relay.reconnect();
    await page.pass(5000);
    assert.deepEqual([relay.status, page.sessions.length], ["online", 2]);
  }
});

test("reconnect() rejects a push that has no answer yet", async () => {
  const page = new Page();
  page.answer.push = () => undefined;
  const relay = await page.connect();
  const promise = relay.push("42", 1);
  relay.reconnect();
  assert.deepEqual(await outcome(promise), ["rejected", "disconnected"]);
});

test("the answer of register() has leave(), which a copy of the answer does not show", async () => {
  const page = new Page();
  const relay = await page.connect();
  const seats = [await relay.register("42"), await relay.register("42")];
  assert.deepEqual(Object.keys(seats[0]), ["ok", "ids"]);
  await seats[0].leave();
  await seats[0].leave();
  assert.deepEqual(page.sent("unregister"), []);
  assert.equal((await seats[1].leave()).ok, true);
  assert.deepEqual(plain(page.sent("unregister")), [{ id: ["42"] }]);
});

/** Let the relay answer that a token lasts this number of seconds. */
function lasting(page, seconds) {
  page.answer.register = ({ id, since = {} }) => ({
    ok: true,
    ids: { [id]: { position: since[id] || "e:0", recovered: id in since, replayed: 0 } },
    expires_in: seconds,
  });
}

/** The times of the token function's calls, in seconds. */
async function renewals(seconds, total, token) {
  const page = new Page();
  lasting(page, seconds);
  const relay = await page.connect();
  const calls = [];
  relay.register("42", { token: token || (() => calls.push((page.now - page.began) / 1000)) });
  for (let passed = 0; passed < total; passed += 10) {
    await page.pass(10_000);
    page.session.send("2");
  }
  return { page, relay, calls };
}

test("a token function is called again when nine tenths of the token's time are over", async () => {
  const { page, relay, calls } = await renewals(100, 300);
  assert.deepEqual(calls, [0, 90, 180, 270]);
  assert.deepEqual(page.sent("register").map(({ token }) => token), [1, 2, 3, 4]);
  assert.deepEqual([relay.statuses, page.sent("unregister"), relay.errors], [["connecting", "online"], [], []]);
});

test("a static token is not renewed, and neither is one that lasts for less than ten seconds", async () => {
  assert.equal((await renewals(100, 300, "static")).page.sent("register").length, 1);
  assert.deepEqual((await renewals(9, 60)).calls, [0]);
});

test("a token that lasts for years is not renewed at once", async () => {
  assert.deepEqual((await renewals(3e9, 60)).calls, [0]);
});

test("after unregister() or close() a token is not renewed", async () => {
  for (const act of [(relay) => relay.unregister("42"), (relay) => relay.close()]) {
    const page = new Page();
    lasting(page, 20);
    const relay = await page.connect();
    let calls = 0;
    relay.register("42", { token: () => ++calls });
    await page.pass(0);
    act(relay);
    await page.pass(40_000);
    assert.equal(calls, 1);
  }
});

test("a reconnect renews the token, and the old timer does not ask again", async () => {
  const page = new Page();
  lasting(page, 20);
  const relay = await page.connect();
  const calls = [];
  relay.register("42", { token: () => calls.push((page.now - page.began) / 1000) });
  await page.pass(10_000);
  relay.reconnect();
  await page.pass(17_999);
  assert.deepEqual(calls, [0, 10]);
  await page.pass(1);
  assert.deepEqual(calls, [0, 10, 28]);
});

test("a token whose end the relay does not name any more is not renewed by an old timer", async () => {
  const page = new Page();
  lasting(page, 20);
  const relay = await page.connect();
  let calls = 0;
  relay.register("42", { token: () => ++calls });
  await page.pass(10_000);
  page.answer.register = undefined;
  relay.reconnect();
  await page.pass(30_000);
  assert.equal(calls, 2);
});

test("a token function that fails at a renewal is called again, and the id stays registered", async () => {
  const page = new Page();
  lasting(page, 100);
  const relay = await page.connect();
  let calls = 0;
  relay.register("42", { token: () => { if (++calls === 2) throw new Error("503"); return "t" + calls; } });
  await page.pass(40_000);
  page.session.send("2");
  await page.pass(40_000);
  page.session.send("2");
  await page.pass(10_500);
  assert.equal(calls, 3);
  assert.deepEqual([relay.errors.length, relay.errors[0].error, page.sent("unregister").length], [1, "token_failed", 0]);
  page.session.publish("42", 1);
  assert.deepEqual(relay.handed, [1]);
});

test("a time beyond 31 bits is a long time: browsers would not wait at all", async () => {
  const page = new Page();
  const relay = await page.connect({ timeout: Infinity, rest: 30 * 86400, probeDelay: Infinity, transports: "polling" });
  relay.register("42", { token: () => new Promise((done) => page.window.setTimeout(done, 20_000, "t")) });
  const push = relay.push("7", "hello");
  await page.hide();
  await page.pass(30_000);
  assert.deepEqual([relay.status, page.tries], ["online", 1]);
  assert.equal((await outcome(push))[0], "resolved");
  assert.equal(page.sent("register")[0].token, "t");
});

test("an empty list of transports is WebSocket", async () => {
  assert.equal((await new Page().connect({ transports: [] })).transport, "websocket");
});
