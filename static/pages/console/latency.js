// The milliseconds from a push of this page until it arrives here. Both ends use the same clock, so the figure is exact.

const KEPT = 50; // arrivals that are remembered, because a publication usually arrives before the answer to its push
const PATIENCE = 5000; // ms: a push that does not arrive by then has another destination, or arrives after a reconnect

export class Latency {
  constructor() {
    this.recent = new Map(); // place -> time of the arrival, the newest last
    this.expected = new Map(); // place -> function that takes the time of the arrival
  }

  /** Note that a publication arrived just now. */
  arrived(destination, position) {
    const place = placeOf(destination, position);
    const now = performance.now();
    const take = this.expected.get(place);
    if (take) return take(now);
    this.recent.set(place, now);
    if (this.recent.size > KEPT) this.recent.delete(this.recent.keys().next().value);
  }

  /** Resolve with the ms from `started` until this publication arrived; null if it does not arrive soon. */
  of(destination, position, started) {
    const place = placeOf(destination, position);
    const before = this.recent.get(place);
    if (before !== undefined) return Promise.resolve(before - started);
    return new Promise((resolve) => {
      const done = (value) => {
        this.expected.delete(place);
        resolve(value);
      };
      this.expected.set(place, (now) => done(now - started));
      setTimeout(done, PATIENCE, null);
    });
  }
}

const placeOf = (destination, position) => JSON.stringify([destination, position]);

/** Return a latency for people: "4 ms". */
export const milliseconds = (ms) => (ms < 1 ? "under 1 ms" : `${Math.round(ms).toLocaleString("en")} ms`);
