// Registrations: one for the same ids, kept until unregister(), counted by handle, and repeated after each reconnect.
"use strict";

const assert = require("node:assert/strict");
const test = require("node:test");
const { Page, outcome, plain } = require("./page.js");

/** Let the relay not answer this event until session.reply(). */
const hold = (page, name) => (page.answer[name] = () => undefined);

const ids = (page, name = "register") => page.sent(name).map(({ id }) => id);

test("register() resolves with the relay's answer", async () => {
  const page = new Page();
  const relay = await page.connect();
  const answer = plain(await relay.register(["a", "b"]));
  assert.deepEqual(Object.keys(answer.ids), ["a", "b"]);
  assert.deepEqual(plain(page.sent("register")), [{ id: ["a", "b"] }]);
});

test("one id is sent as text, several as a list; numbers and BigInts count as text", async () => {
  const page = new Page();
  const relay = await page.connect();
  for (const id of [42, 2n ** 70n, ["x"], [1, "y"]]) relay.register(id);
  await page.pass(0);
  assert.deepEqual(ids(page), ["42", "1180591620717411303424", "x", ["1", "y"]]);
});

test("an id that JavaScript may have rounded, or that is none, is refused and not sent", async () => {
  const page = new Page();
  const relay = await page.connect();
  for (const id of [2 ** 53, 1.5, NaN, null, undefined, {}, true, [[1]]]) {
    assert.deepEqual(await outcome(relay.register(id)), ["rejected", "invalid_id"], String(id));
    assert.deepEqual(await outcome(relay.presence(id)), ["rejected", "invalid_id"], String(id));
  }
  assert.deepEqual(ids(page), []);
});

test("the `since` of a refused registration does not count for the next one", async () => {
  const page = new Page();
  const refuse = ({ since }) => (since["42"] === 5 ? { ok: false, error: "invalid_since" } : { ok: true, ids: {} });
  page.answer.register = refuse;
  const relay = await page.connect();
  assert.deepEqual(await outcome(relay.register("42", { since: 5 })), ["rejected", "invalid_since"]);
  assert.equal((await relay.register("42")).ok, true);
});

test("a registration made before the connection is sent as soon as it is there", async () => {
  const page = new Page();
  const relay = page.Relay.connect();
  const promise = relay.register("42");
  await page.pass(0);
  assert.equal((await promise).ok, true);
});

test("after a reconnect all registrations are sent again, with their positions", async () => {
  const page = new Page();
  const relay = await page.connect();
  relay.register("a", { token: "t" });
  relay.register(["b", "c"]);
  await page.pass(0);
  page.session.publish("b", 7);
  page.session.cut();
  await page.pass(1000);
  assert.deepEqual(plain(page.sent("register").slice(2)), [
    { id: "a", token: "t", since: { a: "e:0" } },
    { id: ["b", "c"], since: { b: "e:7", c: "e:0" } },
  ]);
});

test("the same registration is sent once until its answer; all promises get it", async () => {
  const page = new Page();
  hold(page, "register");
  const relay = await page.connect();
  const promises = [];
  for (let n = 0; n < 1500; n++) promises.push(relay.register("42"));
  await page.pass(0);
  assert.equal(ids(page).length, 1);
  page.session.reply("register", { ok: true, ids: { 42: { position: "e:0", recovered: false } } });
  const answers = await Promise.all(promises);
  assert.equal(answers.filter(({ ok }) => ok).length, 1500);
  page.session.cut();
  await page.pass(1000);
  assert.equal(ids(page).length, 2);
});

test("a registration that is repeated after its answer is sent again, and answered", async () => {
  const page = new Page();
  const relay = await page.connect();
  await relay.register("42");
  assert.equal((await relay.register("42")).ok, true);
  assert.deepEqual(ids(page), ["42", "42"]);
});

test("two registrations of an id that both wait get an answer each", async () => {
  const page = new Page();
  page.websocket = page.polling = "refused";
  const relay = await page.connect();
  const promises = [relay.register("42", { token: "a" }), relay.register("42", { token: "b" })];
  page.websocket = "works";
  await page.pass(2000);
  assert.deepEqual((await Promise.all(promises)).map(({ ok }) => ok), [true, true]);
  assert.deepEqual(page.sent("register").map(({ token }) => token), ["a", "b"]);
});

test("repeated registrations while offline are one", async () => {
  const page = new Page();
  page.websocket = page.polling = "refused";
  const relay = await page.connect();
  for (let n = 0; n < 500; n++) relay.register("42");
  page.websocket = "works";
  await page.pass(2000);
  assert.deepEqual(ids(page), ["42"]);
});

test("other options make another registration, and the newest replaces the older ones", async () => {
  const page = new Page();
  const relay = await page.connect();
  await relay.register("42", { token: "old" });
  await relay.register("42", { token: "new" });
  page.session.cut();
  await page.pass(1000);
  assert.deepEqual(page.sent("register").map(({ token }) => token), ["old", "new", "new"]);
});

test("a new registration takes its ids out of an older list", async () => {
  const page = new Page();
  const relay = await page.connect();
  await relay.register(["a", "b"]);
  await relay.register("b");
  page.session.cut();
  await page.pass(1000);
  assert.deepEqual(ids(page), [["a", "b"], "b", "a", "b"]);
});

test("unregister() is sent, and forgets: the next connection does not register", async () => {
  const page = new Page();
  const relay = await page.connect();
  relay.register(["a", "b"]);
  await page.pass(0);
  assert.deepEqual(plain(await relay.unregister("a")), { ok: true });
  assert.deepEqual(ids(page, "unregister"), [["a"]]);
  page.session.cut();
  await page.pass(1000);
  assert.deepEqual(ids(page), [["a", "b"], "b"]);
});

test("unregister() while offline is done at once", async () => {
  const page = new Page();
  const relay = await page.connect();
  await relay.register("a");
  page.session.cut();
  assert.deepEqual(await outcome(relay.unregister("a")), ["resolved", { ok: true }]);
  await page.pass(1000);
  assert.deepEqual(ids(page), ["a"]);
});

test("unregister() succeeds even if the connection ends before its answer", async () => {
  const page = new Page();
  hold(page, "unregister");
  const relay = await page.connect();
  await relay.register("a");
  const promise = relay.unregister("a");
  await page.pass(0);
  page.session.cut();
  assert.deepEqual(await outcome(promise), ["resolved", { ok: true }]);
});

test("what is under way when an id is unregistered is not handed over", async () => {
  const page = new Page();
  hold(page, "unregister");
  const relay = await page.connect();
  await relay.register("42");
  page.session.publish("42", 1);
  relay.unregister("42");
  for (let n = 2; n < 15; n++) page.session.publish("42", n);
  page.session.reply("unregister", { ok: true });
  page.session.publish("42", 15);
  await page.pass(0);
  assert.deepEqual(relay.handed, [1]);
});

test("after unregister(), a new registration begins now, although publications are still under way", async () => {
  const page = new Page();
  hold(page, "unregister");
  hold(page, "register");
  const relay = await page.connect();
  relay.register("42");
  await page.pass(0);
  page.session.reply("register", { ok: true, ids: { 42: { position: "e:0", recovered: false } } });
  await page.pass(0);
  relay.unregister("42");
  relay.register("42");
  page.session.publish("42", 1);
  await page.pass(0);
  assert.deepEqual(relay.handed, []);
  assert.equal("since" in page.sent("register")[1], false);
  page.session.reply("unregister", { ok: true });
  page.session.reply("register", { ok: true, ids: { 42: { position: "e:1", recovered: false } } });
  page.session.publish("42", 2);
  await page.pass(0);
  assert.deepEqual(relay.handed, [2]);
});

test("unregister() rejects a registration that has no answer yet with `closed`, without an error event", async () => {
  const page = new Page();
  hold(page, "register");
  const relay = await page.connect();
  const promise = relay.register("42");
  await page.pass(0);
  relay.unregister("42");
  assert.deepEqual(await outcome(promise), ["rejected", "closed"]);
  assert.deepEqual([relay.errors, page.warnings], [[], []]);
});

test("register, unregister, register, as React's StrictMode does, ends registered", async () => {
  const page = new Page();
  const relay = await page.connect();
  const first = relay.register("42");
  first.catch(() => {});
  first.leave();
  const second = relay.register("42");
  await page.pass(0);
  assert.equal((await second).ok, true);
  page.session.publish("42", 1);
  assert.deepEqual(relay.handed, [1]);
  page.session.cut();
  await page.pass(1000);
  assert.deepEqual(ids(page).at(-1), "42");
});

test("an id is unregistered when the last of its handles leaves; a handle counts once", async () => {
  const page = new Page();
  const relay = await page.connect();
  const one = relay.register("42");
  const two = relay.register(["42", "7"]);
  await page.pass(0);
  one.leave();
  one.leave();
  await page.pass(0);
  assert.deepEqual(ids(page, "unregister"), []);
  two.leave();
  await page.pass(0);
  assert.deepEqual(ids(page, "unregister"), [["42", "7"]]);
});

test("after unregister(), an old handle's leave() does not end a new registration", async () => {
  const page = new Page();
  const relay = await page.connect();
  const old = [relay.register("42"), relay.register("42")];
  await page.pass(0);
  relay.unregister("42");
  relay.register("42");
  await page.pass(0);
  old.forEach((handle) => handle.leave());
  await page.pass(0);
  assert.equal(ids(page, "unregister").length, 1);
});

test("a call like one that waits, but of which an id was unregistered, is another registration", async () => {
  const page = new Page();
  page.answer.register = () => undefined;
  const relay = await page.connect();
  relay.register(["a", "b"]);
  await page.pass(0);
  relay.unregister("a");
  relay.register(["a", "b"]);
  await page.pass(0);
  assert.deepEqual(ids(page), [["a", "b"], ["a", "b"]]);
});

test("a refusal rejects the promise, is an error event, and the id is not registered again", async () => {
  const page = new Page();
  page.answer.register = () => ({ ok: false, error: "not_allowed", message: "no" });
  const relay = await page.connect();
  assert.deepEqual(await outcome(relay.register("42")), ["rejected", "not_allowed"]);
  assert.deepEqual(plain(relay.errors), [{ error: "not_allowed", message: "no" }]);
  page.session.cut();
  await page.pass(1000);
  assert.equal(ids(page).length, 1);
});

test("without an error handler a refusal is a line on the console", async () => {
  const page = new Page();
  page.answer.register = () => ({ ok: false, error: "not_allowed", message: "no" });
  const relay = page.Relay.connect();
  relay.register("42").catch(() => {});
  await page.pass(0);
  assert.deepEqual(page.warnings.map((line) => line.slice(0, 2)), [["relay:", "no"]]);
});

test("a refusal after a reconnect is an error event without `recovered`, and the next connection tries again", async () => {
  const page = new Page();
  const relay = await page.connect();
  await relay.register("42");
  page.answer.register = () => ({ ok: false, error: "not_allowed", message: "no" });
  page.session.cut();
  await page.pass(1000);
  assert.deepEqual(relay.errors.map(({ error }) => error), ["not_allowed"]);
  assert.equal(relay.statuses.at(-1), "online");
  page.answer.register = undefined;
  page.session.cut();
  await page.pass(3000);
  assert.equal(ids(page).length, 3);
  assert.deepEqual(plain(relay.statuses.at(-1)), ["recovered", []]);
});

test("temporary refusals are repeated with increasing waits, with one error event, and the promise stays pending", async () => {
  for (const error of ["too_many_events", "store_not_available", "auth_not_available"]) {
    const page = new Page();
    const times = [];
    page.answer.register = () => (times.push(page.now - page.began), { ok: false, error, message: "later" });
    const relay = await page.connect();
    const promise = relay.register("42");
    await page.pass(500 + 1000 + 2000);
    assert.deepEqual(times, [0, 500, 1500, 3500]);
    assert.equal(await outcome(promise), "pending");
    assert.deepEqual(plain(relay.errors), [{ error, message: "later", ids: ["42"] }]);
    page.answer.register = undefined;
    await page.pass(4000);
    assert.equal((await promise).ok, true);
  }
});

test("a refused list leaves other registrations of its ids alive", async () => {
  const page = new Page();
  const relay = await page.connect();
  await relay.register("a");
  page.answer.register = () => ({ ok: false, error: "not_allowed", message: "no" });
  assert.deepEqual(await outcome(relay.register(["a", "b"])), ["rejected", "not_allowed"]);
  page.answer.register = undefined;
  page.session.cut();
  await page.pass(1000);
  assert.deepEqual(ids(page).at(-1), "a");
});

test("an answer that the connection's end overtakes comes with the next connection", async () => {
  const page = new Page();
  hold(page, "register");
  const relay = await page.connect();
  const promise = relay.register("42");
  await page.pass(0);
  page.session.cut();
  assert.deepEqual(await outcome(promise), "pending");
  page.answer.register = undefined;
  await page.pass(1000);
  assert.equal((await promise).ok, true);
});

test("a closed connection refuses everything with `closed`, without an error event", async () => {
  const page = new Page();
  const relay = await page.connect();
  relay.close();
  for (const promise of [relay.register("42"), relay.unregister("42"), relay.push("42", 1)]) {
    assert.deepEqual(await outcome(promise), ["rejected", "closed"]);
  }
  assert.deepEqual([relay.errors, page.warnings], [[], []]);
});

test("close() rejects what waits for an answer with `closed`", async () => {
  const page = new Page();
  hold(page, "register");
  hold(page, "push");
  const relay = await page.connect();
  const promises = [relay.register("42"), relay.push("42", 1)];
  await page.pass(0);
  relay.close();
  for (const promise of promises) assert.deepEqual(await outcome(promise), ["rejected", "closed"]);
  assert.deepEqual(relay.errors, []);
});

test("a refused call does not count: the next handle's leave() unregisters the id, and its own leave() does nothing", async () => {
  const page = new Page();
  const relay = await page.connect();
  page.answer.register = () => ({ ok: false, error: "not_allowed", message: "no" });
  const refused = relay.register("42");
  assert.deepEqual(await outcome(refused), ["rejected", "not_allowed"]);
  delete page.answer.register;
  const seat = relay.register("42");
  await page.pass(0);
  refused.leave();
  await page.pass(0);
  assert.deepEqual(ids(page, "unregister"), []);
  seat.leave();
  await page.pass(0);
  assert.deepEqual(ids(page, "unregister"), [["42"]]);
});
