// The address of the relay: from the script's address, from a URL, from a path, and in modules, frames and workers.
"use strict";

const assert = require("node:assert/strict");
const test = require("node:test");
const { Page } = require("./page.js");

/** Return the address to which a page connects. */
async function address(options, ...args) {
  const page = new Page(options);
  page.Relay.connect(...args);
  await page.pass(0);
  return page.session.url.split("?")[0];
}

test("the relay's address is that of its script, at each of its names", async () => {
  const scripts = {
    "http://a.test/static/relay.js": "ws://a.test/socket.io/",
    "https://a.test/relay/static/relay.js?v=3": "wss://a.test/relay/socket.io/",
    "http://a.test:8080/static/relay.min.js": "ws://a.test:8080/socket.io/",
    "http://a.test/x/socket.io/socket.io.js": "ws://a.test/x/socket.io/",
    "http://a.test/socket.io/socket.io.min.js": "ws://a.test/socket.io/",
  };
  for (const [src, expected] of Object.entries(scripts)) assert.equal(await address({ src }), expected);
});

test("a URL is used as it is, with or without a slash, query or fragment", async () => {
  const sameUrl = new URL("http://a.test/relay");
  for (const url of ["http://a.test/relay", "http://a.test/relay/", "http://a.test/relay//?x#y", "WS://a.test/relay", sameUrl]) {
    assert.equal(await address({}, url), "ws://a.test/relay/socket.io/");
  }
});

test("a path belongs to the page's own host", async () => {
  assert.equal(await address({}, "/relay"), "ws://shop.test/relay/socket.io/");
});

test("a frame without an address uses that of its base, a worker without one that of its origin", async () => {
  const frame = { location: { href: "about:srcdoc" }, document: { baseURI: "https://shop.test/page", currentScript: null } };
  assert.equal(await address({ scope: frame }, "/relay"), "wss://shop.test/relay/socket.io/");
  const worker = { location: { href: "blob:https://shop.test/1", origin: "https://shop.test" }, document: undefined };
  assert.equal(await address({ scope: worker }, "/relay"), "wss://shop.test/relay/socket.io/");
});

test("in a module or bundle, connect() without a URL is an error that says what to write", () => {
  const cdn = "https://cdn.test/gh/relay/relay@1.0/static/relay.js"; // a copy of one version, on a server that is no relay
  const sources = [null, "http://shop.test/bundle.js", "http://shop.test/static/other.js", "file:///static/relay.js", cdn];
  for (const src of sources) {
    const page = new Page({ src });
    for (const connect of [page.Relay.connect, page.io]) assert.throws(() => connect(), /Use Relay\.connect\(URL\)/);
  }
});

test("what is neither URL nor path is an error that names it", () => {
  const page = new Page();
  for (const url of ["relay", "shop.test/relay", "ftp://a.test/"]) {
    assert.throws(() => page.Relay.connect(url), new RegExp(`, not ${url}`));
  }
});

test("without a page, as in Node or a worker, the script loads and connects with a URL", async () => {
  const scope = { document: undefined, location: undefined, addEventListener: undefined, navigator: undefined, sessionStorage: undefined };
  assert.equal(await address({ scope }, "http://a.test"), "ws://a.test/socket.io/");
});
