// The application behind pushpin, which asks it about each new WebSocket: it subscribes the client to the channel that
// the path names. pushpin then holds the connection, and delivers what is published, without asking again.
//
// node grip.js PORT
const http = require("http");

function answer(url, events) {
  if (!events.startsWith("OPEN\r\n")) return "";
  const subscribe = `c:${JSON.stringify({ type: "subscribe", channel: url.slice(1) })}`;
  return `OPEN\r\nTEXT ${subscribe.length.toString(16)}\r\n${subscribe}\r\n`;
}

const server = http.createServer((request, response) => {
  let events = "";
  request.on("data", chunk => (events += chunk));
  request.on("end", () => {
    response.setHeader("Content-Type", "application/websocket-events");
    response.setHeader("Sec-WebSocket-Extensions", 'grip; message-prefix=""');
    response.end(answer(request.url, events));
  });
});
server.keepAliveTimeout = 600_000; // ms; or pushpin might use a connection that is just being closed
server.listen(Number(process.argv[2]), "127.0.0.1", 4096);
