// Waiting. Every wait uses setTimeout(), Date.now() and Math.random(), which tests replace.

import { asError, late } from "./errors.js";

/** Return a timer: call it with milliseconds to restart it, and without to stop it. */
export function timer(run) {
  let id;
  return (ms) => {
    clearTimeout(id);
    if (ms >= 0) id = setTimeout(run, ms);
  };
}

/** Return a function that combines several calls within `ms` into one call of `run`. */
export function soon(run, ms) {
  let id;
  return () => {
    id ||= setTimeout(() => {
      id = 0;
      run();
    }, ms);
  };
}

/** Return a promise of `work` that is rejected with `timeout` after `ms`. */
export const within = (ms, work) => Promise.race([work, new Promise((_, reject) => setTimeout(reject, ms, asError(late(ms))))]);
