// Transports, packets, and the watch over the wire.
"use strict";

const assert = require("node:assert/strict");
const test = require("node:test");
const { Page, plain } = require("./page.js");

test("a page connects with WebSocket, to the address of its script", async () => {
  const page = new Page({ src: "https://relay.test/relay/static/relay.js?v=1" });
  const relay = await page.connect();
  assert.equal(page.session.url, "wss://relay.test/relay/socket.io/?EIO=4&transport=websocket");
  assert.deepEqual([relay.status, relay.transport, relay.sid], ["online", "websocket", "sid1"]);
  assert.deepEqual(relay.statuses, ["connecting", "online"]);
});

test("if WebSocket fails or throws, long polling takes over at once", async () => {
  for (const how of ["refused", "throws"]) {
    const page = new Page();
    page.websocket = how;
    const relay = await page.connect();
    assert.deepEqual([relay.status, relay.transport], ["online", "polling"]);
    assert.deepEqual(relay.statuses, ["connecting", "online"]);
  }
});

test("without WebSocket, long polling takes over", async () => {
  const page = new Page({ scope: { WebSocket: undefined } });
  assert.equal((await page.connect()).transport, "polling");
});

test("if WebSocket hangs, long polling takes over after the timeout, and is first at the next attempt", async () => {
  const page = new Page();
  page.websocket = "silent";
  const relay = await page.connect({ timeout: 300 });
  await page.pass(299);
  assert.equal(relay.transport, null);
  await page.pass(1);
  assert.equal(relay.transport, "polling");
  page.session.cut();
  await page.pass(1000);
  assert.equal(relay.status, "online");
  assert.deepEqual(page.attempts.slice(2).map(([transport]) => transport), ["polling"]);
});

test("if both transports hang, the page is offline after both timeouts, and tries again", async () => {
  const page = new Page();
  page.websocket = page.polling = "silent";
  const relay = await page.connect({ timeout: 300 });
  await page.pass(600);
  assert.deepEqual(plain(relay.statuses.at(-1)), ["offline", { reason: "timeout", retryIn: 500 }]);
  await page.pass(500);
  assert.equal(page.tries, 3);
});

test("a relay that opens a WebSocket but does not answer is given up after the timeout", async () => {
  const page = new Page();
  page.welcome = false;
  const relay = await page.connect({ transports: ["websocket"], timeout: 300 });
  await page.pass(299);
  assert.equal(relay.status, "connecting");
  await page.pass(1);
  assert.equal(relay.status, "offline");
});

test("only the transports of the option are tried; it may be one name", async () => {
  for (const transports of ["polling", ["polling"]]) {
    const page = new Page();
    assert.equal((await page.connect({ transports })).transport, "polling");
    assert.equal(page.tries, 1);
  }
});

test("a ping is answered at once", async () => {
  const page = new Page();
  await page.connect();
  page.session.send("2");
  assert.equal(page.session.packets.at(-1), "3");
});

test("a wire that is silent for longer than interval and timeout of the ping is given up", async () => {
  const page = new Page();
  const relay = await page.connect();
  await page.pass(44_999);
  assert.equal(relay.status, "online");
  await page.pass(1);
  assert.deepEqual(plain(relay.statuses.at(-1)[1]), { reason: "ping timeout", retryIn: 500 });
  assert.equal(page.session.isOpen, false);
});

test("each packet starts the wait for the next one anew", async () => {
  const page = new Page();
  const relay = await page.connect();
  for (const packet of ["2", '42["push",{}]', "6"]) {
    await page.pass(44_999);
    page.session.send(packet);
  }
  await page.pass(44_999);
  assert.equal(relay.status, "online");
  await page.pass(1);
  assert.equal(relay.status, "offline");
});

test("a packet that is none ends the connection", async () => {
  for (const packet of ["x", "", "7", "42{", '42["push"', '0{"sid"', "43[1"]) {
    const page = new Page();
    const relay = await page.connect();
    page.session.send(packet);
    assert.equal(relay.statuses.at(-1)[1]?.reason, "transport error", packet);
    await page.pass(1000);
    assert.equal(relay.status, "online");
  }
});

test("known packets without a use are ignored, and so are bytes", async () => {
  const page = new Page();
  const relay = await page.connect();
  for (const packet of ["3", "3probe", "45-[]", "46-[]", "5", "6", "bAQID", new ArrayBuffer(2)]) page.session.send(packet);
  assert.equal(relay.status, "online");
});

test("the relay's close and its disconnect end the connection, each with its reason", async () => {
  for (const [packet, reason] of [["1", "transport close"], ["41", "io server disconnect"]]) {
    const page = new Page();
    const relay = await page.connect();
    page.session.send(packet);
    assert.equal(relay.statuses.at(-1)[1].reason, reason);
    await page.pass(1000);
    assert.equal(relay.status, "online");
  }
});

test("a refusal by Socket.IO is one error event with the relay's own code", async () => {
  const page = new Page();
  page.welcome = false;
  const relay = await page.connect({ transports: ["websocket"] });
  for (let n = 0; n < 3; n++) {
    page.session.send('44{"message":"not here","data":{"error":"origin_not_allowed","message":"add it to origins"}}');
    await page.pass(10_000);
  }
  assert.deepEqual(plain(relay.errors), [
    { error: "origin_not_allowed", message: "add it to origins", url: "http://relay.test/socket.io/" },
  ]);
  assert.ok(page.tries > 2);
});

test("what an old wire sends after its end is not heard", async () => {
  const page = new Page();
  const relay = await page.connect();
  const old = page.session;
  const late = old.page.sessions[0];
  late.cut();
  await page.pass(1000);
  assert.equal(relay.status, "online");
  old.publish("42", 1);
  assert.deepEqual([relay.handed, relay.sid], [[], "sid2"]);
});

test("if no server answers a page's first attempts, there are one error event and one line", async () => {
  const page = new Page();
  page.websocket = "refused";
  page.polling = "refused";
  const relay = await page.connect();
  await page.pass(60_000);
  assert.equal(relay.errors.length, 1);
  assert.equal(relay.errors[0].error, "no_relay");
  assert.equal(relay.errors[0].message, "no relay answers: python relay.py doctor http://relay.test/");
  assert.equal(page.warnings.length, 1);
});

test("a server that is no relay is named with its HTTP status", async () => {
  const page = new Page();
  page.websocket = "refused";
  page.polling = { status: 404 };
  const relay = await page.connect();
  assert.match(relay.errors[0].message, /^no relay answers \(HTTP 404\): /);
  assert.deepEqual([relay.errors[0].error, relay.errors[0].status], ["no_relay", 404]);
});

test("another reason is another error event", async () => {
  const page = new Page();
  page.websocket = "refused";
  page.polling = { status: 503, body: { error: "draining", message: "restarts" } };
  const relay = await page.connect();
  await page.pass(5000);
  page.polling = { status: 503, body: { error: "too_many_connections", message: "full" } };
  await page.pass(60_000);
  assert.deepEqual(relay.errors.map(({ error }) => error), ["draining", "too_many_connections"]);
});

test("a page that was online is not told that no relay answers", async () => {
  const page = new Page();
  const relay = await page.connect();
  page.websocket = page.polling = "refused";
  page.session.cut();
  await page.pass(60_000);
  assert.deepEqual([relay.errors, page.warnings], [[], []]);
});

test("what the page's policy forbids is one line and one error event with the address", async () => {
  const page = new Page();
  const relay = await page.connect();
  const blockedURI = "ws://relay.test/socket.io/?EIO=4&transport=websocket";
  await page.fire("securitypolicyviolation", { blockedURI: "http://other.test/image.png" });
  for (let n = 0; n < 2; n++) await page.fire("securitypolicyviolation", { blockedURI });
  const message = `use connect-src ${blockedURI}`;
  assert.deepEqual(page.warnings, [["relay:", message]]);
  assert.deepEqual(plain(relay.errors), [{ error: "blocked", message, url: blockedURI }]);
});

test("a blocked WebSocket is reported once while the page polls, and again after WebSocket worked", async () => {
  const page = new Page();
  const blocked = () => {
    page.fire("securitypolicyviolation", { blockedURI: "ws://relay.test/socket.io/" });
    return "refused";
  };
  page.websocket = blocked;
  const relay = await page.connect();
  const count = () => relay.errors.filter(({ error }) => error === "blocked").length;
  await page.pass(40_000); // a probe
  page.session.cut();
  await page.pass(1000);
  assert.deepEqual([relay.transport, count()], ["polling", 1]);
  page.websocket = "works";
  await page.pass(35_000);
  assert.equal(relay.transport, "websocket");
  page.websocket = blocked;
  page.session.cut();
  await page.pass(1000);
  assert.equal(count(), 2);
});

test("after a reported reason, a page that never was online is not told that no relay answers", async () => {
  const page = new Page();
  page.websocket = page.polling = "refused";
  const relay = page.Relay.connect();
  const errors = [];
  relay.on("error", ({ error }) => errors.push(error));
  await page.fire("securitypolicyviolation", { blockedURI: "http://relay.test/socket.io/" });
  await page.pass(10_000);
  assert.deepEqual(errors, ["blocked"]);
});

test("a page whose WebSocket failed polls first at the next attempt", async () => {
  const page = new Page();
  page.websocket = "refused";
  const relay = await page.connect();
  page.attempts = [];
  page.session.cut();
  await page.pass(1000);
  assert.equal(relay.status, "online");
  assert.deepEqual(page.attempts.map(([transport]) => transport), ["polling"]);
});

test("a page whose WebSocket hung polls first at the next attempt, even if long polling failed too", async () => {
  const page = new Page();
  page.websocket = "silent";
  page.polling = "refused";
  await page.connect({ timeout: 300 });
  await page.pass(300);
  page.attempts = [];
  await page.pass(500);
  assert.deepEqual(page.attempts.map(([transport]) => transport), ["polling", "websocket"]);
});

test("connect() during an attempt does not start a second one", async () => {
  const page = new Page();
  page.websocket = "silent";
  const relay = await page.connect();
  relay.connect().connect();
  await page.pass(100);
  assert.equal(page.tries, 1);
});

test("connect() tries now instead of waiting, once", async () => {
  const page = new Page();
  const relay = await page.connect();
  page.session.cut();
  relay.connect();
  await page.pass(0);
  assert.deepEqual([relay.status, page.tries], ["online", 2]);
  await page.pass(5000);
  assert.equal(page.tries, 2);
});

test("close() ends the connection for good", async () => {
  const page = new Page();
  const relay = await page.connect();
  relay.close();
  assert.deepEqual(plain(relay.statuses.at(-1)), ["offline", { reason: "io client disconnect" }]);
  assert.deepEqual([relay.status, relay.sid, relay.transport, page.session.isOpen], ["offline", null, null, false]);
  await page.fire("online");
  await page.show();
  await page.pass(600_000);
  assert.equal(page.tries, 1);
});

test("close() while waiting or connecting ends the attempts", async () => {
  for (const how of ["refused", "silent"]) {
    const page = new Page();
    page.websocket = page.polling = how;
    const relay = await page.connect();
    const tries = page.tries;
    relay.close();
    await page.pass(600_000);
    assert.equal(page.tries, tries);
  }
});

test("close() in a status handler is heard, also before the first attempt", async () => {
  for (const at of ["connecting", "online", "offline"]) {
    const page = new Page();
    const relay = page.Relay.connect();
    relay.on("status", (status) => status === at && relay.close());
    await page.pass(0);
    page.session?.cut();
    await page.pass(60_000);
    assert.equal(relay.status, "offline");
    assert.equal(page.tries, at === "connecting" ? 0 : 1, at);
  }
});

test("after close(), connect() opens a new connection without the old registrations", async () => {
  const page = new Page();
  const relay = await page.connect();
  relay.register("42");
  await page.pass(0);
  relay.close();
  relay.connect();
  await page.pass(1000);
  assert.equal(relay.status, "online");
  assert.deepEqual(page.session.events, []);
});
