// Members of a destination: relay.presence(), its list and its events, over reconnects and restarts.
"use strict";

const assert = require("node:assert/strict");
const test = require("node:test");
const { Page, outcome, plain } = require("./page.js");

const member = (id, info = {}) => ({ id, info, since: 1 });

/** Open a page whose relay has these members. `page.members` changes what it answers. */
async function start(...ids) {
  const page = new Page();
  page.members = ids.map((id) => member(id));
  page.version = 10;
  page.extra = {}; // of the answer
  page.answer.presence = ({ id, watch }) =>
    watch === false ? { ok: true, id } : { ok: true, id, members: page.members, version: page.version, ...page.extra };
  const relay = await page.connect();
  return { page, relay };
}

/** Note the events of a room. */
function listen(room) {
  const events = [];
  room.on("join", ({ id }) => events.push("+" + id));
  room.on("leave", ({ id }) => events.push("-" + id));
  room.on("change", (members) => events.push(members.map(({ id }) => id).join("")));
  return events;
}

const emit = (page, version, ...events) => page.session.emit("relay_presence", { destination: "room", version, events });
const names = (room) => room.members.map(({ id }) => id).join("");

test("presence() resolves with a room that has the members, and tells who joins and leaves", async () => {
  const { page, relay } = await start("a", "b");
  const room = await relay.presence("room", { token: "t" });
  assert.deepEqual(page.sent("presence"), [{ id: "room", token: "t" }]);
  assert.deepEqual(plain(room.members), [member("a"), member("b")]);
  const events = listen(room);
  emit(page, 11, { join: member("c", { name: "Cy" }) }, { leave: "a" });
  emit(page, 13, { leave: "b" });
  assert.deepEqual(events, ["+c", "-a", "bc", "-b", "c"]);
  assert.deepEqual(plain(room.members), [member("c", { name: "Cy" })]);
  assert.deepEqual([relay.errors, relay.handed], [[], []]);
});

test("the handlers of leave get the member as it was", async () => {
  const { page, relay } = await start();
  page.members = [member("a", { name: "Ann" })];
  const room = await relay.presence("room", null);
  const left = [];
  room.on("leave", (each) => left.push(each));
  emit(page, 11, { leave: "a" });
  assert.deepEqual(plain(left), [member("a", { name: "Ann" })]);
});

test("a member whose info changes is a change, and no join", async () => {
  const { page, relay } = await start("a");
  const room = await relay.presence("room");
  const events = listen(room);
  emit(page, 11, { join: member("a", { name: "Ann" }) });
  assert.deepEqual(events, ["a"]);
  assert.equal(room.members[0].info.name, "Ann");
});

test("events that the list contains change nothing, and those before the answer neither", async () => {
  const { page, relay } = await start("a");
  page.answer.presence = () => undefined;
  const promise = relay.presence("room");
  await page.pass(0);
  emit(page, 9, { join: member("x") });
  page.session.reply("presence", { ok: true, id: "room", members: [member("a")], version: 10 });
  const room = await promise;
  const events = listen(room);
  emit(page, 9, { join: member("y") });
  assert.deepEqual(events, []);
  emit(page, 9, { join: member("y") }, { leave: "a" }, { join: member("z") });
  assert.deepEqual([names(room), events], ["az", ["+z", "az"]]);
});

test("events of another destination change nothing", async () => {
  const { page, relay } = await start("a");
  const room = await relay.presence("room");
  page.session.emit("relay_presence", { destination: "other", version: 11, events: [{ leave: "a" }] });
  assert.equal(names(room), "a");
});

test("unregister() of a destination does not end the events of its members", async () => {
  const { page, relay } = await start("a");
  await relay.register("room");
  const room = await relay.presence("room");
  await relay.unregister("room");
  emit(page, 11, { join: member("b") });
  assert.equal(names(room), "ab");
});

test("after a reconnect the page asks again, and gets the differences as events", async () => {
  const { page, relay } = await start("a", "b");
  const room = await relay.presence("room");
  const events = listen(room);
  page.members = [member("b"), member("c")];
  page.version = 3; // another relay
  page.session.cut();
  assert.equal(names(room), "ab");
  await page.pass(1000);
  assert.deepEqual(events, ["+c", "-a", "bc"]);
  emit(page, 4, { leave: "c" });
  assert.equal(names(room), "b");
  assert.equal(page.sent("presence").length, 2);
});

test("a reconnect with the same members makes no join and no leave", async () => {
  const { page, relay } = await start("a", "b");
  const events = listen(await relay.presence("room"));
  page.session.cut();
  await page.pass(5000);
  assert.deepEqual(events.filter((each) => /[+-]/.test(each)), []);
});

test("two rooms of a destination share one watch: each has its handlers, and the last leave() ends it", async () => {
  const { page, relay } = await start("a");
  const one = await relay.presence("room");
  const two = await relay.presence("room");
  const [first, second] = [listen(one), listen(two)];
  emit(page, 11, { join: member("b") });
  one.leave();
  emit(page, 12, { join: member("c") });
  assert.deepEqual([first, second], [["+b", "ab"], ["+b", "ab", "+c", "abc"]]);
  assert.equal(page.sent("presence").filter(({ watch }) => watch === false).length, 0);
  two.leave();
  await page.pass(0);
  assert.deepEqual(page.sent("presence").at(-1), { id: "room", watch: false });
  emit(page, 13, { join: member("d") });
  page.session.cut();
  await page.pass(1000);
  assert.deepEqual([names(two), page.sent("presence").length], ["abc", 3]);
});

test("the list for a second room reaches the first one too, because its events begin after that list", async () => {
  const { page, relay } = await start("a");
  const one = await relay.presence("room");
  const events = listen(one);
  page.members = [member("a"), member("b")];
  page.version = 11;
  await relay.presence("room");
  emit(page, 12, { join: member("c") });
  assert.deepEqual([names(one), events.filter((each) => each[0] === "+")], ["abc", ["+b", "+c"]]);
});

test("leave() of the promise undoes a call that has no answer yet", async () => {
  const { page, relay } = await start();
  page.answer.presence = () => undefined;
  const promise = relay.presence("room");
  await page.pass(0);
  promise.leave();
  assert.deepEqual(await outcome(promise), ["rejected", "closed"]);
  assert.deepEqual(page.sent("presence"), [{ id: "room" }, { id: "room", watch: false }]);
  assert.deepEqual(relay.errors, []);
});

test("a refusal rejects the promise and is an error event, and the page does not ask again", async () => {
  const { page, relay } = await start();
  page.answer.presence = () => ({ ok: false, error: "not_allowed", message: "no" });
  const promise = relay.presence("room");
  assert.deepEqual(await outcome(promise), ["rejected", "not_allowed"]);
  assert.equal(relay.errors[0].error, "not_allowed");
  page.session.cut();
  await page.pass(1000);
  assert.equal(page.sent("presence").length, 1);
  promise.leave();
});

test("a refusal after a reconnect is an error event, the members stay, and the next connection asks again", async () => {
  const { page, relay } = await start("a");
  const room = await relay.presence("room");
  const { presence } = page.answer;
  page.answer.presence = () => ({ ok: false, error: "not_allowed", message: "no" });
  page.session.cut();
  await page.pass(1000);
  assert.deepEqual([relay.errors.map(({ error }) => error), names(room)], [["not_allowed"], "a"]);
  page.answer.presence = presence;
  page.members = [member("b")];
  page.session.cut();
  await page.pass(2000);
  assert.equal(names(room), "b");
});

test("temporary refusals are repeated", async () => {
  const { page, relay } = await start("a");
  const { presence } = page.answer;
  page.answer.presence = () => ({ ok: false, error: "auth_not_available", message: "later" });
  const promise = relay.presence("room");
  await page.pass(400);
  page.answer.presence = presence;
  await page.pass(600);
  assert.equal(names(await promise), "a");
});

test("without a token, presence() uses that of the last register(), also a function", async () => {
  const { page, relay } = await start();
  let count = 0;
  await relay.register("42", { token: async () => "t" + ++count });
  await relay.register("7");
  await relay.presence("room");
  page.session.cut();
  await page.pass(1000);
  assert.deepEqual(page.sent("presence").map(({ token }) => token), ["t2", "t4"]);
});

test("a token function is called again when nine tenths of its time are over", async () => {
  const { page, relay } = await start("a");
  let count = 0;
  page.extra = { expires_in: 100 };
  const room = await relay.presence("room", { token: () => "t" + ++count });
  await page.pass(90_000);
  assert.deepEqual(page.sent("presence").map(({ token }) => token), ["t1", "t2"]);
  room.leave();
  await page.pass(200_000);
  assert.equal(count, 2);
});

test("presence() before the page is online is answered when it is", async () => {
  const { page } = await start("a");
  const relay = page.Relay.connect();
  const promise = relay.presence("room");
  await page.pass(0);
  assert.equal(names(await promise), "a");
});

test("close() rejects what waits, and nobody leaves any more", async () => {
  const { page, relay } = await start("a");
  const room = await relay.presence("room");
  const events = listen(room);
  page.answer.presence = () => undefined;
  const promise = relay.presence("other");
  relay.close();
  assert.deepEqual(await outcome(promise), ["rejected", "closed"]);
  assert.deepEqual(await outcome(relay.presence("room")), ["rejected", "closed"]);
  await page.pass(10_000);
  assert.deepEqual(events, []);
  room.leave();
});

test("after close(), presence() does not use the token of the user before", async () => {
  const { page, relay } = await start();
  await relay.register("42", { token: "t" });
  relay.close().connect();
  await relay.presence("room");
  assert.deepEqual(page.sent("presence"), [{ id: "room", token: null }]);
});

test("a list of members is no publication, and io() hands its events over as they are", async () => {
  const { page } = await start();
  const socket = page.io();
  const packets = [];
  socket.on("relay_presence", (packet) => packets.push(packet));
  await page.pass(0);
  emit(page, 11, { leave: "a" });
  assert.deepEqual(plain(packets), [{ destination: "room", version: 11, events: [{ leave: "a" }] }]);
  socket.emit("register", { id: "room" }).emit("unregister", { id: "room" });
  await page.pass(0);
  emit(page, 12, { leave: "b" });
  assert.equal(packets.length, 2);
});
