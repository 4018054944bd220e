// When the next attempt comes: random waits, their bounds, and what the relay asks for.
"use strict";

const assert = require("node:assert/strict");
const test = require("node:test");
const { Page, plain } = require("./page.js");

/** A page that never gets a connection. */
async function away(random, options) {
  const page = new Page();
  page.websocket = "refused";
  page.polling = "refused";
  page.random = random;
  return [page, await page.connect(options)];
}

/** The waits that the page was given with `offline`. */
const waits = (relay) => relay.statuses.filter(([status]) => status === "offline").map(([, detail]) => detail.retryIn);

test("the wait before an attempt doubles with each failure, up to 30 seconds", async () => {
  const [page, relay] = await away(1 - Number.EPSILON);
  await page.pass(200_000);
  const seen = waits(relay).map(Math.round);
  assert.deepEqual(seen.slice(0, 8), [1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
});

test("each wait is random between 0 and its bound", async () => {
  for (const random of [0.001, 0.25, 0.9]) {
    const [page, relay] = await away(random);
    await page.pass(random * 16_000);
    assert.deepEqual(waits(relay).slice(0, 4), [1000, 2000, 4000, 8000].map((bound) => random * bound));
  }
  const [, relay] = await away(0);
  assert.equal(waits(relay)[0], 0);
});

test("two pages that lose the relay at the same moment come back at different moments", async () => {
  const comings = [];
  for (const random of [0.1, 0.7]) {
    const page = new Page();
    await page.connect();
    page.random = random;
    page.session.cut();
    await page.pass(2000);
    comings.push(page.session.began);
  }
  assert.deepEqual(comings, [100, 700]);
});

test("both transports are tried in each attempt", async () => {
  const [page] = await away(0.5);
  await page.pass(600);
  assert.deepEqual(page.attempts, [["websocket", 0], ["polling", 0], ["websocket", 500], ["polling", 500]]);
});

test("reconnectDelay and reconnectDelayMax set the bounds", async () => {
  const [page, relay] = await away(0.5, { reconnectDelay: 100, reconnectDelayMax: 300 });
  await page.pass(2000);
  assert.deepEqual(waits(relay).slice(0, 4), [50, 100, 150, 150]);
});

test("a connection that lasted longer than reconnectDelayMax resets the wait", async () => {
  const [page, relay] = await away(0.5);
  await page.pass(4000); // three failures: 0.5, 1 and 2 s
  page.websocket = "works";
  await page.pass(10_000);
  assert.equal(relay.status, "online");
  const ping = () => page.session.send("2");
  for (let passed = 0; passed < 31_000; passed += 1000) await page.pass(1000), ping();
  page.session.cut();
  assert.equal(waits(relay).at(-1), 500);
});

test("a connection that ends soon counts as a failure", async () => {
  const [page, relay] = await away(0.5);
  await page.pass(4000);
  const failures = waits(relay).length;
  page.websocket = "works";
  await page.pass(10_000);
  await page.pass(20_000);
  page.session.cut();
  assert.equal(waits(relay).at(-1), 500 * 2 ** failures);
});

test("after relay_drain the page comes back when the relay said", async () => {
  const page = new Page();
  const relay = await page.connect();
  page.session.emit("relay_drain", { reconnect_in_ms: 1234 });
  assert.deepEqual(plain(relay.statuses.at(-1)), ["offline", { reason: "transport close", retryIn: 1234 }]);
  await page.pass(1233);
  assert.equal(page.tries, 1);
  await page.pass(1);
  assert.deepEqual([page.tries, relay.status], [2, "online"]);
});

test("a drain is no failure: the waits after it begin small", async () => {
  const page = new Page();
  const relay = await page.connect();
  page.session.emit("relay_drain", { reconnect_in_ms: 10 });
  page.websocket = page.polling = "refused";
  await page.pass(11);
  assert.deepEqual(waits(relay), [10, 500]);
});

test("after relay_drain, a page that becomes visible or online still waits", async () => {
  const page = new Page();
  await page.connect();
  page.session.emit("relay_drain", { reconnect_in_ms: 5000 });
  await page.show();
  await page.fire("online");
  await page.pass(4999);
  assert.equal(page.tries, 1);
  await page.pass(1);
  assert.equal(page.tries, 2);
});

test("after relay_drain, connect() tries at once", async () => {
  const page = new Page();
  const relay = await page.connect();
  page.session.emit("relay_drain", { reconnect_in_ms: 5000 });
  relay.connect();
  await page.pass(0);
  assert.equal(relay.status, "online");
});

test("Retry-After is added to the wait, and the refusal is one error event", async () => {
  const page = new Page();
  page.websocket = "refused";
  const body = { ok: false, error: "too_many_connections", message: "full" };
  page.polling = { status: 503, body, headers: { "Retry-After": "6" } };
  const relay = await page.connect();
  assert.equal(relay.statuses.at(-1)[1].retryIn, 6500);
  await page.pass(20_000);
  assert.equal(relay.errors.length, 1);
  assert.deepEqual([relay.errors[0].error, relay.errors[0].status, relay.errors[0].message], ["too_many_connections", 503, "full"]);
});

test("with Retry-After, a page that becomes visible still waits", async () => {
  const page = new Page();
  page.websocket = "refused";
  page.polling = { status: 503, headers: { "Retry-After": "6" } };
  await page.connect();
  await page.show();
  await page.pass(6000);
  assert.equal(page.tries, 2);
  await page.pass(600);
  assert.equal(page.tries, 4);
});

test("without Retry-After, a refused page that becomes visible tries after a second", async () => {
  const page = new Page();
  page.random = 0.99;
  page.websocket = "refused";
  page.polling = { status: 503 };
  await page.connect();
  await page.pass(990 + 500);
  assert.equal(page.tries, 4);
  await page.show();
  await page.pass(999);
  assert.equal(page.tries, 4);
  await page.pass(1);
  assert.equal(page.tries, 6);
});

test("a Retry-After that is negative or beyond all measure neither ends the attempts nor multiplies them", async () => {
  const tries = async (seconds) => {
    const page = new Page();
    page.websocket = "refused";
    page.polling = { status: 503, headers: { "Retry-After": seconds } };
    await page.connect();
    await page.pass(60_000);
    return page.tries;
  };
  assert.ok((await tries("-5")) > 4);
  assert.equal(await tries("99999999999"), 2);
});
