/** Turns a series into the path of an SVG chart that is 100 units high, with one unit of width for each step. */

const HEIGHT = 100;
const PAD = 4; // the line must not be cut at the top or the bottom

/** Return the parts of a series without gaps, as [index of the first value, values]. */
function runs(values) {
  const found = [];
  let run = null;
  values.forEach((value, index) => {
    if (value === null) run = null;
    else if (run) run[1].push(value);
    else found.push((run = [index, [value]]));
  });
  return found;
}

const y = (value, top) => (HEIGHT - PAD - ((HEIGHT - 2 * PAD) * value) / top).toFixed(1);
const points = ([first, values], top) => values.map((value, index) => `${first + index + 0.5} ${y(value, top)}`);

/** The line. A single value is a short dash. */
export function line(values, top) {
  return runs(values)
    .map((run) => `M${points(run, top).join("L")}${run[1].length === 1 ? "h.5" : ""}`)
    .join("");
}

/** The area below the line. */
export function area(values, top) {
  return runs(values)
    .map((run) => `M${run[0] + 0.5} ${HEIGHT}L${points(run, top).join("L")}V${HEIGHT}Z`)
    .join("");
}

/** Return the gaps of a series as [first, number of steps]. */
export function gaps(values) {
  const found = [];
  values.forEach((value, index) => {
    if (value !== null) return;
    const last = found.at(-1);
    if (last && last[0] + last[1] === index) last[1] += 1;
    else found.push([index, 1]);
  });
  return found;
}

/** Replace each `size` neighboring values with their mean, so that a small chart is calm. */
export function means(values, size) {
  const found = [];
  for (let index = 0; index < values.length; index += size) {
    const known = values.slice(index, index + size).filter((value) => value !== null);
    const mean = known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
    for (let step = 0; step < size; step += 1) found.push(mean);
  }
  return found;
}

/** Return the next round number above all values: 1, 2, 5, 10, 20 … */
export function roundTop(values) {
  const most = Math.max(0, ...values.filter((value) => value !== null));
  if (!most) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return power * [1, 1.5, 2, 3, 5, 8, 10].find((step) => step * power >= most * 0.9999);
}
