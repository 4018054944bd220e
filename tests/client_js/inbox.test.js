// Inbox: acknowledgements after the handlers, and repeated calls of handlers that fail.
"use strict";

const assert = require("node:assert/strict");
const test = require("node:test");
const { Page, plain } = require("./page.js");

/** A page with an inbox "42". */
async function inbox(options = true, handler) {
  const page = new Page();
  const relay = await page.connect();
  if (handler) relay.on("push", handler);
  relay.register("42", { inbox: options });
  await page.pass(0);
  return [page, relay];
}

const acks = (page) => page.sent("ack").map(({ position }) => position);

test("an inbox begins after what was acknowledged, also after a reconnect", async () => {
  const [page] = await inbox();
  page.session.publish("42", 3);
  page.session.cut();
  await page.pass(1000);
  assert.deepEqual(page.sent("register").map(({ since }) => since), [{ 42: "acked" }, { 42: "acked" }]);
});

test("a publication is acknowledged 20 ms after its handlers, several at once by the last", async () => {
  const [page] = await inbox();
  for (let n = 1; n <= 5; n++) page.session.publish("42", n);
  await page.pass(19);
  assert.deepEqual(acks(page), []);
  await page.pass(1);
  assert.deepEqual(plain(page.sent("ack")), [{ id: "42", position: "e:5" }]);
  await page.pass(1000);
  assert.equal(acks(page).length, 1);
});

test("in a steady flow there is an acknowledgement at least every 20 ms or so, and not more often", async () => {
  const [page] = await inbox();
  for (let n = 1; n <= 200; n++) {
    page.session.publish("42", n);
    await page.pass(15);
  }
  await page.pass(20);
  assert.ok(acks(page).length >= 90 && acks(page).length <= 151, String(acks(page).length));
  assert.equal(acks(page).at(-1), "e:200");
});

test("an acknowledgement waits for a handler's promise", async () => {
  let done;
  const [page] = await inbox(true, () => new Promise((resolve) => (done = resolve)));
  page.session.publish("42", 1);
  await page.pass(1000);
  assert.deepEqual(acks(page), []);
  done();
  await page.pass(20);
  assert.deepEqual(acks(page), ["e:1"]);
});

test("a publication that no handler takes is acknowledged too", async () => {
  const page = new Page();
  const relay = page.Relay.connect();
  relay.register("42", { inbox: true });
  await page.pass(0);
  page.session.publish("42", 1, 0, "unheard");
  await page.pass(20);
  assert.deepEqual(acks(page), ["e:1"]);
});

test("without an inbox nothing is acknowledged", async () => {
  const [page] = await inbox(false);
  page.session.publish("42", 1);
  await page.pass(1000);
  assert.deepEqual(acks(page), []);
});

test("a failing handler is called again with increasing waits, and only that one; later publications do not wait", async () => {
  const calls = [];
  const [page, relay] = await inbox(true, (data) => {
    calls.push([data, page.now - page.began]);
    if (data === 1 && calls.filter(([each]) => each === 1).length < 4) throw new Error("poison");
  });
  page.session.publish("42", 1);
  page.session.publish("42", 2);
  await page.pass(500);
  assert.deepEqual(acks(page), []);
  await page.pass(1000 + 2000 + 4000 - 500);
  assert.deepEqual(calls, [[1, 0], [2, 0], [1, 1000], [1, 3000], [1, 7000]]);
  await page.pass(20);
  assert.deepEqual(acks(page), ["e:2"]);
  assert.deepEqual(relay.handed, [1, 2]); // its handler had succeeded
});

test("each failure is an error event with the publication and the number of tries", async () => {
  const [page, relay] = await inbox(true, () => { throw new Error("poison"); });
  page.session.publish("42", 7);
  await page.pass(3500);
  assert.deepEqual(plain(relay.errors), [1, 2, 3].map((tries) => (
    { error: "handler_failed", message: "handler_failed", ids: ["42"], id: "e:7", tries }
  )));
  assert.equal(page.reported.length, 3);
});

test("with {tries: 3} a publication counts as handled after three failures", async () => {
  const [page, relay] = await inbox({ tries: 3 }, (data) => { if (data === 1) throw new Error("poison"); });
  page.session.publish("42", 1);
  page.session.publish("42", 2);
  await page.pass(2999);
  assert.deepEqual(acks(page), []);
  await page.pass(1 + 20);
  assert.deepEqual(acks(page), ["e:2"]);
  await page.pass(100_000 - 60_000);
  assert.equal(relay.errors.length, 3);
});

test("after unregister() a failing handler is not called again", async () => {
  let calls = 0;
  const [page, relay] = await inbox(true, () => { calls++; throw new Error("poison"); });
  page.session.publish("42", 1);
  await page.pass(0);
  relay.unregister("42");
  await page.pass(30_000);
  assert.equal(calls, 1);
  assert.deepEqual(acks(page), []);
});

test("an acknowledgement waits until the next connection has registered the id, and is then sent again", async () => {
  const [page] = await inbox();
  page.answer.register = () => undefined;
  page.session.publish("42", 1);
  page.session.cut(); // before the 20 ms are over
  await page.pass(5000);
  assert.deepEqual(acks(page), []);
  page.session.reply("register", { ok: true, ids: { 42: { position: "e:1", recovered: true } } });
  await page.pass(20);
  assert.deepEqual(acks(page), ["e:1"]);
});

test("the last acknowledgement is repeated on the next connection, because it may be lost", async () => {
  const [page] = await inbox();
  page.session.publish("42", 1);
  await page.pass(20);
  page.session.cut();
  await page.pass(1000);
  await page.pass(20);
  assert.deepEqual(acks(page), ["e:1", "e:1"]);
});

test("a position is acknowledged once on a connection", async () => {
  const [page, relay] = await inbox();
  relay.register("7", { inbox: true });
  await page.pass(0);
  page.session.publish("42", 1);
  await page.pass(20);
  page.session.publish("7", 1);
  await page.pass(20);
  await page.fire("pagehide", {});
  assert.deepEqual(plain(page.sent("ack")), [{ id: "42", position: "e:1" }, { id: "7", position: "e:1" }]);
});

test("pagehide and close() send the acknowledgements at once", async () => {
  const [page, relay] = await inbox();
  page.session.publish("42", 1);
  await page.pass(0);
  await page.fire("pagehide", {});
  assert.deepEqual(acks(page), ["e:1"]);
  page.session.publish("42", 2);
  await page.pass(0);
  relay.close();
  assert.deepEqual(acks(page), ["e:1", "e:2"]);
});

test("a replay that repeats a publication calls its handlers once, and after a loss nothing old is acknowledged", async () => {
  const [page, relay] = await inbox();
  page.session.publish("42", 1);
  await page.pass(20);
  page.answer.register = () => ({ ok: true, ids: { 42: { position: "f:9", recovered: false } } });
  page.session.cut();
  await page.pass(1000);
  assert.deepEqual(plain(relay.statuses.at(-1)), ["lost", ["42"]]);
  await page.pass(100);
  assert.deepEqual(acks(page), ["e:1"]);
  page.session.publish("42", 10, 10, "push", "f");
  page.session.publish("42", 10, 10, "push", "f");
  await page.pass(20);
  assert.deepEqual(relay.handed, [1, 10]);
  assert.deepEqual(acks(page), ["e:1", "f:10"]);
});
