/** The last hour: three charts over one time axis, and the small charts of the tiles. */

import { count, large, time, toMinute } from "./format.js";
import { Cursor } from "./cursor.js";
import { area, gaps, line, means, roundTop } from "./paths.js";
import { write } from "./figures.js";

const SVG = "http://www.w3.org/2000/svg";
// The axis of a young relay is shorter, so that its charts are not empty: minutes, and minutes between the labels.
const AXES = [[10, 2], [20, 5], [30, 5], [60, 15]];
const CALM = 60; // the steps of a small chart
const EDGE = 0.06; // of the axis: a label nearer to its ends would be cut off

const cursor = new Cursor(document.getElementById("cursor"), showMoment);
let latest = null; // the last answer
let history = null; // the part of its history that is shown
let minutes = 60; // its length
let between = 15; // minutes between two labels of the axis
let charts = [];
let isOld = false; // whether the last step is no longer the present

const ms = (us) => us / 1000;
const mapped = (values, change) => values.map((value) => (value === null ? null : change(value)));

/**
 * Return the three charts: the values of the line, those of a second one, and how a step and the scale are written; and
 * how an answer's figure of the present is written, as in its tile: the last step may be ten seconds old.
 */
function read({ step, series }) {
  const perSecond = (value) => value / step;
  const notAccepted = series.refused.map((value, index) => (value + series.failed[index]) / step || null);
  const refusedAt = (at) => (notAccepted[at] ? ` · ▲ ${large(notAccepted[at])} not accepted` : "");
  return [
    {
      name: "clients",
      values: series.clients,
      written: (at) => count(series.clients[at]),
      present: ({ clients }) => count(clients.now),
      scale: large,
    },
    {
      name: "pushes",
      values: mapped(series.pushes, perSecond),
      second: notAccepted,
      written: (at) => large(series.pushes[at] === null ? null : perSecond(series.pushes[at])) + refusedAt(at),
      present: ({ pushes }) => large(pushes.rate) + refusedAt(notAccepted.length - 1),
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
  const found = visible(status.history);
  const isNew = history?.end !== found.end || history.marks.length !== found.marks.length;
  latest = status;
  if (!isNew && !isOld) return showMoment(); // a step takes longer than the time between two answers
  [history, isOld] = [found, false];
  charts = read(history);
  write(document.getElementById("hour-title"), `The last ${period()}`);
  cursor.length = history.length;
  for (const chart of charts) draw(chart);
  drawAxis();
  drawMarks(status.now);
  showMoment();
  for (const spark of document.querySelectorAll("[data-spark]")) drawSpark(spark, history.series[spark.dataset.spark]);
}

/** Return the end of the history that has figures, at least ten minutes of it. */
function visible({ step, length, end, series, marks }) {
  const known = length - Math.max(0, series.clients.findIndex((value) => value !== null));
  [minutes, between] = AXES.find(([span]) => span * 60 >= known * step) ?? AXES.at(-1);
  const steps = Math.min(length, (minutes * 60) / step);
  const cut = Object.entries(series).map(([name, values]) => [name, values.slice(-steps)]);
  const since = end - steps * step;
  return { step, end, length: steps, series: Object.fromEntries(cut), marks: marks.filter(({ at }) => at >= since) };
}

const period = () => (minutes === 60 ? "hour" : `${minutes} minutes`);

/** Show that this answer is no longer the newest. */
export function showOldHour() {
  isOld = true;
  if (history) showMoment();
}

function drawSpark(svg, values) {
  const calm = means(values, Math.max(1, Math.round(values.length / CALM)));
  stretch(svg);
  const top = Math.max(1, ...calm) * 1.05;
  svg.querySelector(".area").setAttribute("d", area(calm, top));
  svg.querySelector(".line").setAttribute("d", line(calm, top));
}

/** Give a chart one unit of width for each step. */
function stretch(svg) {
  svg.setAttribute("viewBox", `0 0 ${history.length} 100`);
}

function draw({ name, values, second, written, scale }) {
  const figure = document.querySelector(`[data-plot="${name}"]`);
  const top = roundTop([...values, ...(second ?? [])]);
  stretch(figure.querySelector("svg"));
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
  return `${name}: between ${least} and ${most} in the last ${period()}, now ${written(history.length - 1)}`;
}

function box(first, steps) {
  const rect = document.createElementNS(SVG, "rect");
  for (const [key, value] of Object.entries({ x: first, y: 0, width: steps, height: 100 })) rect.setAttribute(key, value);
  return rect;
}

function upright(at, kind) {
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", `M${Math.max(0.5, Math.min(at, history.length - 0.5))} 0V100`);
  path.setAttribute("class", kind);
  return path;
}

const stepOf = (at) => history.length - (history.end - at) / history.step;
const timeOf = (step) => history.end - (history.length - step - 1) * history.step;
const left = (element, step) => element.style.setProperty("left", `${(100 * step) / history.length}%`);

function drawAxis() {
  const labels = [];
  const apart = between * 60;
  const first = Math.ceil((history.end - history.length * history.step) / apart) * apart;
  for (let at = first; at <= history.end; at += apart) {
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
  const at = cursor.step ?? history.length - 1;
  const isNow = cursor.step === null && !isOld;
  const when = isNow ? "Now" : time(timeOf(at));
  write(document.getElementById("moment"), when);
  const texts = charts.map(({ written, present }) => (isNow && present ? present(latest) : written(at)));
  charts.forEach(({ name }, index) => write(document.querySelector(`[data-moment="${name}"]`), texts[index]));
  const [browsers, pushes, delay] = texts;
  cursor.show(at, `${when}: ${browsers} browsers, ${pushes} pushes per second, POST to page in ms: ${delay}`);
}
