/** The last hour: three charts over one time axis, and one moment of all three by pointer, finger or arrow keys. */

import { count, large, time, toMinute } from "./format.js";
import { area, gaps, line, means, roundTop } from "./paths.js";
import { write } from "./figures.js";

const SVG = "http://www.w3.org/2000/svg";
const QUARTER = 900; // s between the times on the axis
const EDGE = 0.06; // of the axis: a time that is nearer to its ends would be cut
const KEYS = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1, PageDown: -30, PageUp: 30, Home: -1000, End: 1000 };

const cursor = document.getElementById("cursor");
let history = null;
let charts = [];
let chosen = null; // the step that is looked at; null: the last one
let isOld = false; // whether the last step is no longer now

const ms = (us) => us / 1000;
const mapped = (values, change) => values.map((value) => (value === null ? null : change(value)));

/** The three charts: the line, a second one, how a step is written, and the sentence for those who do not see it. */
function read({ step, series }) {
  const perSecond = (value) => value / step;
  const refused = series.refused.map((value, index) => (value + series.failed[index]) / step || null);
  return [
    {
      name: "clients",
      values: series.clients,
      written: (at) => count(series.clients[at]),
      scale: large,
    },
    {
      name: "pushes",
      values: mapped(series.pushes, perSecond),
      second: refused,
      written: (at) => large(series.pushes[at] === null ? null : perSecond(series.pushes[at])) + (refused[at] ? ` · ▲ ${large(refused[at])} refused` : ""),
      scale: large,
    },
    {
      name: "p99_us",
      values: mapped(series.p99_us, ms),
      second: mapped(series.p50_us, ms),
      written: (at) => (series.p99_us[at] === null ? "—" : `p50 ${large(ms(series.p50_us[at]))} · p99 ${large(ms(series.p99_us[at]))}`),
      scale: (top) => `${large(top)} ms`,
    },
  ];
}

/** Draw the hour of an answer. */
export function showHour(status) {
  const wasOld = isOld;
  const isNew = history?.end !== status.history.end || history.marks.length !== status.history.marks.length;
  [history, isOld] = [status.history, false];
  if (!isNew && !wasOld) return; // a step takes longer than the time between two answers
  charts = read(history);
  for (const chart of charts) draw(chart);
  drawAxis();
  drawMarks(status.now);
  showMoment();
  for (const spark of document.querySelectorAll("[data-spark]")) drawSpark(spark, history.series[spark.dataset.spark]);
}

/** Show that this answer is no longer the newest. */
export function showOldHour() {
  isOld = true;
  if (history) showMoment();
}

function drawSpark(svg, values) {
  const calm = means(values, 6);
  const top = Math.max(1, ...calm) * 1.05;
  svg.querySelector(".area").setAttribute("d", area(calm, top));
  svg.querySelector(".line").setAttribute("d", line(calm, top));
}

function draw({ name, values, second, written, scale }) {
  const figure = document.querySelector(`[data-plot="${name}"]`);
  const top = roundTop([...values, ...(second ?? [])]);
  const put = (part, path) => figure.querySelector(part).setAttribute("d", path);
  put(".area", area(values, top));
  put(".line", line(values, top));
  put(".second", second ? line(second, top) : "");
  figure.querySelector(".gaps").replaceChildren(...gaps(history.series.clients).map(([first, steps]) => box(first, steps)));
  figure.querySelector(".lines").replaceChildren(...history.marks.map(({ at, kind }) => upright(stepOf(at), kind)));
  write(figure.querySelector(".scale"), scale(top));
  figure.querySelector("svg").setAttribute("aria-label", sentence(figure.querySelector("figcaption span").textContent, values, written));
}

function sentence(name, values, written) {
  const found = values.filter((value) => value !== null);
  if (!found.length) return `${name}: no figures yet`;
  const [least, most] = [Math.min(...found), Math.max(...found)].map(large);
  return `${name}: between ${least} and ${most} in the last hour, now ${written(history.length - 1)}`;
}

function box(first, steps) {
  const rect = document.createElementNS(SVG, "rect");
  for (const [key, value] of Object.entries({ x: first, y: 0, width: steps, height: 100 })) rect.setAttribute(key, value);
  return rect;
}

function upright(at, kind) {
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", `M${Math.max(0.5, Math.min(at, 359.5))} 0V100`);
  path.setAttribute("class", kind);
  return path;
}

const stepOf = (at) => history.length - (history.end - at) / history.step;
const timeOf = (step) => history.end - (history.length - step - 1) * history.step;
const left = (element, step) => element.style.setProperty("left", `${(100 * step) / history.length}%`);

function drawAxis() {
  const labels = [];
  const first = Math.ceil((history.end - history.length * history.step) / QUARTER) * QUARTER;
  for (let at = first; at <= history.end; at += QUARTER) {
    const label = document.createElement("span");
    label.textContent = toMinute(at);
    left(label, stepOf(at));
    const place = stepOf(at) / history.length;
    if (place > EDGE && place < 1 - EDGE) labels.push(label);
  }
  document.querySelector(".axis").replaceChildren(...labels);
}

function drawMarks(now) {
  const lines = history.marks.slice(-4).map(({ at, kind, text }) => {
    const item = document.createElement("li");
    item.className = kind;
    const when = document.createElement("b");
    when.textContent = time(at, now);
    item.append(when, ` ${text}`);
    return item;
  });
  document.getElementById("marks").replaceChildren(...lines);
}

/** Show the chosen step in all three charts, or the last one. */
function showMoment() {
  const at = chosen ?? history.length - 1;
  for (const { name, written } of charts) write(document.querySelector(`[data-moment="${name}"]`), written(at));
  const when = chosen === null && !isOld ? "Now" : time(timeOf(at));
  write(document.getElementById("moment"), when);
  cursor.classList.toggle("chosen", chosen !== null);
  cursor.style.setProperty("--at", `${(100 * (at + 0.5)) / history.length}%`);
  cursor.setAttribute("aria-valuenow", at);
  const [browsers, pushes, delay] = charts.map(({ written }) => written(at));
  cursor.setAttribute("aria-valuetext", `${when}: ${browsers} browsers, ${pushes} pushes per second, POST to page in ms: ${delay}`);
}

function choose(step) {
  chosen = step === null || !history ? null : Math.max(0, Math.min(history.length - 1, Math.floor(step)));
  if (history) showMoment();
}

function pointed(event) {
  const { left: start, width } = cursor.getBoundingClientRect();
  choose(((event.clientX - start) / width) * (history?.length ?? 0));
}

cursor.addEventListener("pointermove", pointed);
cursor.addEventListener("pointerdown", pointed);
cursor.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && choose(null));
cursor.addEventListener("blur", () => choose(null));
cursor.addEventListener("keydown", (event) => {
  if (event.key === "Escape") choose(null);
  else if (event.key in KEYS && history) choose((chosen ?? history.length - 1) + KEYS[event.key]);
  else return;
  event.preventDefault();
});
