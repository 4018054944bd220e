// Refusals: what the relay answers, `{ok: false, error, message}`, and those that are made here.

export const refusal = (error, message) => ({ ok: false, error, message });
export const CUT = refusal("disconnected", "connection lost");
export const CLOSED = refusal("closed", "closed");

export const isRefused = (body) => body?.ok === false;
export const LATE = refusal("timeout", "no answer in time");

/** Return the details of an error for a server that answers, but not as a relay does. */
export const noRelay = (url, how = "") => ({
  error: "no_relay",
  message: `no relay answers${how}: run python relay.py doctor ${new URL("..", url)}`,
  url,
});

/** Return an Error with the refusal's `code` and `details`. */
export function asError({ ok, data, error, message = error, ...others }) {
  return Object.assign(new Error(message), { code: error, details: { error, message, ...others } });
}
