// Refusals, `{ok: false, error, message}`: those that the relay sends, and those that are made here.

export const refusal = (error, message = error) => ({ ok: false, error, message });
export const CUT = refusal("disconnected");
export const CLOSED = refusal("closed");

export const isRefused = (body) => body?.ok === false;
export const isTemporary = (body) => /_available|many_events/.test(body.error);
export const LATE = refusal("timeout");

/** Return the details of an error if no relay answers. `how` is what answered instead, such as " (HTTP 502)". */
export const noRelay = (url, how = "") => ({
  error: "no_relay",
  message: `no relay answers${how}: python relay.py doctor ${url.slice(0, -10)}`,
  url,
});

/** Return an Error with the refusal's `code` and `details`. */
export function asError({ ok, data, error, message = error, ...others }) {
  return Object.assign(Error(message), { code: error, status: others.status, details: { error, message, ...others } });
}
