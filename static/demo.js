// The demo page: who this page is, what arrives for it, a form that pushes, and snippets to take away.
// Whatever comes from outside (ids, data, messages) is shown as text, never as HTML.
"use strict";

const MAX_ITEMS = 100; // a page left open all day must not grow
const LONG = { characters: 700, lines: 11 }; // more than that is folded; either fills about 200 pixels
// The relay may live under a path of Apache's, with or without the last slash: /, /relay, /relay/, /relay/index.
const base = new URL(location.pathname.replace(/\/(index)?$/, "") + "/", location.origin);
const address = (path) => new URL(path, base).href;
const $ = (id) => document.getElementById(id);

function element(tag, className, ...children) {
  const node = document.createElement(tag);
  node.className = className;
  node.append(...children);
  return node;
}

// --- Who this page is ---
/** An id that is easy to read out. Easy to guess too: good for a demo, not for telling users apart. */
function randomId() {
  const oneOf = (words) => words[Math.floor(Math.random() * words.length)];
  const colour = oneOf(["amber", "azure", "coral", "green", "hazel", "ivory", "lilac", "olive", "pearl", "ruby"]);
  const animal = oneOf(["crane", "finch", "fox", "hare", "heron", "lark", "lynx", "otter", "owl", "raven", "wren"]);
  return `${colour}-${animal}-${Math.floor(100 + 900 * Math.random())}`;
}

/** The id in the address; where there is none, a new one, which is put there so that the page can be opened twice. */
function ownId() {
  const here = new URL(location.href);
  const id = here.searchParams.get("id") || randomId();
  here.searchParams.set("id", id);
  history.replaceState(null, "", here);
  return id;
}

function showId(id) {
  document.title = `${id} · the relay`;
  $("id").textContent = $("destination").value = $("new-id").value = id;
  $("second").href = location.href;
  $("change").addEventListener("click", () => {
    $("change-form").hidden = !$("change-form").hidden;
    $("change").setAttribute("aria-expanded", String(!$("change-form").hidden));
    $("new-id").select();
  });
}

// --- The connection ---
function note(text, kind) {
  $("note").textContent = text;
  $("note").dataset.kind = kind || "";
}

function showConnection(relay) {
  let awaySince = 0; // by performance.now(); 0 while it is not away
  let tried = false; // then "connecting" is one more try, and nothing changes on the page: no flicker
  let sentence = "Whatever is pushed to this id appears on this page at once.";
  const missed = { recovered: "Nothing was missed.", lost: "What was pushed meanwhile is no longer kept." };
  const show = (status, text, why) => {
    $("state").dataset.status = status;
    $("state").textContent = text;
    $("transport").textContent = { websocket: "WebSocket", polling: "long polling" }[relay.transport] || "";
    note(why);
  };
  const onStatus = (status) => {
    if (status === "connecting") return tried || show("connecting", "Connecting", "Connecting to the relay …");
    tried = true;
    if (status === "offline") {
      if (awaySince) return; // the note may say by now what the relay had against us
      awaySince = performance.now();
      return show("offline", "Offline", "The relay does not answer. This page tries again by itself.");
    }
    if (awaySince) sentence = `Back by itself after ${Math.ceil((performance.now() - awaySince) / 1000)} s.`;
    awaySince = 0;
    show("online", "Online", [sentence, missed[status]].join(" "));
  };
  relay.on("status", onStatus);
  relay.on("error", ({ error, message }) => note(message || error, "error"));
  onStatus(relay.status);
}

// --- What arrives ---
/**
 * Sets JSON out in lines, one member each, by elements alone: the text stays what was sent, to the character.
 * Returns the number of lines; 0 where the text is better left as it is. Throws where it is no JSON.
 */
function layOut(node, text) {
  if (text.length > 20000 || text.includes("\n") || !/^\s*[[{]/.test(text)) return 0;
  JSON.parse(text);
  const tokens = text.match(/"(?:\\.|[^"\\])*"|[{}[\],:]|[^"{}[\],:]+/g);
  const open = [document.createDocumentFragment()]; // what is being filled, the innermost last
  let lines = 2;
  const newLine = () => {
    const line = element("span", "line");
    open[open.length - 1].append(line);
    open.push(line);
    lines += open.length > 20 ? Infinity : 1; // a staircase of brackets is no easier to read
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

/** Long data shows its beginning; this is the button for the rest. */
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
    $("arrived").prepend(arrival(data, publication));
    while ($("arrived").children.length > MAX_ITEMS) $("arrived").lastChild.remove();
    $("count").textContent = total > MAX_ITEMS ? `${total}, the newest ${MAX_ITEMS} shown` : total;
  });
}

// --- The form ---
/** Posts the two fields as PHP would. Returns the answer; throws an Error whose message can be shown. */
async function push(fields) {
  const response = await fetch(address("push"), { method: "POST", body: new URLSearchParams(fields) }).catch(() => {
    throw new Error(`No answer from ${base.host}. Is the relay running?`);
  });
  // What is no JSON is no answer of the relay but, say, an HTML page of the proxy before it: its status says enough.
  const answer = await response.json().catch(() => ({}));
  if (response.ok && answer.id) return answer;
  throw new Error(answer.message || answer.error || `HTTP ${response.status} ${response.statusText}`);
}

async function submitPush(event) {
  event.preventDefault();
  const output = $("push-answer");
  output.textContent = ""; // or the same answer twice would be read out once
  const started = performance.now();
  try {
    const { id, connections } = await push({ destination: $("destination").value, data: $("data").value });
    const facts = element("span", "facts", `id ${id} · ${Math.ceil(performance.now() - started)} ms`);
    const to = connections === 1 ? "1 connection" : `${connections} connections`;
    output.dataset.kind = connections ? "ok" : "none";
    output.replaceChildren(connections ? `To ${to} ` : `To ${to}: nobody is registered for this destination now `, facts);
  } catch (error) {
    output.dataset.kind = "error";
    output.textContent = error.message;
  }
}

// --- The snippets ---
// Each writes a text as a literal of its language, so that any id and address can be pasted.
const quote = {
  // An id may hold "</script>", and the page it is pasted into may not be UTF-8: so no "<", and only ASCII.
  js: (text) => JSON.stringify(text).replace(/[<\u007f-\uffff]/g, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0")),
  html: (text) => '"' + text.replace(/&/g, "&amp;").replace(/"/g, "&quot;").replace(/</g, "&lt;") + '"',
  php: (text) => "'" + text.replace(/[\\']/g, "\\$&") + "'",
  shell: (text) => "'" + text.replace(/'/g, "'\\''") + "'",
};

/** Tagged template: writes a snippet, with what is filled in marked as such. */
const write = (id) => (strings, ...values) =>
  strings.forEach((string, i) => $(id).append(string, ...values.slice(i, i + 1).map((value) => element("span", "fill", value))));

function showSnippets(id) {
  $("host").textContent = location.hostname;
  write("snippet-html")`<script src=${quote.html(address("static/relay.js"))}></script>
<script>
  const relay = Relay.connect();
  relay.on("push", data => document.body.append(data));
  relay.register(${quote.js(id)});
</script>`;
  write("snippet-php")`<?php
$ch = curl_init(${quote.php(address("push"))});
curl_setopt($ch, CURLOPT_POSTFIELDS, http_build_query([
    'destination' => ${quote.php(id)},
    'data'        => 'Hello from PHP',
]));
curl_setopt($ch, CURLOPT_RETURNTRANSFER, true);
curl_setopt($ch, CURLOPT_TIMEOUT, 2);
echo curl_exec($ch) ?: curl_error($ch);`;
  write("snippet-curl")`curl ${quote.shell(address("push"))} \\
  --data-urlencode ${quote.shell("destination=" + id)} \\
  --data-urlencode 'data=Hello from curl'`;
}

async function toClipboard(text) {
  // Browsers have navigator.clipboard on https and localhost only.
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
  if (!copied) getSelection().selectAllChildren($(button.dataset.copy)); // for the reader's own Ctrl+C
  button.focus(); // again: the fallback takes it away
  button.textContent = $("said").textContent = copied ? "Copied" : "Press Ctrl+C";
  setTimeout(() => ([button.textContent, $("said").textContent] = ["Copy", ""]), 2000);
}

// --- Start ---
const id = ownId();
showId(id);
showSnippets(id);
$("push-form").addEventListener("submit", submitPush);
document.querySelectorAll("[data-copy]").forEach((button) => button.addEventListener("click", () => copy(button)));
if (typeof Relay === "undefined") {
  note(`The script ${address("static/relay.js")} did not load, so nothing can arrive here.`, "error");
} else {
  const relay = Relay.connect();
  showConnection(relay);
  showArrivals(relay);
  relay.register(id).catch((error) => note(error.message, "error"));
}
