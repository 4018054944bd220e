/** Asks for status.json: every two seconds while the page is visible, and less often while the relay does not answer. */

const EVERY = 2000; // ms between an answer and the next request
const SLOWEST = 10_000; // ms between requests while the relay does not answer
const PATIENCE = 10_000; // ms to wait for an answer

/** The reason why there are no figures. `text` is for people; `denied`: the relay itself refuses them. */
class NoFigures extends Error {
  constructor(text, denied = false) {
    super(text);
    this.denied = denied;
  }
}

async function ask(url) {
  let response;
  try {
    response = await fetch(url, { signal: AbortSignal.timeout(PATIENCE), headers: { Accept: "application/json" } });
  } catch {
    throw new NoFigures("");
  }
  const status = await response.json().catch(() => null);
  if (response.ok && status?.verdict) return status;
  if (status?.message) throw new NoFigures(status.message, true);
  throw new NoFigures(`A web server answers in its place: HTTP ${response.status}.`);
}

/**
 * Begin to ask. `answered(status)` is called with each answer, `failed(error, since)` with each failure and the time of
 * the last answer (ms since 1970). Returns a function that asks at once.
 */
export function poll(url, answered, failed) {
  let timer = 0;
  let failures = 0;
  let asking = false;
  let last = Date.now();

  async function next() {
    clearTimeout(timer);
    if (asking || document.hidden) return;
    asking = true;
    const [status, error] = await ask(url).then((found) => [found], (reason) => [null, reason]);
    asking = false;
    if (status) [failures, last] = [0, Date.now()];
    else failures += 1;
    try {
      if (status) answered(status);
      else failed(error, last);
    } catch (mistake) {
      reportError(mistake); // of this page: it must not keep the page from asking again
    }
    clearTimeout(timer);
    timer = setTimeout(next, Math.min(EVERY * 2 ** Math.min(failures, 8) * (failures ? 0.5 + Math.random() / 2 : 1), SLOWEST));
  }

  document.addEventListener("visibilitychange", next);
  addEventListener("online", next);
  next();
  return next;
}
