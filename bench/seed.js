// The old Node server on today's socket.io, for comparison. A POST's data goes to the clients that registered its
// destination. A room for each id replaces the old server's table, so that several clients may register one id.
//
// node seed.js PORT                     one server
// node seed.js PORT REDIS_URL           one of several nodes, which socket.io's Redis adapter connects
// node seed.js PORT REDIS_URL emitter   no node: passes POSTs on to the nodes with socket.io's Redis emitter
const http = require("http");
const querystring = require("querystring");

const [port, redis, role] = process.argv.slice(2);
const server = http.createServer();

function connectRedis() {
  return require("redis").createClient({ url: redis }).connect();
}

async function socketIoServer() {
  const { Server } = require("socket.io");
  const io = new Server(server);
  if (redis) {
    const { createAdapter } = require("@socket.io/redis-adapter");
    io.adapter(createAdapter(await connectRedis(), await connectRedis()));
  }
  io.on("connection", socket => {
    socket.on("register", ({ id }) => socket.join(String(id)));
  });
  return io;
}

async function emitter() {
  const { Emitter } = require("@socket.io/redis-emitter");
  return new Emitter(await connectRedis());
}

(role === "emitter" ? emitter() : socketIoServer()).then(io => {
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

  server.listen(Number(port), "127.0.0.1");
});
