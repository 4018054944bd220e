// The way back from long polling to WebSocket.
"use strict";

const assert = require("node:assert/strict");
const test = require("node:test");
const { Page, plain } = require("./page.js");

/** A page that polls because WebSocket is refused. */
async function fallenBack(options) {
  const page = new Page();
  page.websocket = "refused";
  const relay = await page.connect(options);
  assert.equal(relay.transport, "polling");
  page.attempts = [];
  return [page, relay];
}

/** When WebSocket was tried, in seconds. */
const probes = (page) => page.attempts.filter(([transport]) => transport === "websocket").map(([, ms]) => ms / 1000);

/** Let time pass on a wire that is not silent. */
async function pass(page, ms) {
  for (; ms > 0; ms -= 20_000) {
    page.session.send("6");
    await page.pass(Math.min(ms, 20_000));
  }
}

test("a polling page tries WebSocket after 30 s, then after twice as long, up to 5 minutes", async () => {
  const [page] = await fallenBack();
  await pass(page, 1_600_000);
  assert.deepEqual(probes(page), [30, 90, 210, 450, 750, 1050, 1350]);
});

test("probeDelay sets the first wait", async () => {
  const [page] = await fallenBack({ probeDelay: 2000 });
  await pass(page, 15_000);
  assert.deepEqual(probes(page), [2, 6, 14]);
});

test("if WebSocket works, the page changes to it and is never offline", async () => {
  const [page, relay] = await fallenBack();
  relay.register("42");
  await page.pass(0);
  page.session.publish("42", 1);
  page.websocket = "works";
  await page.pass(30_000);
  assert.equal(relay.transport, "websocket");
  assert.deepEqual(plain(relay.statuses.slice(1)), ["online", "connecting", "online", ["recovered", []]]);
  assert.deepEqual(page.sent("register").at(-1).since, { 42: "e:1" });
  assert.equal(page.sessions[0].isOpen, false);
});

test("after the change the page does not probe any more", async () => {
  const [page] = await fallenBack();
  page.websocket = "works";
  await page.pass(30_000);
  page.attempts = [];
  await pass(page, 400_000);
  assert.deepEqual(page.attempts, []);
});

test("a page that becomes visible or online probes at once, but not twice in a second", async () => {
  for (const event of ["visibilitychange", "online", "pageshow", "resume"]) {
    const [page, relay] = await fallenBack();
    await page.pass(5000);
    await page.fire(event);
    await page.pass(0);
    assert.deepEqual(probes(page), [5], event);
    await page.fire(event);
    await page.pass(999);
    assert.deepEqual(probes(page), [5], event);
    await page.pass(1);
    assert.deepEqual(probes(page), [5, 6], event);
    assert.equal(relay.status, "online");
  }
});

test("a probe that hangs is given up after the timeout, and counts as a failure", async () => {
  const [page, relay] = await fallenBack({ timeout: 1000 });
  page.websocket = "silent";
  await pass(page, 31_000);
  await pass(page, 60_000);
  assert.deepEqual(probes(page), [30, 91]);
  assert.equal(relay.transport, "polling");
});

test("while an answer is outstanding, the change waits for it", async () => {
  const [page, relay] = await fallenBack({ timeout: 600_000 });
  page.answer.push = () => undefined;
  const pushed = relay.push("42", 1);
  await page.pass(0);
  page.websocket = "works";
  await page.pass(32_000);
  assert.equal(relay.transport, "polling");
  const [first] = page.sessions;
  first.reply("push", { ok: true, id: "e:1", connections: 0 });
  await page.pass(1000);
  assert.equal((await pushed).id, "e:1");
  assert.equal(relay.transport, "websocket");
});

test("a page that may only poll never probes", async () => {
  const page = new Page();
  const relay = await page.connect({ transports: ["polling"] });
  await pass(page, 100_000);
  await page.show();
  assert.equal(relay.status, "online");
  assert.equal(page.tries, 1);
});

test("a WebSocket that hung at first, but works in a probe, is first again", async () => {
  const page = new Page();
  page.websocket = "silent";
  const relay = await page.connect({ timeout: 300 });
  await page.pass(300);
  assert.equal(relay.transport, "polling");
  page.websocket = "works";
  await page.pass(30_000);
  assert.equal(relay.transport, "websocket");
  page.attempts = [];
  page.session.cut();
  await page.pass(1000);
  assert.deepEqual(page.attempts.map(([transport]) => transport), ["websocket"]);
});
