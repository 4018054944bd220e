// The official socket.io-client as a page would use it that wants to miss nothing: one socket for each id, registered
// again after every reconnect with the id it saw last. Prints a JSON line for each thing that happens.
// Usage: node following_client.js URL TRANSPORT ID…
const { io } = require("socket.io-client");

const [url, transport, ...ids] = process.argv.slice(2);
const say = (what) => console.log(JSON.stringify(what));

ids.forEach((id, number) => {
  const socket = io(url, { transports: [transport], forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 200, timeout: 1000 });
  let last = null;
  const register = () =>
    socket.emit("register", { id, since: last }, (answer) => {
      if (!answer.ok) return setTimeout(register, 100);
      last = last || answer.ids[id].position;
      say({ number, registered: answer.ids[id] });
    });
  socket.on("connect", register);
  socket.on("push", (message) => {
    last = message.id;
    say({ number, message });
  });
});
