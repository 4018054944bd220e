// The old Node server on today's socket.io, for comparison. A POST's data goes to the clients that registered its
// destination. A room for each id replaces the old server's table, so that several clients may register one id.
// Usage: node seed.js PORT
const http = require("http");
const querystring = require("querystring");
const { Server } = require("socket.io");

const server = http.createServer();
const io = new Server(server);

io.on("connection", socket => {
  socket.on("register", ({ id }) => socket.join(String(id)));
});

// socket.io has its own listeners on the server: all other requests go to the push handler.
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
    const isJson = request.headers["content-type"] === "application/json"; // the old server reads forms only
    const { destination, data } = isJson ? JSON.parse(body) : querystring.parse(body);
    if (destination) io.to(destination).emit("push", { data });
    response.end();
  });
});

server.listen(Number(process.argv[2]), "127.0.0.1");
