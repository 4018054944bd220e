// A browser opens six connections to a host, and pages need some of them for other things. So only a few pages poll at a
// time: each takes a place, which is a Web Lock.

import { noop, page, scope } from "../scope.js";

const PLACES = 3;

/**
 * Take the n-th place to poll, or the next one that is free. If none is free, a visible page takes one from another page.
 * Resolve with a function that releases the place. Call lost() if there is no place, or if another page takes it.
 */
export async function takePlace(url, lost, n = 0) {
  const locks = scope.navigator?.locks;
  const isFull = n === PLACES;
  if (!locks || (isFull && page.hidden && !lost())) return noop; // lost() returns nothing
  return new Promise((resolve) => {
    const name = `relay:${isFull ? Date.now() % PLACES : n}:${url}`;
    const granted = (lock) => (lock ? new Promise(resolve) : resolve(takePlace(url, lost, n + 1)));
    const failed = (error) => (error.name === "AbortError" ? lost() : resolve(noop)); // or locks are not available here
    locks.request(name, { steal: isFull, ifAvailable: !isFull }, granted).catch(failed);
  });
}
