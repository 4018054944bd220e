// The exports of static/relay.mjs and the npm package.

export { Relay } from "./relay.js";
export { io } from "./socket.js";
