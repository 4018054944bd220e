// The network and the page come and go: offline, online, hidden, frozen, in the back/forward cache, asleep.
"use strict";

const assert = require("node:assert/strict");
const test = require("node:test");
const { Page, plain } = require("./page.js");

test("offline ends the connection at once, and online opens the next one", async () => {
  const page = new Page();
  const relay = await page.connect();
  await page.fire("offline");
  assert.deepEqual(plain(relay.statuses.at(-1)), ["offline", { reason: "offline", retryIn: 500 }]);
  assert.equal(page.session.isOpen, false);
  page.websocket = page.polling = "refused";
  await page.pass(20_000);
  page.websocket = "works";
  const tries = page.tries;
  await page.pass(1000);
  assert.equal(page.tries, tries);
  await page.fire("online");
  await page.pass(0);
  assert.equal(relay.status, "online");
});

test("offline is ignored by a page without a connection", async () => {
  const page = new Page();
  page.websocket = page.polling = "silent";
  const relay = await page.connect();
  await page.fire("offline");
  assert.equal(relay.status, "connecting");
});

test("online, visible, pageshow and resume try at once, but at most once a second", async () => {
  for (const event of ["online", "visibilitychange", "pageshow", "resume"]) {
    const page = new Page();
    page.random = 0.99;
    page.websocket = page.polling = "refused";
    await page.connect();
    await page.pass(990 + 1980 + 999); // the next attempt would be in 3 s
    assert.equal(page.tries, 6);
    for (let n = 0; n < 20; n++) await page.fire(event);
    await page.pass(999);
    assert.equal(page.tries, 6, event);
    await page.pass(1);
    assert.equal(page.tries, 8, event);
    await page.pass(1000);
    await page.fire(event);
    await page.pass(0);
    assert.equal(page.tries, 10, event);
  }
});

test("a page that becomes hidden does not try", async () => {
  const page = new Page();
  page.random = 0.99;
  page.websocket = page.polling = "refused";
  await page.connect();
  await page.pass(990 + 1980 + 1500);
  const { tries } = page;
  await page.hide();
  await page.pass(500);
  assert.equal(page.tries, tries);
  await page.show();
  await page.pass(0);
  assert.equal(page.tries, tries + 2);
});

test("a hidden page also tries at once when the network is back", async () => {
  const page = new Page();
  page.random = 0.99;
  page.websocket = page.polling = "refused";
  await page.connect();
  await page.hide();
  await page.pass(990 + 1980 + 1500);
  const { tries } = page;
  await page.fire("online");
  await page.pass(0);
  assert.equal(page.tries, tries + 2);
});

test("a page that slept for longer than the ping allows reconnects when it wakes up", async () => {
  for (const event of ["online", "visibilitychange", "pageshow", "resume"]) {
    const page = new Page();
    const relay = await page.connect();
    page.sleep(45_001);
    await page.fire(event);
    assert.equal(relay.statuses.at(-1)[1]?.reason, "ping timeout", event);
    await page.pass(0);
    assert.equal(relay.status, "online", event);
    assert.equal(page.sessions.length, 2);
  }
});

test("a page that slept for less keeps its connection", async () => {
  const page = new Page();
  const relay = await page.connect();
  page.sleep(40_000);
  await page.fire("resume");
  await page.pass(0);
  assert.deepEqual([relay.status, page.sessions.length], ["online", 1]);
});

test("a clock that was set back does no harm", async () => {
  const page = new Page();
  const relay = await page.connect();
  page.sleep(-3_600_000);
  await page.show();
  assert.equal(relay.status, "online");
  page.session.cut();
  page.websocket = page.polling = "refused";
  await page.show();
  page.websocket = "works";
  await page.pass(1000);
  assert.equal(relay.status, "online");
});

test("a page that goes into the back/forward cache closes its connection, and is back at once", async () => {
  const page = new Page();
  const relay = await page.connect();
  await page.fire("pagehide", { persisted: true });
  assert.deepEqual(plain(relay.statuses.at(-1)), ["resting", { reason: "pagehide" }]);
  assert.equal(page.session.isOpen, false);
  await page.pass(60_000);
  assert.equal(page.sessions.length, 1);
  await page.fire("pageshow", { persisted: true });
  await page.pass(0);
  assert.equal(relay.status, "online");
});

test("a page that is unloaded keeps its connection until the end", async () => {
  const page = new Page();
  const relay = await page.connect();
  await page.fire("pagehide", { persisted: false });
  assert.equal(relay.status, "online");
});

test("a page that waits for its next attempt does not try in the back/forward cache", async () => {
  const page = new Page();
  page.websocket = page.polling = "refused";
  await page.connect();
  await page.fire("pagehide", { persisted: true });
  const { tries } = page;
  await page.pass(100_000);
  assert.equal(page.tries, tries);
});

test("a polling page that is frozen rests, and resume brings it back; one with WebSocket keeps it", async () => {
  const page = new Page();
  const relay = await page.connect({ transports: ["polling"] });
  await page.fire("freeze");
  assert.deepEqual(plain(relay.statuses.at(-1)), ["resting", { reason: "freeze" }]);
  await page.fire("resume");
  await page.pass(0);
  assert.equal(relay.status, "online");
  const other = new Page();
  const websocket = await other.connect();
  await other.fire("freeze");
  assert.equal(websocket.status, "online");
});

test("events of the page reach every connection, and none that was closed", async () => {
  const page = new Page();
  const relays = [await page.connect(), await page.connect(), await page.connect()];
  relays[1].close();
  await page.fire("offline");
  assert.deepEqual(relays.map(({ statuses }) => statuses.at(-1)[1].reason), ["offline", "io client disconnect", "offline"]);
});
