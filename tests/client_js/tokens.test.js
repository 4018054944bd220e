// Tokens: given, or from a function, which may fail, hang, and be asked again.
"use strict";

const assert = require("node:assert/strict");
const test = require("node:test");
const { Page, outcome, plain } = require("./page.js");

/** Register "42" with a token function that fails `times` times. */
async function failing(times, options) {
  const page = new Page();
  const relay = await page.connect(options);
  const calls = [];
  const token = () => {
    calls.push(page.now - page.began);
    if (calls.length <= times) throw new Error("404");
    return "t" + calls.length;
  };
  const promise = relay.register("42", { token });
  await page.pass(0);
  return { page, relay, calls, promise };
}

test("a static token is sent with each registration", async () => {
  const page = new Page();
  const relay = await page.connect();
  relay.register("42", { token: "abc" });
  await page.pass(0);
  page.session.cut();
  await page.pass(1000);
  assert.deepEqual(page.sent("register").map(({ token }) => token), ["abc", "abc"]);
});

test("a token function is called for each registration, and may return a promise", async () => {
  const page = new Page();
  const relay = await page.connect();
  let n = 0;
  relay.register("42", { token: () => ++n });
  relay.register("7", { token: async () => "seven" });
  await page.pass(0);
  page.session.cut();
  await page.pass(1000);
  assert.deepEqual(page.sent("register").map(({ id, token }) => [id, token]), [["42", 1], ["7", "seven"], ["42", 2], ["7", "seven"]]);
});

test("a function that returns nothing registers without a token", async () => {
  const page = new Page();
  const relay = await page.connect();
  relay.register("42", { token: () => undefined });
  await page.pass(0);
  assert.equal("token" in page.sent("register")[0], false);
});

test("a token function that fails is called again with increasing waits; there is one error event", async () => {
  const { page, relay, calls, promise } = await failing(4);
  await page.pass(500 + 1000 + 2000 + 4000);
  assert.deepEqual(calls, [0, 500, 1500, 3500, 7500]);
  assert.equal((await promise).ok, true);
  assert.deepEqual(plain(relay.errors), [{ error: "token_failed", message: "token: Error: 404", ids: ["42"] }]);
  assert.deepEqual(page.sent("register").map(({ token }) => token), ["t5"]);
});

test("a token function that fails does not harm other registrations, or the connection", async () => {
  const { page, relay } = await failing(Infinity);
  const answer = relay.register("7");
  await page.pass(60_000 - 20_000);
  assert.deepEqual(await outcome(answer), ["resolved", { ok: true, ids: { 7: { position: "e:0", recovered: false, replayed: 0 } } }]);
  assert.deepEqual([relay.status, page.sessions.length], ["online", 1]);
});

test("after it succeeded, a token function that fails begins with the shortest wait, and an error event", async () => {
  const { page, relay, calls } = await failing(3);
  await page.pass(4000);
  assert.equal(calls.length, 4);
  calls.length = 0;
  page.session.emit("relay_error", { ok: false, error: "token_expired", message: "expired", ids: ["42"] });
  await page.pass(400);
  assert.equal(calls.length, 1);
  await page.pass(100);
  assert.equal(calls.length, 2);
  assert.equal(relay.errors.length, 2);
});

test("a token promise that never settles counts as a failure after the timeout", async () => {
  const page = new Page();
  const relay = await page.connect({ timeout: 3000 });
  let calls = 0;
  const promise = relay.register("42", { token: () => (calls++ ? "late" : new Promise(() => {})) });
  await page.pass(2999);
  assert.deepEqual(relay.errors, []);
  await page.pass(1);
  assert.equal(relay.errors[0].error, "token_failed");
  await page.pass(500);
  assert.equal((await promise).ok, true);
  assert.deepEqual(page.sent("register").map(({ token }) => token), ["late"]);
});

test("a token that comes after the connection ended is not sent; the next connection asks again", async () => {
  const page = new Page();
  const relay = await page.connect();
  const tokens = [];
  relay.register("42", { token: () => new Promise((resolve) => tokens.push(resolve)) });
  await page.pass(0);
  page.session.cut();
  await page.pass(1000);
  tokens[0]("old");
  await page.pass(0);
  assert.deepEqual(page.sent("register"), []);
  tokens[1]("new");
  await page.pass(0);
  assert.deepEqual(page.sent("register").map(({ token }) => token), ["new"]);
});

test("after unregister() a token that is awaited is not sent, and a failing function is not called again", async () => {
  const { page, relay, calls, promise } = await failing(Infinity);
  relay.unregister("42");
  await page.pass(60_000 - 20_000);
  assert.equal(calls.length, 1);
  assert.deepEqual(await outcome(promise), ["rejected", "closed"]);
  assert.deepEqual(page.sent("register"), []);
});

test("when a token expires, its function is asked and the id continues; nobody is told", async () => {
  const page = new Page();
  const relay = await page.connect();
  let n = 0;
  relay.register("42", { token: () => "t" + ++n });
  await page.pass(0);
  page.session.publish("42", 5);
  page.session.emit("relay_error", { ok: false, error: "token_expired", message: "expired", ids: ["42"] });
  await page.pass(0);
  const last = page.sent("register").at(-1);
  assert.deepEqual([last.token, last.since], ["t2", { 42: "e:5" }]);
  assert.deepEqual(relay.errors, []);
});

test("when a static token expires, there is an error event with its ids; others are renewed", async () => {
  const page = new Page();
  const relay = await page.connect();
  relay.register("42", { token: () => "fresh" });
  relay.register("7", { token: "stale" });
  await page.pass(0);
  page.session.emit("relay_error", { ok: false, error: "token_expired", message: "expired", ids: ["42", "7"] });
  await page.pass(0);
  assert.deepEqual(plain(relay.errors.map(({ error, ids }) => [error, ids])), [["token_expired", ["7"]]]);
  assert.deepEqual(page.sent("register").map(({ id }) => id), ["7", "42", "42"]);
});

test("a token that expires for an id that was unregistered is ignored", async () => {
  const page = new Page();
  const relay = await page.connect();
  relay.register("42", { token: "stale" });
  await page.pass(0);
  relay.unregister("42");
  page.session.emit("relay_error", { ok: false, error: "token_expired", message: "expired", ids: ["42"] });
  await page.pass(0);
  assert.deepEqual(relay.errors, []);
});

test("a refused token rejects the promise with the relay's code, and is an error event", async () => {
  const page = new Page();
  page.answer.register = () => ({ ok: false, error: "invalid_token", message: "the signature is wrong" });
  const relay = await page.connect();
  const promise = relay.register("42", { token: "bad" });
  await page.pass(0);
  await assert.rejects(promise, { code: "invalid_token", message: "the signature is wrong" });
  assert.deepEqual(relay.errors.map(({ error }) => error), ["invalid_token"]);
});

/** Connect a page whose token function does something at its first call, with a push that waits. */
async function acting(act) {
  const page = new Page();
  const relay = page.Relay.connect();
  const statuses = [];
  relay.on("status", (status) => statuses.push(status));
  let calls = 0;
  relay.register("42", { token: () => calls++ || act(relay) }).catch(() => {});
  const push = relay.push("7", "hello");
  push.catch(() => {});
  await page.pass(100);
  return { relay, statuses, push };
}

test("after close() in a token function, the page is not online", async () => {
  const { relay, statuses, push } = await acting((its) => its.close() && "t");
  assert.deepEqual([relay.status, statuses], ["offline", ["connecting", "offline"]]);
  assert.deepEqual(await outcome(push), ["rejected", "closed"]);
});

test("reconnect() in a token function loses no message that waits", async () => {
  const { relay, statuses, push } = await acting((its) => its.reconnect() && "t");
  assert.deepEqual([relay.status, statuses], ["online", ["connecting", "connecting", "online"]]);
  assert.equal((await outcome(push))[0], "resolved");
});
