// "Show what is kept": the publications that the relay keeps for this page's id.

import { $ } from "../dom.js";
import { address, canPush, destination } from "./facts.js";
import { MAX_ROWS } from "./arrivals.js";

/** Let the button add what is kept to the list, if this browser may ask. */
export function offerHistory(list) {
  $("show-kept").hidden = !canPush || !destination;
  $("show-kept").addEventListener("click", async () => {
    try {
      list.addKept(await newest(), destination);
      $("said").textContent = $("arrived").querySelector(".rule.kept").textContent;
      $("kept-answer").textContent = "";
    } catch (error) {
      $("kept-answer").textContent = error.message;
    }
  });
}

/** Return the newest publications, the oldest of them first. The relay lists from the oldest, so first ask for the position. */
async function newest() {
  const { position } = await ask({ limit: 1 });
  const [epoch, offset] = position.split(":");
  const since = offset > MAX_ROWS ? { since: `${epoch}:${offset - MAX_ROWS}` } : {};
  return (await ask({ ...since, limit: MAX_ROWS })).publications;
}

async function ask(fields) {
  const query = new URLSearchParams({ destination, ...fields });
  const response = await fetch(address(`history?${query}`)).catch(() => {
    throw new Error("The relay does not answer. Try again when this page is online.");
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.message || `HTTP ${response.status}`);
  return answer;
}
