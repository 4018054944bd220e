// What static/relay.mjs and the npm package export.

export { Relay } from "./relay.js";
export { io } from "./socket.js";
