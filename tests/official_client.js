// The official socket.io-client for the tests: registers its ids and prints each event as a line of JSON.
// Usage: node official_client.js URL TRANSPORT ID…
const { io } = require("socket.io-client");

const [url, transport, ...ids] = process.argv.slice(2);
const say = (what) => console.log(JSON.stringify(what));
const socket = io(url, { transports: [transport], reconnectionDelay: 50, reconnectionDelayMax: 200 });

socket.on("connect", () => socket.emit("register", { id: ids }, (answer) => say({ registered: answer })));
socket.on("connect_error", (error) => say({ connect_error: error.message }));
socket.on("disconnect", (reason) => say({ disconnect: reason }));
socket.onAny((event, message) => say({ event, message, transport: socket.io.engine.transport.name }));
