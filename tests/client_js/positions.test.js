// Positions: where an id continues after a reconnect, in the next page, in a frame, and in several connections.
"use strict";

const assert = require("node:assert/strict");
const test = require("node:test");
const { Browser, Page, plain } = require("./page.js");

/** Load a page, register ids and let time pass until everything is stored. */
async function visit(browser, ids = ["42"], options = {}) {
  const page = new Page({ browser, ...options });
  const relay = await page.connect(undefined, options.url);
  ids.forEach((id) => relay.register(id));
  await page.pass(100);
  return [page, relay];
}

const since = (page) => page.sent("register").map(({ since: position }) => plain(position));

test("the next page of the tab continues after the last publication", async () => {
  const browser = new Browser();
  const [page] = await visit(browser);
  page.session.publish("42", 7);
  await page.fire("pagehide", {});
  assert.deepEqual(browser.positions(), { 42: "e:7" });
  const [next, relay] = await visit(browser);
  assert.deepEqual(since(next), [{ 42: "e:7" }]);
  assert.deepEqual(plain(relay.statuses), ["connecting", "online", ["recovered", []]]);
});

test("an id without a publication keeps the position at which it was registered", async () => {
  const browser = new Browser();
  await visit(browser);
  assert.deepEqual(browser.positions(), { 42: "e:0" });
});

test("an id that is new to the tab begins now, and there is no `recovered`", async () => {
  const [page, relay] = await visit(new Browser());
  assert.deepEqual(since(page), [undefined]);
  assert.deepEqual(relay.statuses, ["connecting", "online"]);
});

test("another tab does not see the positions", async () => {
  const [page] = await visit(new Browser());
  page.session.publish("42", 7);
  await page.pass(50);
  const [other] = await visit(new Browser());
  assert.deepEqual(since(other), [undefined]);
});

test("a publication that was handed over comes once, whatever a replay repeats", async () => {
  const [page, relay] = await visit(new Browser());
  for (const offset of [1, 2, 2, 1, 3, 10, 9, 11]) page.session.publish("42", offset);
  assert.deepEqual(relay.handed, [1, 2, 3, 10, 11]);
});

test("in another epoch every publication is new", async () => {
  const [page, relay] = await visit(new Browser());
  page.session.publish("42", 5);
  page.session.publish("42", 1, "again", "push", "f");
  assert.deepEqual(relay.handed, [5, "again"]);
});

test("a publication without a position is handed over each time", async () => {
  const [page, relay] = await visit(new Browser());
  for (let n = 0; n < 2; n++) page.session.emit("push", { data: "now", destination: "42" });
  assert.deepEqual(relay.handed, ["now", "now"]);
});

test("since: a position, one for each id, or null for now", async () => {
  const browser = new Browser();
  const [first] = await visit(browser, ["a", "b", "c"]);
  for (const id of ["a", "b", "c"]) first.session.publish(id, 9);
  await first.pass(50);
  const page = new Page({ browser });
  const relay = await page.connect();
  relay.register("a", { since: "e:4" });
  relay.register(["b", "c"], { since: { b: "e:5" } });
  await page.pass(0);
  assert.deepEqual(since(page), [{ a: "e:4" }, { b: "e:5", c: "e:9" }]);
  const last = new Page({ browser });
  (await last.connect()).register("a", { since: null });
  await last.pass(0);
  assert.deepEqual(since(last), [undefined]);
});

test("an older `since` of a live id unregisters it first, and everything after it is handed over again", async () => {
  const [page, relay] = await visit(new Browser());
  page.session.publish("42", 3);
  relay.register("42", { since: "e:1" });
  page.session.publish("42", 4); // under way: the replay contains it
  await page.pass(0);
  assert.deepEqual(page.session.events.slice(1).map(([name]) => name), ["unregister", "register"]);
  assert.deepEqual(since(page).at(-1), { 42: "e:1" });
  [2, 3, 4].forEach((offset) => page.session.publish("42", offset));
  assert.deepEqual(relay.handed, [3, 2, 3, 4]);
});

test("since: null for a live id changes nothing", async () => {
  const [page, relay] = await visit(new Browser());
  page.session.publish("42", 3);
  relay.register("42", { since: null });
  await page.pass(0);
  assert.deepEqual(page.sent("unregister"), []);
  assert.deepEqual(since(page).at(-1), { 42: "e:3" });
});

test("a `since` for an id called __proto__ or constructor is its own", async () => {
  const [page, relay] = await visit(new Browser(), []);
  relay.register(["__proto__", "constructor"], { since: JSON.parse('{"__proto__":"e:1"}') });
  await page.pass(0);
  assert.equal(JSON.stringify(page.sent("register")[0].since), '{"__proto__":"e:1"}');
});

test("unregister() forgets the position, also for the next page", async () => {
  const browser = new Browser();
  const [page, relay] = await visit(browser);
  page.session.publish("42", 7);
  await page.pass(50);
  relay.unregister("42");
  await page.pass(50);
  assert.deepEqual(browser.positions(), {});
});

test("close() keeps the position for the next connect()", async () => {
  const [page, relay] = await visit(new Browser());
  page.session.publish("42", 7);
  relay.close();
  relay.connect();
  relay.register("42");
  await page.pass(100);
  assert.deepEqual(since(page).at(-1), { 42: "e:7" });
});

test("a burst is stored in one write", async () => {
  const browser = new Browser();
  const [page] = await visit(browser);
  browser.storage.writes = 0;
  for (let n = 1; n <= 500; n++) page.session.publish("42", n);
  await page.pass(49);
  assert.equal(browser.storage.writes, 0);
  await page.pass(1);
  assert.equal(browser.storage.writes, 1);
  assert.deepEqual(browser.positions(), { 42: "e:500" });
});

test("the newest 100 positions are kept", async () => {
  const browser = new Browser();
  const ids = [...Array(101).keys()].map((n) => "id" + n);
  const [page] = await visit(browser, ids);
  assert.deepEqual([Object.keys(browser.positions()).length, browser.positions().id0], [100, undefined]);
  page.session.publish("id1", 5);
  await page.pass(50);
  page.session.publish("id0", 6);
  await page.pass(50);
  const kept = browser.positions();
  assert.deepEqual([kept.id0, kept.id1, kept.id2, Object.keys(kept).length], ["e:6", "e:5", undefined, 100]);
});

test("positions that are not valid are not stored", async () => {
  const browser = new Browser();
  const page = new Page({ browser });
  const relay = await page.connect();
  relay.register("a", { since: "acked" });
  relay.register("b", { inbox: true });
  page.answer.register = () => undefined;
  await page.pass(100);
  assert.deepEqual(Object.keys(browser.positions()).filter((id) => !/^e:\d+$/.test(browser.positions()[id])), []);
});

test("two relays in one page have two items", async () => {
  const browser = new Browser();
  const page = new Page({ browser });
  for (const url of ["http://relay.test/", "http://other.test/"]) (await page.connect(undefined, url)).register("42");
  await page.pass(100);
  assert.deepEqual([...browser.storage.items.keys()], ["http://relay.test/socket.io/", "http://other.test/socket.io/"]);
});

test("two connections of a page have a position each, and so has their counterpart in the next page", async () => {
  const browser = new Browser();
  const page = new Page({ browser });
  for (let n = 1; n <= 2; n++) {
    const relay = await page.connect();
    relay.register("42");
    await page.pass(0);
    page.session.publish("42", n);
  }
  await page.pass(50);
  assert.deepEqual([browser.positions(), browser.positions("#")], [{ 42: "e:1" }, { 42: "e:2" }]);
  const next = new Page({ browser });
  for (let n = 1; n <= 2; n++) (await next.connect()).register("42");
  await next.pass(0);
  assert.deepEqual(since(next), [{ 42: "e:1" }, { 42: "e:2" }]);
});

test("a connection that closes leaves its item to the next one", async () => {
  const browser = new Browser();
  const [page, relay] = await visit(browser);
  page.session.publish("42", 7);
  relay.close();
  const other = await page.connect();
  other.register("42");
  await page.pass(100);
  assert.deepEqual(since(page).at(-1), { 42: "e:7" });
  assert.equal(browser.storage.items.size, 1);
});

test("a frame keeps and reads nothing, so it hides no gap from its page", async () => {
  const browser = new Browser();
  const [page] = await visit(browser);
  page.session.publish("42", 1);
  const [frame] = await visit(browser, ["42"], { top: page });
  assert.deepEqual(since(frame), [undefined]);
  frame.session.publish("42", 2);
  await frame.pass(100);
  await page.pass(100);
  assert.deepEqual(browser.positions(), { 42: "e:1" });
  frame.session.cut();
  await frame.pass(1000);
  assert.deepEqual(since(frame).at(-1), { 42: "e:2" });
});

test("with storage denied or full, recovery works within the page", async () => {
  for (const fault of ["isStorageDenied", "isFull"]) {
    const browser = new Browser();
    (fault === "isFull" ? browser.storage : browser)[fault] = true;
    const [page, relay] = await visit(browser);
    page.session.publish("42", 7);
    await page.pass(50);
    page.session.cut();
    await page.pass(1000);
    assert.deepEqual(since(page).at(-1), { 42: "e:7" });
    assert.deepEqual(plain([relay.statuses.at(-1), page.reported, page.warnings]), [["recovered", []], [], []]);
  }
});

test("an item in storage that is not ours does no harm", async () => {
  for (const value of ["{", "7", '"text"', "[1]", "null"]) {
    const browser = new Browser();
    browser.storage.setItem("http://relay.test/socket.io/", value);
    const [, relay] = await visit(browser);
    assert.equal(relay.status, "online");
  }
});
