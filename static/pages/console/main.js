// The demo page: its id, the pushes that arrive for it, a form that pushes, and snippets to copy.
// Everything from outside (ids, data, messages) is shown as text, never as HTML.
"use strict";

const MAX_ITEMS = 100; // so that a page that is open all day does not grow
const LONG = { characters: 700, lines: 11 }; // longer data is folded; either limit fills about 200 pixels
// The relay may be below a path of a web server, with or without the last slash: /, /relay, /relay/, /relay/index.
const base = new URL(location.pathname.replace(/\/(index)?$/, "") + "/", location.origin);
const address = (path) => new URL(path, base).href;
const $ = (id) => document.getElementById(id);
// Values that the server has written into the template.
const { mayPush, needs, token: ownToken, cookie: cookieName, localUrl, localOption } = document.body.dataset;
const canPush = mayPush === "yes";
const asks = (what) => needs.split(" ").includes(what);

function element(tag, className, ...children) {
  const node = document.createElement(tag);
  node.className = className;
  node.append(...children);
  return node;
}

// --- This page's id ---

/** Return the id in the address. The relay redirects an address without one. */
const ownId = () => new URL(location.href).searchParams.get("id") || "demo";

/** Return the value of the session cookie, if scripts may read it: PHP's own is often HttpOnly. */
function sessionCookie() {
  const pairs = document.cookie.split("; ").map((pair) => pair.split("="));
  const found = cookieName && pairs.find(([name]) => name === cookieName);
  return found ? found[1] : "";
}

/** Set a session cookie for a test. It replaces none, because the relay reported that there is none. */
function setCookie() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const value = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  document.cookie = `${cookieName}=${value}; path=/; SameSite=Lax`;
  location.reload();
}

function showId(id) {
  document.title = `${id} · the relay`;
  $("id").textContent = $("new-id").value = id;
  if (canPush) $("destination").value = isMe(id) ? sessionCookie() : id;
  if (isMe(id) && !sessionCookie()) $("next").textContent = "Let your PHP push to session_id(), as in the snippet below.";
  $("second").href = location.href;
  const open = (isOpen) => {
    $("change-form").hidden = !isOpen;
    $("change").setAttribute("aria-expanded", String(isOpen));
    if (isOpen) $("new-id").select();
  };
  $("change").addEventListener("click", () => open($("change-form").hidden));
  $("change-form").addEventListener("keydown", ({ key }) => {
    if (key !== "Escape") return;
    open(false);
    $("change").focus();
  });
}

/** Return whether an id stands for the browser's own session, whose name the page does not know. */
const isMe = (id) => asks("cookie") && (id === "me" || needs === "cookie");

// --- The connection ---
const OLD_TOKEN = "This page’s token is no longer valid. Load the page again.";
const SENTENCES = {
  missing_token: "This relay requires a token to register an id, and this page has none yet.",
  not_allowed: needs === "cookie" && "On this relay a page may register only “me”, its browser’s own id.",
};
const MISSED = { recovered: "Nothing was missed.", lost: "Some of what was missed is no longer kept." };
// The errors of a registration. All others concern the connection, and end with it.
const REFUSALS = /token|cookie|not_allowed|_id|too_many_ids|not_available/;

/** Shows the state of the connection, and of the registration, which may be refused although the connection works. */
class Connection {
  constructor(relay, id) {
    this.relay = relay;
    this.id = id;
    this.status = relay.status; // connecting, online, offline
    this.registered = false;
    this.refusal = null; // {error, message} while the relay refuses to register the id
    this.trouble = ""; // another error since the page was last online
    this.token = ownToken;
    this.awaySince = 0; // since when it is offline, by performance.now(); 0 if it is not
    this.tried = false; // after the first attempt, "connecting" changes nothing on the page, so it does not flicker
    this.sentence = "Pushes to this id appear here immediately.";
    this.missed = "";
    relay.on("status", (status) => this.changed(status));
    relay.on("error", (error) => this.failed(error));
    this.register();
    this.show();
  }

  async register() {
    try {
      await this.relay.register(this.id, this.token ? { token: this.token } : {});
      this.registered = true;
      this.refusal = null;
      if (this.token !== ownToken) showSnippets(this.id, this.token);
    } catch ({ code, message }) {
      if (["closed", "disconnected", "offline"].includes(code)) return;
      this.refused({ error: code, message });
    }
    this.show();
  }

  refused(error) {
    this.registered = false;
    this.refusal = error;
  }

  failed({ error, message }) {
    if (REFUSALS.test(error)) this.refused({ error, message });
    else this.trouble = message || error;
    this.show();
  }

  changed(status) {
    this.missed = MISSED[status] || "";
    if (this.missed) {
      this.registered = true;
      this.refusal = null;
    } else {
      this.status = status;
    }
    if (status === "offline") {
      this.tried = true;
      this.awaySince = this.awaySince || performance.now();
    }
    if (status === "online") this.isBack();
    this.show();
  }

  isBack() {
    if (this.awaySince) this.sentence = `Reconnected after ${Math.ceil((performance.now() - this.awaySince) / 1000)} s.`;
    this.tried = true;
    this.awaySince = 0;
    this.trouble = "";
    forgetNoAnswer();
    if (this.refusal) this.register(); // the restarted relay may accept it
  }

  show() {
    if (this.status === "connecting" && this.tried) return;
    const isOnline = this.status === "online";
    const isRefused = isOnline && this.refusal !== null;
    $("state").dataset.status = isRefused ? "refused" : this.status;
    $("state").textContent = isRefused ? "Not registered" : { online: "Online", offline: "Offline" }[this.status] || "Connecting";
    $("transport").textContent = { websocket: "WebSocket", polling: "long polling" }[this.relay.transport] || "";
    const [text, kind] = this.note();
    note(text, kind);
    this.showRemedy(isRefused);
  }

  note() {
    const { refusal } = this;
    if (refusal && ownToken && this.token === ownToken && /^(token_expired|invalid_token)$/.test(refusal.error)) {
      return [OLD_TOKEN, "error"];
    }
    if (refusal) return [SENTENCES[refusal.error] || `Not registered: ${refusal.message || refusal.error}`, "error"];
    if (this.trouble) return [this.trouble, "error"];
    if (this.status === "offline") return ["The relay does not answer. This page tries again by itself."];
    if (this.status === "connecting") return ["Connecting to the relay …"];
    return [this.registered ? [this.sentence, this.missed].join(" ") : "Connected. Registering this id …"];
  }

  /** If the id is refused, show what the reader can do instead of waiting. */
  showRemedy(isRefused) {
    const refusal = isRefused && this.refusal;
    if (refusal || this.registered) {
      const why = refusal ? refusal.error : "";
      $("token-form").hidden = !(asks("token") && /token|not_allowed/.test(why));
      $("me-hint").hidden = !(refusal && asks("cookie") && this.id !== "me");
      $("cookie-hint").hidden = why !== "missing_cookie";
      $("site-hint").hidden = !(asks("site") && /token|not_allowed|auth_not_available/.test(why));
    }
    document.querySelector(".empty").classList.toggle("refused", Boolean(refusal));
    $("waiting").textContent = refusal ? "Nothing can arrive here yet" : "Waiting for the first push\u00a0…";
    $("next").hidden = Boolean(refusal);
  }
}

function note(text, kind) {
  $("note").textContent = text;
  $("note").dataset.kind = kind || "";
}

/** Prepare what the reader can do about a refusal. */
function showRemedies(connection) {
  $("token-line").textContent = `python relay.py token ${quote.shell(connection.id)}`;
  const me = new URL(location.href);
  me.searchParams.set("id", "me");
  $("use-me").href = me.href;
  $("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    connection.token = $("token").value.trim();
    connection.register();
  });
  $("again").addEventListener("click", () => connection.register());
  if (canPush) $("set-cookie").addEventListener("click", setCookie);
}

// --- What arrives ---
/**
 * Lay JSON out with one member per line, by elements only: the text itself stays exactly what was sent.
 * Return the number of lines, or 0 if the text is better left as it is. Throw if it is not JSON.
 */
function layOut(node, text) {
  if (text.length > 20000 || text.includes("\n") || !/^\s*[[{]/.test(text)) return 0;
  JSON.parse(text);
  const tokens = text.match(/"(?:\\.|[^"\\])*"|[{}[\],:]|[^"{}[\],:]+/g);
  const open = [document.createDocumentFragment()]; // the elements that are being filled, the innermost last
  let lines = 2;
  const newLine = () => {
    const line = element("span", "line");
    open[open.length - 1].append(line);
    open.push(line);
    lines += open.length > 20 ? Infinity : 1; // a staircase of brackets is not easier to read
  };
  tokens.forEach((token, i) => {
    if (/[}\]]/.test(token[0]) && !/[{[]/.test(tokens[i - 1][0])) open.pop();
    open[open.length - 1].append(token === ":" ? element("span", "colon", token) : token);
    if (token === ",") open.pop();
    if (token === "," || (/[{[]/.test(token[0]) && !/[}\]]/.test(tokens[i + 1][0]))) newLine();
  });
  if (lines > 1000) return 0;
  node.append(open[0]);
  return lines;
}

function arrival(data, { id, event }) {
  const text = typeof data === "string" ? data : String(JSON.stringify(data));
  const type = data === null ? "null" : Array.isArray(data) ? "array" : typeof data;
  const time = element("time", "", new Date().toTimeString().slice(0, 8));
  const name = element("span", "event", event === "push" ? "" : event);
  const meta = element("p", "meta", time, name, element("span", "", type), element("span", "position", id));
  const body = element("div", "data");
  let lines = 0;
  try {
    lines = layOut(body, text);
  } catch (_) {} // plain text that begins like JSON
  if (!lines) body.textContent = text;
  lines = lines || text.split("\n", LONG.lines + 1).length;
  const item = element("li", "arrival", meta, body);
  item.dataset.id = id;
  if (text.length > LONG.characters || lines > LONG.lines) item.append(folding(body, text));
  return item;
}

/** Fold long data to its beginning, and return the button for the rest. */
function folding(body, text) {
  const button = element("button", "quiet more");
  const fold = (folded) => {
    body.classList.toggle("folded", folded);
    button.textContent = folded ? `Show all ${text.length.toLocaleString("en")} characters` : "Show less";
    button.setAttribute("aria-expanded", String(!folded));
  };
  button.addEventListener("click", () => fold(!body.classList.contains("folded")));
  fold(true);
  return button;
}

function showArrivals(relay) {
  let total = 0;
  relay.on("*", (data, publication) => {
    total += 1;
    announce();
    $("arrived").prepend(arrival(data, publication));
    while ($("arrived").children.length > MAX_ITEMS) $("arrived").lastChild.remove();
    $("count").textContent = total > MAX_ITEMS ? `${total}, the newest ${MAX_ITEMS} shown` : total;
  });
}

let unsaid = 0; // pushes that a screen reader has not announced
let saysAgain = 0; // the timer, if something was announced within the last second

/** Announce to screen readers how many pushes arrived: at most one sentence per second. */
function announce() {
  unsaid += 1;
  if (!saysAgain) say();
}

function say() {
  saysAgain = 0;
  if (!unsaid) return;
  $("news").textContent = unsaid === 1 ? "1 push arrived" : `${unsaid} pushes arrived`;
  unsaid = 0;
  saysAgain = setTimeout(say, 1000);
}

// --- The form ---
/** Post the two fields as PHP would. Return the answer, or throw an Error whose message can be shown. */
async function push(fields) {
  const response = await fetch(address("push"), { method: "POST", body: new URLSearchParams(fields) }).catch(() => {
    throw Object.assign(new Error(`No answer from ${base.host}. Is the relay running?`), { isAway: true });
  });
  // If it is not JSON, something else answered, for example a proxy with an HTML page. Its status is shown.
  const answer = await response.json().catch(() => ({}));
  if (response.ok && answer.id) return answer;
  throw new Error(answer.message || answer.error || `HTTP ${response.status} ${response.statusText}`);
}

async function submitPush(event) {
  event.preventDefault();
  const output = $("push-answer");
  output.textContent = ""; // otherwise screen readers would not read the same answer twice
  const started = performance.now();
  try {
    const { id, connections } = await push({ destination: $("destination").value, data: $("data").value });
    const facts = element("span", "facts", `position ${id} · ${Math.ceil(performance.now() - started)} ms`);
    const to = connections === 1 ? "1 connection" : `${connections} connections`;
    output.dataset.kind = connections ? "ok" : "none";
    output.replaceChildren(connections ? `To ${to} ` : `To ${to}: nobody has registered this destination `, facts);
  } catch (error) {
    output.dataset.kind = error.isAway ? "error away" : "error";
    output.textContent = error.message;
  }
}

/** Remove the error that the relay does not answer. */
function forgetNoAnswer() {
  const output = $("push-answer");
  if (output && output.dataset.kind === "error away") output.textContent = "";
}

// --- The snippets ---
// Each function writes a text as a literal of its language, so that any id and address can be pasted.
const quote = {
  // No "<", because an id may contain "</script>". Only ASCII, because the reader's page may not be UTF-8.
  js: (text) => JSON.stringify(text).replace(/[<\u007f-\uffff]/g, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0")),
  html: (text) => '"' + text.replace(/&/g, "&amp;").replace(/"/g, "&quot;").replace(/</g, "&lt;") + '"',
  php: (text) => "'" + text.replace(/[\\']/g, "\\$&") + "'",
  shell: (text) => "'" + text.replace(/'/g, "'\\''") + "'",
};

/** Return a template tag that writes a snippet and marks the inserted values. */
const write = (id) => (strings, ...values) =>
  strings.forEach((string, i) => $(id).append(string, ...values.slice(i, i + 1).map((value) => element("span", "fill", value))));

function showSnippets(id, token) {
  document.querySelectorAll(".host").forEach((node) => (node.textContent = location.hostname));
  document.querySelectorAll(".snippet pre code").forEach((node) => node.replaceChildren());
  $("about-own-token").hidden = !(withToken(id) && token);
  $("about-token").hidden = !(withToken(id) && !token);
  write("snippet-html")`<script src=${quote.html(address("static/relay.js"))}></script>
<script>
  const relay = Relay.connect();
  relay.on("push", data => document.body.append(data));
`;
  if (withToken(id) && token) {
    write("snippet-html")`  relay.register(${quote.js(id)}, {token: ${quote.js(token)}});
</script>`;
  } else if (withToken(id)) {
    write("snippet-html")`  const token = () => fetch("relay-token.php").then(answer => answer.text());
  relay.register(${quote.js(id)}, {token});
</script>`;
  } else {
    write("snippet-html")`  relay.register(${quote.js(isMe(id) ? "me" : id)});
</script>`;
  }
  const url = canPush ? address("push") : localUrl + "/push";
  write("snippet-php")`<?php
`;
  if (isMe(id)) write("snippet-php")`session_start(['read_and_close' => true]);
`;
  const destination = isMe(id) ? "session_id()" : quote.php(id);
  write("snippet-php")`$curl = curl_init(${quote.php(url)});
`;
  if (!canPush && localOption) write("snippet-php")`curl_setopt($curl, CURLOPT_UNIX_SOCKET_PATH, ${quote.php(localOption)});
`;
  write("snippet-php")`$fields = ['destination' => ${destination}, 'data' => 'Hello from PHP'];
curl_setopt($curl, CURLOPT_POSTFIELDS, http_build_query($fields));
curl_setopt($curl, CURLOPT_RETURNTRANSFER, true);
curl_setopt($curl, CURLOPT_TIMEOUT_MS, 300);
echo curl_exec($curl) ?: curl_error($curl);`;
  showCurl("snippet-curl", id, url);
  if (!canPush) showCurl("snippet-server", id, url);
}

/** Return whether this id needs a token, as far as the page can know: PHP may allow it too (auth_url). */
const withToken = (id) => asks("token") && !isMe(id) && (Boolean(ownToken) || !asks("site"));

function showCurl(snippet, id, url) {
  const destination = "destination=" + (isMe(id) ? sessionCookie() || "SESSION-ID" : id);
  write(snippet)`curl ${quote.shell(url)} \\
`;
  if (!canPush && localOption) write(snippet)`  --unix-socket ${quote.shell(localOption)} \\
`;
  write(snippet)`  --data-urlencode ${quote.shell(destination)} \\
  --data-urlencode 'data=Hello from curl'`;
}

async function toClipboard(text) {
  // Browsers offer navigator.clipboard on https and localhost only.
  if (navigator.clipboard && (await navigator.clipboard.writeText(text).then(() => true, () => false))) return true;
  const area = element("textarea", "unseen", text);
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  return copied;
}

async function copy(button) {
  const copied = await toClipboard($(button.dataset.copy).textContent);
  if (!copied) getSelection().selectAllChildren($(button.dataset.copy)); // so that the reader can press Ctrl+C
  button.focus(); // because the fallback took the focus
  button.textContent = $("said").textContent = copied ? "Copied" : "Press Ctrl+C";
  setTimeout(() => ([button.textContent, $("said").textContent] = ["Copy", ""]), 2000);
}

// --- Start ---
const id = ownId();
showId(id);
showSnippets(id, ownToken);
if (canPush) {
  $("push-form").addEventListener("submit", submitPush);
  $("push-form").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("push-form").requestSubmit();
  });
}
document.querySelectorAll("[data-copy]").forEach((button) => button.addEventListener("click", () => copy(button)));
if (typeof Relay === "undefined") {
  note(`The script ${address("static/relay.js")} did not load, so nothing can arrive here.`, "error");
} else {
  const relay = Relay.connect();
  showArrivals(relay);
  showRemedies(new Connection(relay, id));
}
