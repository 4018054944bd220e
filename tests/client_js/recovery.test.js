// The status after a reconnect: recovered, or lost with the ids, and never one for the other.
"use strict";

const assert = require("node:assert/strict");
const test = require("node:test");
const { Page, plain } = require("./page.js");

/** A page with ids that is cut, and whose registrations are then answered as `answers` says: id -> recovered. */
async function cut(registrations, answers) {
  const page = new Page();
  const relay = await page.connect();
  registrations.forEach((ids) => relay.register(ids));
  await page.pass(0);
  const before = relay.statuses.length;
  page.answer.register = ({ id }) => {
    const ids = [].concat(id);
    const state = (each) => [each, { position: answers[each] ? "e:0" : "f:3", recovered: answers[each], replayed: 0 }];
    return { ok: true, ids: Object.fromEntries(ids.map(state)) };
  };
  page.session.cut();
  await page.pass(1000);
  return { page, relay, statuses: plain(relay.statuses.slice(before + 2)) }; // after offline and connecting
}

test("`recovered` comes once, after `online`, when all registrations are complete", async () => {
  const { statuses } = await cut(["a", "b", ["c", "d"]], { a: true, b: true, c: true, d: true });
  assert.deepEqual(statuses, ["online", ["recovered", []]]);
});

test("`recovered` waits for the last registration", async () => {
  const page = new Page();
  const relay = await page.connect();
  relay.register("a");
  let give;
  relay.register("b", { token: () => new Promise((resolve) => (give = resolve)) });
  await page.pass(0);
  give("t");
  await page.pass(0);
  page.session.cut();
  await page.pass(1000);
  assert.equal(relay.statuses.at(-1), "online");
  give("t");
  await page.pass(0);
  assert.deepEqual(plain(relay.statuses.at(-1)), ["recovered", []]);
});

test("`lost` names the ids of which something is missing, and `recovered` is not said with it", async () => {
  const { statuses } = await cut([["a", "b", "c"]], { a: true, b: false, c: false });
  assert.deepEqual(statuses, ["online", ["lost", ["b", "c"]]]);
});

test("after `lost` in one registration, `recovered` is not said for another", async () => {
  const { statuses } = await cut(["a", "b"], { a: false, b: true });
  assert.deepEqual(statuses, ["online", ["lost", ["a"]]]);
});

test("after `lost`, the id continues from the position in the answer, and the next reconnect recovers", async () => {
  const { page, relay } = await cut(["a"], { a: false });
  page.answer.register = undefined;
  page.session.cut();
  await page.pass(3000);
  assert.deepEqual(page.sent("register").at(-1).since, { a: "f:3" });
  assert.deepEqual(plain(relay.statuses.at(-1)), ["recovered", []]);
});

test("what arrives before the answer is handed over once, also if the answer's position is older or newer", async () => {
  const page = new Page();
  page.answer.register = () => undefined;
  const relay = await page.connect();
  relay.register("42");
  await page.pass(0);
  page.session.publish("42", 1);
  page.session.reply("register", { ok: true, ids: { 42: { position: "e:2", recovered: false, replayed: 0 } } });
  page.session.publish("42", 2);
  page.session.publish("42", 3);
  await page.pass(0);
  assert.deepEqual(relay.handed, [1, 2, 3]);
});

test("a first registration says neither recovered nor lost", async () => {
  const page = new Page();
  const relay = await page.connect();
  await relay.register("42");
  assert.deepEqual(relay.statuses, ["connecting", "online"]);
});

test("registering a live id again, or renewing its token, says nothing", async () => {
  const page = new Page();
  const relay = await page.connect();
  await relay.register("42", { token: () => "t" });
  await relay.register("42");
  await page.pass(100);
  assert.deepEqual(relay.statuses, ["connecting", "online"]);
});

test("unregister() of the only id that is awaited completes the recovery of the others", async () => {
  const page = new Page();
  const relay = await page.connect();
  relay.register("a");
  relay.register("b");
  await page.pass(0);
  const register = page.answer.register;
  page.answer.register = ({ id, since }) => (id[0] === "a" ? { ok: true, ids: { a: { position: since.a, recovered: true } } } : undefined);
  page.session.cut();
  await page.pass(1000);
  assert.equal(relay.statuses.at(-1), "online");
  page.answer.register = register;
  relay.unregister("b");
  await page.pass(0);
  assert.deepEqual(plain(relay.statuses.at(-1)), ["recovered", []]);
});

test("a page that is cut again before it recovered is told once, after the last reconnect", async () => {
  const page = new Page();
  const relay = await page.connect();
  relay.register("a");
  await page.pass(0);
  page.answer.register = () => undefined;
  page.session.cut();
  await page.pass(1000);
  page.answer.register = undefined;
  page.session.cut();
  await page.pass(3000);
  const told = plain(relay.statuses).filter((each) => Array.isArray(each) && each[0] === "recovered");
  assert.deepEqual(told, [["recovered", []]]);
  assert.deepEqual(plain(relay.statuses.at(-1)), ["recovered", []]);
});

test("replayed publications are handed over before `recovered`, in order", async () => {
  const page = new Page();
  const relay = await page.connect();
  relay.register("42");
  await page.pass(0);
  const seen = [];
  relay.on("push", (data) => seen.push(data));
  relay.on("status", (status) => seen.push(status));
  page.answer.register = (payload, session) => {
    [1, 2, 3].forEach((offset) => session.publish("42", offset));
    return { ok: true, ids: { 42: { position: "e:3", recovered: true, replayed: 3 } } };
  };
  page.session.cut();
  await page.pass(1000);
  page.session.publish("42", 4);
  assert.deepEqual(seen.filter((each) => typeof each === "number"), [1, 2, 3, 4]);
  assert.ok(seen.indexOf(3) < seen.indexOf("recovered"));
});
