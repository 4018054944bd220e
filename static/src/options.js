import { here } from "./scope.js";

/** The options of Relay.connect() and io(): docs/socket-api.md. */
const DEFAULTS = {
  transports: ["websocket", "polling"],
  timeout: 10000, // ms: for a transport to open, for a token, and for the answer to a push
  reconnectDelay: 1000,
  reconnectDelayMax: 30000,
  probeDelay: 30000, // ms until a polling page tries WebSocket again; doubled after each failure, up to five minutes
  rest: -1, // seconds; below 0: by the transport
  debug: /relay:debug/.test(here.href), // so that a page can be debugged without changing it
};

/** Return all options. An option that is unknown or not of its default's type is ignored, with a warning if `isStrict`. */
export function complete(options, isStrict) {
  const all = { ...DEFAULTS };
  for (const name in options) {
    const value = name === "transports" ? [].concat(options[name] || DEFAULTS[name]) : options[name];
    if (typeof value === typeof DEFAULTS[name]) all[name] = value;
    else if (isStrict) console.warn("relay: invalid", name);
  }
  return all;
}
