// What the relay is measured against: the seed's own server, on today's socket.io. A POST's destination and data go to
// those who registered the destination; a room for each id stands for the seed's table, so that many may hold one id.
// Usage: node seed.js PORT
const http = require("http");
const querystring = require("querystring");
const { Server } = require("socket.io");

const server = http.createServer();
const io = new Server(server);

io.on("connection", socket => {
  socket.on("register", ({ id }) => socket.join(String(id)));
});

// socket.io has put its own listeners on the server: requests that are not its go to the push handler, and only there.
const socketIo = server.listeners("request").slice();
server.removeAllListeners("request");
server.on("request", (request, response) => {
  if (request.url.startsWith("/socket.io/")) {
    socketIo.forEach(listener => listener.call(server, request, response));
    return;
  }
  let body = "";
  request.on("data", chunk => (body += chunk));
  request.on("end", () => {
    const isJson = request.headers["content-type"] === "application/json"; // the seed takes forms alone
    const { destination, data } = isJson ? JSON.parse(body) : querystring.parse(body);
    if (destination) io.to(destination).emit("push", { data });
    response.end();
  });
});

server.listen(Number(process.argv[2]), "127.0.0.1");
