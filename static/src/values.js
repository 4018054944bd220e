// The values that a page may pass: ids are text, and data is JSON.

import { asError, refusal } from "./errors.js";

export const isObject = (value) => value && typeof value === "object";
export const isFunction = (value) => typeof value === "function";
export const listOf = (ids) => [].concat(ids).map(asText);

/** Return an id as text. Reject numbers beyond 2^53, which JavaScript may have rounded. */
export function asText(id) {
  if (/^(st|bi)/.test(typeof id) || Number.isSafeInteger(id)) return String(id);
  throw asError(refusal("invalid_id", "ids are text"));
}

/** Refuse bytes, which JSON would turn into an object with numbers as names. */
export function textOnly(_, value) {
  if (value?.byteLength >= 0) throw asError(refusal("invalid_data", "bytes need base64"));
  return value;
}
