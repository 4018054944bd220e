// Code to copy, filled in with this relay's address, the id, and what the relay requires.

import { $, copyFor, element } from "../dom.js";
import { address, base, canPush, destination, id, isMe, localOption, localUrl, needsKey, needsToken, ownToken, relayPhp } from "./facts.js";
import { quote } from "./quote.js";
import { useTabs } from "./tabs.js";

const relayUrl = canPush ? base.href.replace(/\/$/, "") : localUrl;
const pushUrl = `${relayUrl}/push`;
const registered = isMe ? "me" : id;

/** Return a template tag that writes a snippet and marks the inserted values. */
const write = (name) => (strings, ...values) =>
  strings.forEach((string, i) => $(`snippet-${name}`).append(string, ...values.slice(i, i + 1).map((value) => element("span", "fill", value))));

/** Fill in all snippets. They do not depend on the state of the page, except that a token may be given later. */
export function showSnippets(token = ownToken) {
  document.querySelectorAll(".snippet code").forEach((node) => node.replaceChildren());
  document.querySelectorAll(".host").forEach((node) => (node.textContent = location.hostname));
  $("about-id").hidden = isMe; // it is "me", for every session
  $("about-own-token").hidden = !(needsToken && token);
  $("about-token").hidden = !(needsToken && !token);
  $("token-figure").hidden = !needsToken;
  writePage(token);
  writeSocketIo(token);
  writeRelayPhp();
  writeCurlInPhp();
  writeTokenPhp();
  writeShell("shell");
  if ($("snippet-server")) writeShell("server");
}

/** Let the copy buttons and the tabs work. */
export function useSnippets() {
  useTabs($("code-tabs"));
  for (const button of document.querySelectorAll("[data-copy]")) {
    const code = $(button.dataset.copy);
    button.addEventListener("click", () => copyFor(button, code.textContent, code));
  }
}

function writePage(token) {
  write("page")`<script src=${quote.html(address("static/relay.js"))}></script>
<script>
  const relay = Relay.connect();
  relay.on("push", data => document.body.append(data));
`;
  if (needsToken && token) write("page")`  relay.register(${quote.js(registered)}, {token: ${quote.js(token)}});
`;
  else if (needsToken) write("page")`  const token = () => fetch("relay-token.php").then(answer => answer.text());
  relay.register(${quote.js(registered)}, {token});
`;
  else write("page")`  relay.register(${quote.js(registered)});
`;
  write("page")`</script>`;
}

function writeSocketIo(token) {
  write("socketio")`<script src=${quote.html(address("socket.io/socket.io.js"))}></script>
<script>
  const socket = io(${quote.js(base.origin)}, {path: ${quote.js(base.pathname + "socket.io/")}});
  socket.on("push", ({data}) => document.body.append(data));
  socket.on("connect", async () => {
`;
  if (needsToken && !token) write("socketio")`    const token = await (await fetch("relay-token.php")).text();
    socket.emit("register", {id: ${quote.js(registered)}, token});
`;
  else if (needsToken) write("socketio")`    socket.emit("register", {id: ${quote.js(registered)}, token: ${quote.js(token)}});
`;
  else write("socketio")`    socket.emit("register", {id: ${quote.js(registered)}});
`;
  write("socketio")`  });
</script>`;
}

const phpDestination = isMe ? "session_id()" : quote.php(id);

function phpBegins(name) {
  write(name)`<?php
`;
  if (isMe) write(name)`session_start(['read_and_close' => true]);
`;
}

function writeRelayPhp() {
  const url = localOption && !canPush ? `unix:/PATH/OF/${localOption}` : relayUrl;
  phpBegins("php");
  write("php")`require_once ${quote.php(relayPhp)};
$relay = new Relay(${quote.php(url)}`;
  if (needsKey) write("php")`, ['key' => ${quote.php("KEY")}]`;
  write("php")`);
$relay->push(${phpDestination}, 'Hello from PHP') or error_log($relay->lastError());`;
}

function writeCurlInPhp() {
  phpBegins("curl");
  write("curl")`$curl = curl_init(${quote.php(pushUrl)});
`;
  if (!canPush && localOption) write("curl")`curl_setopt($curl, CURLOPT_UNIX_SOCKET_PATH, ${quote.php(`/PATH/OF/${localOption}`)});
`;
  if (needsKey) write("curl")`curl_setopt($curl, CURLOPT_HTTPHEADER, [${quote.php("Authorization: Bearer KEY")}]);
`;
  write("curl")`$fields = ['destination' => ${phpDestination}, 'data' => 'Hello from cURL'];
curl_setopt($curl, CURLOPT_POSTFIELDS, http_build_query($fields));
curl_setopt($curl, CURLOPT_RETURNTRANSFER, true);
curl_setopt($curl, CURLOPT_TIMEOUT_MS, 300);
echo curl_exec($curl) ?: curl_error($curl);`;
}

function writeTokenPhp() {
  write("token")`<?php // relay-token.php
require_once ${quote.php(relayPhp)};
$id = ${quote.php(id)}; // in your site: the id of the user who is logged in
$relay = new Relay(${quote.php(relayUrl)}, ['secret' => getenv('RELAY_SECRET')]);
echo $relay->token(['ids' => [$id], 'exp' => time() + 3600]);`;
}

function writeShell(name) {
  write(name)`curl ${quote.shell(pushUrl)} \\
  --max-time 5 \\
`;
  if (!canPush && localOption) write(name)`  --unix-socket ${quote.shell(`/PATH/OF/${localOption}`)} \\
`;
  if (needsKey) write(name)`  -H ${quote.shell("Authorization: Bearer KEY")} \\
`;
  write(name)`  --data-urlencode ${quote.shell(`destination=${isMe ? destination || "SESSION-ID" : id}`)} \\
  --data-urlencode 'data=Hello from the shell'`;
}
