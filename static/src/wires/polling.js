import { asError, noRelay } from "../errors.js";
import { noop } from "../scope.js";
import { takePlace } from "./places.js";

/** Connect a wire over long polling, as websocket() does over WebSocket. */
export function polling(wire, url) {
  const polls = new AbortController(); // a POST may finish after close()
  const outbox = [];
  let posts = Promise.resolve(); // one after the other, so that none overtakes another
  const place = takePlace(url, () => wire.end("no place"));

  async function request(options) {
    const query = "?EIO=4&transport=polling&t=" + Math.random(); // so that no cache answers
    const response = await fetch(url + query + (wire.sid ? "&sid=" + wire.sid : ""), { credentials: "include", ...options });
    if (response.ok) return response.text();
    const { status, headers } = response;
    const body = await response.json().catch(noop);
    throw asError({ ...noRelay(url, ` (HTTP ${status})`), ...body, status, retryAfter: Math.abs(headers.get("Retry-After")) });
  }

  async function poll() {
    for (;;) (await request({ signal: polls.signal })).split("\x1e").forEach(wire._receive);
  }

  /** Send as many packets as fit into one request. UTF-8 needs at most three bytes for a UTF-16 unit. */
  function post() {
    let body = outbox.shift();
    for (let i = 0; outbox[0] && i++ < 900 && (body + outbox[0]).length * 3 < wire.maxPayload; ) body += "\x1e" + outbox.shift();
    return body && request({ method: "POST", body });
  }

  const fail = (error) => wire.end("transport error", error);
  wire.send = (packet) => {
    outbox.push(packet);
    posts = posts.then(post);
    posts.catch(fail);
  };
  wire.close = () => {
    polls.abort();
    place.then((release) => release());
    if (wire.sid) wire.send("1");
  };
  place.then(poll).catch(fail);
}
