// The official socket.io-client with an Origin header: prints each event as a line of JSON.
// node refused_client.js URL ORIGIN
"use strict";
const { io } = require("socket.io-client");
const [url, origin] = process.argv.slice(2);
const say = (what) => console.log(JSON.stringify(what));
const socket = io(url, { transports: ["websocket"], extraHeaders: { Origin: origin }, reconnectionDelay: 100 });
socket.on("connect", () => say({ connected: socket.id }));
socket.on("connect_error", ({ message, data }) => say({ refused: message, data, active: socket.active }));
