// Small functions that the pages share. Everything from outside is shown as text, never as HTML.

import { toClipboard } from "./clipboard.js";

export const $ = (id) => document.getElementById(id);

/** Return an element with a class and children, which are elements or text. */
export function element(tag, className, ...children) {
  const node = document.createElement(tag);
  node.className = className;
  node.append(...children);
  return node;
}

/** Return a count with its noun: "1 window", "1,204 windows". */
export const counted = (count, one, several = one + "s") => `${count.toLocaleString("en")} ${count === 1 ? one : several}`;

/** Return a time of day: "20:15:03", or "20:15:03.412". */
export function timeOfDay(date, withMilliseconds = false) {
  const two = (number) => String(number).padStart(2, "0");
  const time = [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(":");
  return withMilliseconds ? `${time}.${String(date.getMilliseconds()).padStart(3, "0")}` : time;
}

/** Return a function that calls `run` once, at most `ms` after the first of several calls. */
export function soon(run, ms) {
  let timer = 0;
  return () => {
    timer = timer || setTimeout(() => {
      timer = 0;
      run();
    }, ms);
  };
}

/** Return a function that collects numbers and calls `say` with their sum, at most once a second. */
export function atMostOncePerSecond(say) {
  let sum = 0;
  let isWaiting = false;
  const run = () => {
    isWaiting = sum > 0;
    if (!isWaiting) return;
    say(sum);
    sum = 0;
    setTimeout(run, 1000);
  };
  return (number) => {
    sum += number;
    if (!isWaiting) run();
  };
}

/** Copy a text for a button, which shows the result for two seconds. `fallback` is an element to select instead. */
export async function copyFor(button, text, fallback) {
  const label = button.dataset.label || (button.dataset.label = button.textContent);
  const copied = await toClipboard(text);
  button.focus({ preventScroll: true }); // because toClipboard() may have taken the focus
  if (!copied && fallback) getSelection().selectAllChildren(fallback); // so that the reader can press Ctrl+C
  const result = copied ? "Copied" : "Press Ctrl+C";
  button.textContent = $("said").textContent = result;
  setTimeout(() => ([button.textContent, $("said").textContent] = [label, ""]), 2000);
}
