// Requests to the site's PHP, and messages that it gets later: relay.request() and relay.send().
"use strict";

const assert = require("node:assert/strict");
const test = require("node:test");
const { Page, outcome, plain } = require("./page.js");

const STORED = (payload) => ({ ok: true, id: payload.id });

/** Open a page. The relay's answers to `request` and `send` are `answer`, or that of a function. */
async function start(name, answer, options) {
  const page = new Page();
  page.answer[name] = typeof answer === "function" ? answer : () => answer;
  let count = 0;
  page.random = () => 0.5 + (count += Math.PI) / 1e9; // always another number, for ids, and always the same waits
  const relay = await page.connect(options);
  return { page, relay };
}

const texts = (page) => page.sent("send").map(({ data }) => data);

test("request() resolves with PHP's answer", async () => {
  const { page, relay } = await start("request", { ok: true, answer: { added: 7 } });
  assert.deepEqual(plain(await relay.request("cart/add", { sku: 7 })), { added: 7 });
  assert.deepEqual(page.sent("request"), [{ name: "cart/add", data: { sku: 7 } }]);
});

test("an answer may be null, false, or look like a refusal", async () => {
  for (const answer of [null, false, { ok: false, error: "mine" }]) {
    const { relay } = await start("request", { ok: true, answer });
    assert.deepEqual(plain(await relay.request("x")), answer);
  }
});

test("a refused request is an Error with code, status, message and details, and an error event", async () => {
  const { relay } = await start("request", { ok: false, error: "sold_out", message: "None is left.", status: 409, retry_after: 5 });
  const error = await relay.request("x").catch((error) => error);
  assert.deepEqual([error.code, error.status, error.message, error.details.retry_after], ["sold_out", 409, "None is left.", 5]);
  assert.equal(relay.errors[0].error, "sold_out");
});

test("a request without an answer is rejected with `timeout` after 15 seconds, or after its own time", async () => {
  const { page, relay } = await start("request", undefined);
  const [one, two] = [relay.request("x", 1, null), relay.request("y", 1, { timeout: 3000 })];
  await page.pass(2999);
  assert.equal(await outcome(two), "pending");
  await page.pass(1);
  assert.deepEqual(await outcome(two), ["rejected", "timeout"]);
  await page.pass(11_999);
  assert.equal(await outcome(one), "pending");
  await page.pass(1);
  assert.deepEqual(await outcome(one), ["rejected", "timeout"]);
});

test("a request waits for the connection", async () => {
  const { page, relay } = await start("request", { ok: true, answer: 1 });
  page.session.cut();
  const promise = relay.request("x");
  await page.pass(5000);
  assert.deepEqual(await outcome(promise), ["resolved", 1]);
});

test("a request that meets no connection in its time is rejected with `offline`, and never sent", async () => {
  const { page, relay } = await start("request", { ok: true, answer: 1 });
  page.websocket = page.polling = "refused";
  page.session.cut();
  const promise = relay.request("x", null, { timeout: 2000 });
  relay.request("y").catch(() => {});
  await page.pass(2000);
  assert.deepEqual(await outcome(promise), ["rejected", "offline"]);
  page.websocket = "works";
  await page.pass(10_000);
  assert.deepEqual(page.sent("request").map(({ name }) => name), ["y"]);
});

test("a request whose connection ends is rejected, and not sent again", async () => {
  const { page, relay } = await start("request", undefined);
  const promise = relay.request("x");
  await page.pass(0);
  page.session.cut();
  assert.deepEqual(await outcome(promise), ["rejected", "disconnected"]);
  await page.pass(30_000);
  assert.equal(page.sent("request").length, 1);
});

test("a timeout of Infinity waits", async () => {
  const { page, relay } = await start("request", undefined);
  const promise = relay.request("x", 1, { timeout: Infinity });
  await page.pass(40_000);
  assert.equal(await outcome(promise), "pending");
});

test("bytes and other objects that are no JSON reject a request and a message", async () => {
  const { page, relay } = await start("send", STORED);
  const data = { bytes: new Uint8Array(3) };
  assert.deepEqual(await outcome(relay.request("x", data)), ["rejected", "invalid_data"]);
  assert.deepEqual(await outcome(relay.send("x", data)), ["rejected", "invalid_data"]);
  assert.equal((await relay.send("y", 1)).ok, true);
  assert.deepEqual(texts(page), [1]);
});

test("send() resolves when the relay has stored the message, with an id of its own", async () => {
  const { page, relay } = await start("send", STORED);
  const ids = [(await relay.send("seen", { message: 7 })).id, (await relay.send("seen")).id];
  assert.deepEqual(page.sent("send"), [{ name: "seen", data: { message: 7 }, id: ids[0] }, { name: "seen", id: ids[1] }]);
  assert.ok(ids[0] !== ids[1] && ids[0].length > 20 && ids[0].length <= 128);
});

test("messages are sent one after another, each as it was at the call", async () => {
  const { page, relay } = await start("send", undefined);
  const data = { n: 1 };
  const all = [relay.send("x", data)];
  data.n = 2;
  all.push(relay.send("x", data));
  data.n = 3;
  await page.pass(1000);
  assert.deepEqual(texts(page), [{ n: 1 }]);
  page.session.reply("send", { ok: true });
  await page.pass(0);
  page.session.reply("send", { ok: true });
  await Promise.all(all);
  assert.deepEqual(texts(page), [{ n: 1 }, { n: 2 }]);
});

test("after a cut the message that has no answer is sent again with its id, and then the others in order", async () => {
  const { page, relay } = await start("send", undefined);
  const all = [1, 2, 3].map((n) => relay.send("x", n));
  await page.pass(0);
  page.session.cut();
  all.push(relay.send("x", 4));
  page.answer.send = STORED;
  await page.pass(2000);
  await Promise.all(all);
  assert.deepEqual(texts(page), [1, 1, 2, 3, 4]);
  const [first, again] = page.sent("send");
  assert.equal(first.id, again.id);
  assert.deepEqual(relay.errors, []);
});

test("a message that is refused for the moment is sent again with increasing waits, and holds up the next ones", async () => {
  for (const error of ["too_many_events", "store_not_available"]) {
    const times = [];
    const { page, relay } = await start("send", () => (times.push(page.now - page.began), { ok: false, error, message: "later" }));
    page.random = 0.5;
    const all = [relay.send("x", 1), relay.send("x", 2)];
    await page.pass(500 + 1000 + 2000);
    assert.deepEqual([times, texts(page)], [[0, 500, 1500, 3500], [1, 1, 1, 1]]);
    page.answer.send = STORED;
    await page.pass(4000);
    await Promise.all(all);
    assert.deepEqual(texts(page), [1, 1, 1, 1, 1, 2]);
    assert.equal(relay.errors.length, 1);
  }
});

test("a message that is refused is rejected, and the next one is sent", async () => {
  const { page, relay } = await start("send", ({ data, id }) => (data === 1 ? { ok: false, error: "queue_full", message: "no" } : { ok: true, id }));
  const [one, two] = [relay.send("x", 1), relay.send("x", 2)];
  await page.pass(0);
  assert.deepEqual(await outcome(one), ["rejected", "queue_full"]);
  assert.equal((await two).ok, true);
  page.session.cut();
  await page.pass(5000);
  assert.deepEqual(texts(page), [1, 2]);
});

test("messages wait while the page is offline, at most 100 of them", async () => {
  const { page, relay } = await start("send", STORED);
  page.session.cut();
  const all = Array.from({ length: 100 }, (_, n) => relay.send("x", n));
  assert.deepEqual(await outcome(relay.send("x", "too much")), ["rejected", "offline"]);
  await page.pass(5000);
  await Promise.all(all);
  assert.deepEqual(texts(page), Array.from({ length: 100 }, (_, n) => n));
});

test("close() rejects messages and requests, and a later connection does not send them", async () => {
  const { page, relay } = await start("send", undefined);
  const all = [relay.send("x", 1), relay.send("x", 2), relay.request("y")];
  await page.pass(0);
  relay.close();
  for (const promise of all) assert.deepEqual(await outcome(promise), ["rejected", "closed"]);
  page.answer.send = STORED;
  relay.connect();
  await page.pass(0);
  assert.equal((await relay.send("x", 3)).ok, true);
  assert.deepEqual(texts(page), [1, 3]);
});

test("messages come after the registrations, so that PHP knows who sends them", async () => {
  const { page, relay } = await start("send", STORED);
  page.session.cut();
  relay.register("42");
  const promise = relay.send("x", 1);
  await page.pass(2000);
  await promise;
  assert.deepEqual(page.session.events.map(([name]) => name), ["register", "send"]);
});

test("a message is sent while a registration waits for its token", async () => {
  const { page, relay } = await start("send", STORED);
  relay.register("42", { token: () => new Promise(() => {}) });
  assert.equal((await relay.send("x", 1)).ok, true);
  assert.deepEqual(page.sent("register"), []);
});
