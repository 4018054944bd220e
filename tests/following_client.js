// The official socket.io-client in a page that must miss nothing: one socket for each id, which registers
// again after every reconnect, with the last position that it received. Prints each event as a line of JSON.
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
