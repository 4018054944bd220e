/** How figures are written: 1,284 · 12.4 M · 6.1 ms · 12 MiB · 3 d 4 h · 20:15:02. An unknown value is a dash. */

export const DASH = "—";

const SPACE = "\u00a0"; // a unit stays on the line of its number
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const minute = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat("en", { month: "short", day: "numeric" });

/** Return a function that writes a value, and a dash for null. */
const known = (write) => (value) => (value === null || value === undefined ? DASH : write(value));

/** 3 significant digits at most, with the decimal only below 100. */
const short = (value) => (value < 100 ? tenths : whole).format(value);

const scaled = (units, base) => (value) => {
  let unit = 0;
  while (value >= base * 0.9995 && unit < units.length - 1) {
    value /= base;
    unit += 1;
  }
  return short(value) + (units[unit] && SPACE + units[unit]);
};

const thousands = scaled(["", "k", "M", "G", "T"], 1000);

export const count = known((value) => whole.format(value));
export const large = known((value) => (value < 10_000 ? short(value) : thousands(value)));
export const percent = known((value) => `${value < 10 ? tenths.format(value) : whole.format(value)}${SPACE}%`);
export const bytes = known(scaled(["bytes", "KiB", "MiB", "GiB", "TiB"], 1024));

export const seconds = known((value) => {
  if (value >= 1) return `${short(value)}${SPACE}s`;
  return value >= 0.0001 ? `${short(value * 1000)}${SPACE}ms` : `<${SPACE}0.1${SPACE}ms`;
});

/** The two largest units of a time span in seconds. */
export const span = known((value) => {
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, size]) => value >= size);
  if (first < 0) return `0${SPACE}s`;
  const [name, size] = units[first];
  const text = `${Math.floor(value / size)}${SPACE}${name}`;
  const [next, part] = units[first + 1] ?? ["", 1];
  const rest = Math.floor((value % size) / part);
  return next && rest ? `${text} ${rest}${SPACE}${next}` : text;
});

export const plural = (number, one, many) => `${large(number)}${SPACE}${number === 1 ? one : many}`;

/** A moment in seconds since 1970, with its day if that is not the day of `now`. */
export function time(at, now = at) {
  const date = new Date(at * 1000);
  const text = clock.format(date);
  return date.toDateString() === new Date(now * 1000).toDateString() ? text : `${day.format(date)}, ${text}`;
}

export const toMinute = (at) => minute.format(new Date(at * 1000));
