// Pushes from the page, the bounded buffer, time-outs, and handlers.
"use strict";

const assert = require("node:assert/strict");
const test = require("node:test");
const { Page, outcome, plain } = require("./page.js");

async function offline(options) {
  const page = new Page();
  page.websocket = page.polling = "refused";
  return [page, await page.connect(options)];
}

test("push() sends destination, data and event, and resolves with the answer", async () => {
  const page = new Page();
  const relay = await page.connect();
  assert.deepEqual(plain(await relay.push(42, { a: [1] }, "order")), { ok: true, id: "e:1", connections: 1 });
  relay.push(["a", 7], null);
  await page.pass(0);
  assert.deepEqual(plain(page.sent("push")), [
    { destination: "42", data: { a: [1] }, event: "order" },
    { destination: ["a", "7"], data: null },
  ]);
});

test("data that JSON cannot express is a rejection and an error event", async () => {
  const page = new Page();
  const relay = await page.connect();
  const circle = {};
  circle.self = circle;
  await assert.rejects(relay.push("42", circle), { name: "TypeError" });
  assert.deepEqual(relay.errors.map(({ error }) => error), ["TypeError"]);
});

test("bytes, Map and Set anywhere in the data are a rejection that names the type", async () => {
  const page = new Page();
  const relay = await page.connect();
  for (const value of [new Uint8Array([1, 2]), new ArrayBuffer(0), new DataView(new ArrayBuffer(3)), new Map(), new Set()]) {
    for (const data of [value, { photos: [value] }]) {
      const message = `${value[Symbol.toStringTag]} is not JSON`;
      await assert.rejects(relay.push("42", data), { code: "invalid_data", message });
    }
  }
  await relay.push("42", { buffer: 1, byteLength: 3, when: new Date(0) });
  assert.equal(page.sent("push").length, 1);
});

test("a message that is larger than the relay takes is rejected and not sent, because the relay would disconnect", async () => {
  const page = new Page();
  page.handshake = { maxPayload: 1000 };
  page.answer.send = ({ id }) => ({ ok: true, id });
  const relay = await page.connect();
  const large = "é".repeat(490); // 980 bytes
  const token = "t".repeat(1000);
  const larger = [relay.push("42", large), relay.request("x", large), relay.send("x", large), relay.register("42", { token })];
  const fits = relay.send("x", "e".repeat(900));
  for (const promise of larger) assert.deepEqual(await outcome(promise), ["rejected", "too_large"]);
  assert.equal((await fits).ok, true);
  assert.deepEqual([page.session.events.length, page.sessions.length, relay.status], [1, 1, "online"]);
});

test("a push without an answer is rejected after the timeout; a late answer changes nothing", async () => {
  const page = new Page();
  page.answer.push = () => undefined;
  const relay = await page.connect({ timeout: 4000 });
  const promise = relay.push("42", 1);
  await page.pass(3999);
  assert.equal(await outcome(promise), "pending");
  await page.pass(1);
  await assert.rejects(promise, { code: "timeout", message: "timeout" });
  page.session.reply("push", { ok: true });
  await page.pass(0);
  assert.equal(relay.status, "online");
});

test("a push whose connection ends is rejected with `disconnected` and never sent again", async () => {
  const page = new Page();
  page.answer.push = () => undefined;
  const relay = await page.connect();
  const promise = relay.push("42", 1);
  await page.pass(0);
  page.session.cut();
  assert.deepEqual(await outcome(promise), ["rejected", "disconnected"]);
  await page.pass(1000);
  assert.equal(page.sent("push").length, 1);
});

test("100 pushes wait while the page is offline, and are sent in order after the registrations; more are refused", async () => {
  const [page, relay] = await offline();
  const promises = [];
  for (let n = 0; n < 103; n++) promises.push(relay.push("42", n));
  for (const promise of promises.slice(100)) assert.deepEqual(await outcome(promise), ["rejected", "offline"]);
  assert.equal(await outcome(promises[99]), "pending");
  relay.register("42");
  page.websocket = "works";
  await page.pass(2000);
  assert.deepEqual(page.sent("push").map(({ data }) => data), [...Array(100).keys()]);
  assert.equal(page.session.events[0][0], "register");
  assert.equal((await promises[0]).ok, true);
  assert.deepEqual(relay.errors.filter(({ error }) => error === "offline").length, 3);
});

test("the timeout of a push begins when it is sent", async () => {
  const [page, relay] = await offline({ timeout: 1000 });
  page.answer.push = () => undefined;
  const promise = relay.push("42", 1);
  await page.pass(10_000);
  assert.equal(await outcome(promise), "pending");
  page.websocket = "works";
  await page.pass(20_000);
  assert.deepEqual(await outcome(promise), ["rejected", "timeout"]);
});

test("close() refuses what waits in the buffer with `closed`", async () => {
  const [page, relay] = await offline();
  const promise = relay.push("42", 1);
  relay.close();
  assert.deepEqual(await outcome(promise), ["rejected", "closed"]);
  page.websocket = "works";
  relay.connect();
  await page.pass(1000);
  assert.deepEqual(page.sent("push"), []);
});

test("handlers get data, and the push's position, destination and event", async () => {
  const page = new Page();
  const relay = await page.connect();
  const seen = [];
  relay.on("push", (data, info) => seen.push(["push", data, plain(info)]));
  relay.on("order", (data, info) => seen.push(["order", data, plain(info)]));
  page.session.publish("42", 1, "text");
  page.session.publish("42", 2, { n: 1 }, "order");
  assert.deepEqual(plain(seen), [
    ["push", "text", { id: "e:1", destination: "42", event: "push" }],
    ["order", { n: 1 }, { id: "e:2", destination: "42", event: "order" }],
  ]);
  assert.deepEqual(plain(relay.handed), ["text", { n: 1 }]);
});

test("a push whose event is status, error or * goes to the push handlers", async () => {
  const page = new Page();
  const relay = await page.connect();
  const seen = [];
  relay.on("push", (data, { event }) => seen.push(event));
  const { length } = relay.statuses;
  ["status", "error", "*"].forEach((event, n) => page.session.publish("42", n + 1, "x", event));
  assert.deepEqual(seen, ["status", "error", "*"]);
  assert.deepEqual([relay.statuses.length, relay.errors], [length, []]);
  assert.deepEqual(relay.handed, ["x", "x", "x"]);
});

test("what a handler throws or rejects is reported whole, and the other handlers run", async () => {
  const page = new Page();
  const relay = await page.connect();
  const seen = [];
  const errors = [new Error("thrown"), new Error("rejected")];
  relay.on("push", () => { throw errors[0]; });
  relay.on("push", async () => { throw errors[1]; });
  relay.on("push", (data) => seen.push(data));
  page.session.publish("42", 1);
  page.session.publish("42", 2);
  await page.pass(0);
  assert.deepEqual(seen, [1, 2]);
  assert.equal(page.reported.length, 4);
  assert.ok(page.reported.includes(errors[0]) && page.reported.includes(errors[1]));
});

test("without reportError(), what a handler throws is logged", async () => {
  const page = new Page({ scope: { reportError: undefined } });
  const relay = await page.connect();
  relay.on("push", () => { throw new Error("thrown"); });
  page.session.publish("42", 1);
  await page.pass(0);
  assert.equal(page.reported.length, 1);
});

test("once() calls a handler once, off() removes a handler, all of an event, or all", async () => {
  const page = new Page();
  const relay = await page.connect();
  const seen = [];
  const [a, b] = ["a", "b"].map((name) => () => seen.push(name));
  relay.once("push", a).on("push", b).on("push", b).once("other", a);
  const publish = (n) => (page.session.publish("42", n), seen.splice(0).join(""));
  assert.equal(publish(1), "abb");
  assert.equal(publish(2), "bb");
  relay.off("push", a);
  assert.equal(publish(3), "bb");
  relay.off("push", b);
  assert.equal(publish(4), "");
  relay.on("push", a).on("push", b).off("push");
  assert.equal(publish(5), "");
  assert.deepEqual(relay.handed.length, 5);
  page.session.publish("42", 6, 0, "other");
  page.session.publish("42", 7, 0, "other");
  assert.equal(seen.join(""), "a");
  relay.off();
  page.session.publish("42", 8);
  assert.equal(relay.handed.length, 7);
});

test("on() without a function is an error at once", async () => {
  const page = new Page();
  const relay = await page.connect();
  assert.throws(() => relay.on("push"), { name: "TypeError" });
  assert.throws(() => relay.once("push", "text"), { name: "TypeError" });
});

test("an error from the relay without a request is an error event", async () => {
  const page = new Page();
  const relay = await page.connect();
  page.session.emit("relay_error", { ok: false, error: "register_timeout", message: "register something" });
  assert.deepEqual(plain(relay.errors), [{ error: "register_timeout", message: "register something" }]);
});
