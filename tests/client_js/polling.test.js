// Long polling: batches, the places to poll, and rest.
"use strict";

const assert = require("node:assert/strict");
const test = require("node:test");
const { Browser, Page, plain, settle } = require("./page.js");

/** A page that polls. */
async function polling(options, page = new Page()) {
  const relay = await page.connect({ transports: ["polling"], ...options });
  return [page, relay];
}

test("publications arrive by long polling, several in one response", async () => {
  const [page, relay] = await polling();
  relay.register("42");
  await page.pass(0);
  page.session.publish("42", 1);
  page.session.publish("42", 2);
  await page.pass(0);
  page.session.publish("42", 3);
  await page.pass(0);
  assert.deepEqual(relay.handed, [1, 2, 3]);
});

test("packets that are sent together are one POST", async () => {
  const [page, relay] = await polling();
  for (let n = 0; n < 30; n++) relay.register("id" + n);
  await page.pass(0);
  assert.equal(page.sent("register").length, 30);
  assert.ok(page.session.posts.length <= 3, String(page.session.posts));
});

test("a POST is never larger than maxPayload, in bytes", async () => {
  const page = new Page();
  page.handshake = { maxPayload: 600 };
  const bodies = [];
  const [, relay] = await polling({}, page);
  page.posting = (session, body) => {
    bodies.push(body);
    body.split("\x1e").forEach((packet) => session.receive(packet));
    return Promise.resolve({ ok: true, text: async () => "ok" });
  };
  for (let n = 0; n < 20; n++) relay.push("42", "ü€".repeat(10)).catch(() => {});
  await page.pass(0);
  assert.equal(page.sent("push").length, 20);
  assert.ok(bodies.length > 1 && bodies.length < 20, String(bodies.length));
  assert.ok(bodies.every((body) => Buffer.byteLength(body) <= 600));
});

test("a packet that leaves too little room for others is sent alone", async () => {
  const page = new Page();
  page.handshake = { maxPayload: 300 };
  const [, relay] = await polling({}, page);
  for (const length of [200, 5]) relay.push("42", "x".repeat(length));
  await page.pass(0);
  assert.deepEqual(page.session.posts.slice(-2), [1, 1]);
});

test("a POST has at most 1000 packets", async () => {
  const [page, relay] = await polling();
  for (let n = 0; n < 2500; n++) relay.push("42", n).catch(() => {});
  await page.pass(0);
  assert.equal(page.sent("push").length, 2500);
  assert.ok(Math.max(...page.session.posts) <= 1000);
});

test("a POST waits for the one before it, so nothing overtakes", async () => {
  const [page, relay] = await polling();
  const held = [];
  page.posting = (session, body) => new Promise((resolve) => held.push({ body, resolve }));
  relay.push("42", "first");
  await page.pass(0);
  relay.push("42", "second");
  await page.pass(0);
  assert.equal(held.length, 1);
  held[0].resolve({ ok: true, text: async () => "ok" });
  await page.pass(0);
  assert.equal(held.length, 2);
  assert.match(held[1].body, /second/);
});

test("what follows a disconnect in the same response is not heard", async () => {
  const [page, relay] = await polling();
  relay.register("42");
  await page.pass(0);
  page.session.outbox.push("41");
  page.session.publish("42", 1);
  await page.pass(0);
  assert.equal(relay.statuses.at(-1)[1].reason, "io server disconnect");
  assert.deepEqual(relay.handed, []);
});

test("a request that fails ends the connection, and the page comes back", async () => {
  const [page, relay] = await polling();
  page.session.cut();
  await page.pass(0);
  assert.equal(relay.statuses.at(-1)[1].reason, "transport error");
  await page.pass(1000);
  assert.equal(relay.status, "online");
});

test("close() tells the relay, and ends the poll", async () => {
  const [page, relay] = await polling();
  relay.close();
  await page.pass(0);
  assert.deepEqual([page.session.packets.at(-1), page.session.waiting], ["1", null]);
});

test("at most three pages of a browser poll; a hidden fourth page rests", async () => {
  const browser = new Browser();
  const relays = [];
  for (let n = 0; n < 4; n++) relays.push((await polling({ rest: 0 }, new Page({ browser, isHidden: n === 3 })))[1]);
  assert.deepEqual(relays.map(({ status }) => status), ["online", "online", "online", "resting"]);
});

test("a visible page takes a place from another page, which rests", async () => {
  const browser = new Browser();
  const relays = [];
  for (let n = 0; n < 4; n++) relays.push((await polling({}, new Page({ browser })))[1]);
  assert.equal(relays[3].status, "online");
  assert.equal(relays.filter(({ status }) => status === "resting").length, 1);
  assert.deepEqual(plain(relays.find(({ status }) => status === "resting").statuses.at(-1)[1]), { reason: "no place" });
});

test("a visible page that lost its place takes one again within a second", async () => {
  const browser = new Browser();
  const pages = [];
  for (let n = 0; n < 4; n++) pages.push((await polling({}, new Page({ browser })))[0]);
  const loser = pages.find((page) => !page.session.isOpen);
  await loser.pass(499); // the wait is random, and Math.random() returns 0.5
  assert.equal(loser.sessions.length, 1);
  await loser.pass(1);
  assert.equal(loser.sessions.length, 2);
});

test("a hidden page that lost its place rests until it is visible", async () => {
  const browser = new Browser();
  const pages = [];
  for (let n = 0; n < 4; n++) {
    pages.push((await polling({}, new Page({ browser })))[0]);
    if (n < 3) await pages[n].hide();
  }
  const loser = pages.find((page) => !page.session.isOpen);
  await loser.pass(600_000);
  assert.equal(loser.sessions.length, 1);
  await loser.show();
  await loser.pass(0);
  assert.equal(loser.sessions.length, 2);
});

test("a page that closes gives its place to another", async () => {
  const browser = new Browser();
  const relays = [];
  for (let n = 0; n < 3; n++) relays.push((await polling({}, new Page({ browser })))[1]);
  relays[1].close();
  await settle();
  const [, fourth] = await polling({}, new Page({ browser, isHidden: true }));
  assert.equal(fourth.status, "online");
  assert.deepEqual([relays[0].status, relays[2].status], ["online", "online"]);
});

test("without Web Locks, every page polls", async () => {
  const browser = new Browser();
  for (const navigator of [undefined, {}]) {
    for (let n = 0; n < 5; n++) assert.equal((await polling({}, new Page({ browser, scope: { navigator } })))[1].status, "online");
  }
});

test("if locks are denied, the page polls", async () => {
  const locks = { request: () => Promise.reject(new Error("SecurityError")) };
  const [, relay] = await polling({}, new Page({ scope: { navigator: { locks } } }));
  assert.equal(relay.status, "online");
});

test("a hidden page that polls rests after 10 seconds, and is back at once when it is visible", async () => {
  const [page, relay] = await polling();
  relay.register("42");
  await page.hide();
  await page.pass(9999);
  assert.equal(relay.status, "online");
  await page.pass(1);
  assert.deepEqual(plain(relay.statuses.at(-1)), ["resting", { reason: "hidden" }]);
  await page.pass(600_000);
  assert.equal(page.sessions.length, 1);
  await page.show();
  await page.pass(0);
  assert.equal(relay.status, "online");
  assert.deepEqual(plain(relay.statuses.at(-1)), ["recovered", []]);
});

test("a page that is visible again within 10 seconds keeps its connection", async () => {
  const [page, relay] = await polling();
  await page.hide();
  await page.pass(6000);
  await page.show();
  await page.pass(6000);
  await page.hide();
  await page.pass(9999);
  assert.deepEqual([relay.status, page.sessions.length], ["online", 1]);
});

test("a page that is loaded hidden rests too", async () => {
  const [page, relay] = await polling({}, new Page({ isHidden: true }));
  await page.pass(10_000);
  assert.equal(relay.status, "resting");
});

test("a hidden page with WebSocket keeps its connection, unless `rest` is set", async () => {
  for (const [options, status] of [[{}, "online"], [{ rest: 30 }, "resting"]]) {
    const page = new Page();
    const relay = await page.connect(options);
    await page.hide();
    await page.pass(29_999);
    assert.equal(relay.status, "online");
    await page.pass(1);
    assert.equal(relay.status, status);
  }
});

test("rest: 0 and an inbox keep a hidden page's poll", async () => {
  for (const [options, inbox] of [[{ rest: 0 }, false], [{}, true]]) {
    const [page, relay] = await polling(options);
    relay.register("42", { inbox });
    await page.pass(0);
    await page.hide();
    await page.pass(20_000);
    assert.equal(relay.status, "online");
  }
});

test("register(), push() and unregister() wake a page that rests", async () => {
  for (const act of [(relay) => relay.register("7"), (relay) => relay.push("7", 1)]) {
    const [page, relay] = await polling();
    await page.hide();
    await page.pass(10_000);
    assert.equal(relay.status, "resting");
    act(relay);
    await page.pass(0);
    assert.equal(relay.status, "online");
  }
});

test("a resting page ignores that the network is back, until it is visible", async () => {
  const [page, relay] = await polling();
  await page.hide();
  await page.pass(10_000);
  await page.fire("online");
  await page.pass(5000);
  assert.equal(relay.status, "resting");
});
