/** The first sentence of the page: the verdict of the relay, or that it does not answer. */

import { copies } from "../clipboard.js";
import { time } from "./format.js";
import { write } from "./figures.js";

const place = (id) => document.getElementById(id);
const WORDS = { true: ["online", "Ready"], false: ["refused", "Not ready"] };
let announced = null; // the code of the last verdict that a screen reader announced

function show({ level, code, sentence, more, todo, command }) {
  place("verdict").dataset.level = level;
  for (const [id, text] of Object.entries({ sentence, more, todo, command })) write(place(id), text);
  place("copy").hidden = !command;
  document.title = `${level === "ok" ? "" : "▲ "}Status · the relay`;
  // Only a change is news: the numbers in the sentence change all the time.
  if (announced !== null && announced !== code) place("said").textContent = `${sentence} ${todo}`;
  announced = code;
}

function showState(status, word) {
  place("state").dataset.status = status;
  write(place("state"), word);
}

/** Show the verdict of an answer. */
export function showVerdict({ verdict, state }) {
  show(verdict);
  showState(...(state.draining ? ["offline", "Stopping"] : WORDS[state.ready]));
  place("again").hidden = true;
}

/** Show that the relay does not answer. `since`: time of the last answer, ms since 1970. */
export function showUnreachable(error, since, hasFigures) {
  const at = time(since / 1000);
  const figures = hasFigures ? ` The figures below are from ${at}.` : "";
  show({
    level: "bad",
    code: error.denied ? "denied" : "unreachable",
    sentence: error.denied ? "The relay no longer shows its status to this browser." : `The relay has not answered since ${at}.`,
    more: error.denied ? error.message + figures : `${error.message}${figures} This page keeps trying.`.trim(),
    todo: error.denied ? "" : "Check the terminal in which it was started, or its service on the relay’s machine:",
    command: error.denied ? "" : "systemctl status relay",
  });
  showState("refused", error.denied ? "Not shown" : "No answer");
  place("again").hidden = false;
}

copies(place("copy"), () => place("command").textContent, place("said"));
