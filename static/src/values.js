// The values that a page may pass: ids are text, and data is JSON.

import { asError, refusal } from "./errors.js";

export const isObject = (value) => Object(value) === value;
export const isFunction = (value) => typeof value === "function";
export const listOf = (ids) => [].concat(ids).map(asText);

/** Return an id as text. Reject numbers beyond 2^53, which JavaScript may have rounded. */
export function asText(id) {
  if (/^(st|bi)/.test(typeof id) || Number.isSafeInteger(id)) return String(id);
  throw asError(refusal("invalid_id"));
}

/** Refuse bytes, Map, Blob and other objects with a tag, which JSON would turn into an object without their content. */
export function jsonOnly(_, value) {
  const tag = value?.[Symbol.toStringTag];
  if (tag) throw asError(refusal("invalid_data", tag + " is not JSON"));
  return value;
}
