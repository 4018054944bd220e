// The official socket.io-client behind a load balancer: COUNT sockets, each with a connection of its own, which register
// PREFIX-0, PREFIX-1 … Prints what happens to each as a line of JSON.
// Usage: node balanced_clients.js URL PREFIX COUNT TRANSPORT…
const { io } = require("socket.io-client");

const [url, prefix, count, ...transports] = process.argv.slice(2);
const say = (what) => console.log(JSON.stringify(what));

for (let number = 0; number < count; number += 1) {
  const socket = io(url, { path: "/relay/socket.io/", transports, forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 200 });
  let pings = 0;
  socket.io.on("ping", () => (pings += 1) === 2 && say({ number, stayed: socket.io.engine.transport.name }));
  socket.io.on("error", (error) => say({ number, error: error.message }));
  socket.on("connect", () => {
    const { engine } = socket.io;
    socket.emit("register", { id: `${prefix}-${number}` }, ({ ok }) => say({ number, registered: ok, sid: engine.id }));
  });
  socket.on("push", ({ data }) => say({ number, data, transport: socket.io.engine.transport.name }));
  socket.on("disconnect", (reason) => say({ number, disconnect: reason }));
}
