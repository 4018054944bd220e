/** The status page: asks for status.json, and shows the answer, or its absence. */

import { showFigures } from "./figures.js";
import { showHour, showOldHour } from "./hour.js";
import { showLimits } from "./limits.js";
import { showLists } from "./lists.js";
import { poll } from "./poll.js";
import { showUnreachable, showVerdict } from "./verdict.js";

const { body } = document;
const SOON = 60_000; // ms after the page was loaded
let hasFigures = false;

function answered(status) {
  // After an upgrade, the answer may have figures that this page does not know. Never reload twice in a minute, because
  // relays of several versions may be behind a load balancer.
  if (status.relay.version !== body.dataset.version && performance.now() > SOON) location.reload();
  showVerdict(status);
  showFigures(status);
  showHour(status);
  showLimits(status);
  showLists(status);
  const share = status.clients.websocket_percent ?? 0;
  document.getElementById("share").setAttribute("width", share);
  hasFigures = true;
  body.removeAttribute("data-loading");
  body.removeAttribute("data-old");
}

function failed(error, since) {
  body.toggleAttribute("data-old", true);
  showOldHour();
  showUnreachable(error, since, hasFigures);
}

const again = poll("status.json", answered, failed);
document.getElementById("again").addEventListener("click", again);
