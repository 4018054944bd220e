// Timers. All waiting uses setTimeout(), Date.now() and Math.random(), which tests replace.


/**
 * Return a timer: call it with milliseconds to restart it, and without to stop it.
 *
 * It waits 23 days at most, because browsers do not wait at all if a time has more than 31 bits.
 */
export function timer(run) {
  let id;
  return (ms) => {
    clearTimeout(id);
    if (ms >= 0) id = setTimeout(run, Math.min(ms, 2e9));
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
