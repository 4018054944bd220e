/**
 * Connect a wire over WebSocket: set its send() and close().
 *
 * It calls `wire._receive(packet)` with each Engine.IO packet, and `wire.end(reason)` when it ends.
 */
export function websocket(wire, url) {
  const ws = new WebSocket(url.replace("http", "ws") + "?EIO=4&transport=websocket");
  ws.onmessage = (event) => wire._receive(event.data);
  ws.onclose = ws.onerror = () => wire.end("transport close"); // a blocked WebSocket fires only one of them
  wire.send = (packet) => ws.send(packet);
  wire.close = () => ws.close();
}
