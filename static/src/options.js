/** The options of Relay.connect() and io(): docs/socket-api.md. `rest` has no default, because it depends on the transport. */
export const DEFAULTS = {
  transports: ["websocket", "polling"],
  timeout: 10000, // ms: for a transport to open, for a token, and for the answer to a push
  reconnectDelay: 1000,
  reconnectDelayMax: 30000,
  probeDelay: 30000, // ms until a polling page tries WebSocket again; doubled after each failure, up to five minutes
};
