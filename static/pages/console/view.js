// Shows the state of the connection and of the registration: header, title, sentence, countdown and remedies.

import { $, counted } from "../dom.js";
import { cookieName, id } from "./facts.js";
import { quote } from "./quote.js";

const OLD_TOKEN = "This page’s token is no longer valid. Load the page again.";
const TRANSPORTS = { websocket: "WebSocket", polling: "long polling" };
const WORDS = { online: "Online", offline: "Offline", resting: "Resting", refused: "Not registered" };

let ticking = 0; // the timer of the countdown

/** Show a registration now, and whenever it changes. */
export function showRegistration(registration) {
  prepareRemedies(registration);
  $("try-now").addEventListener("click", () => registration.tryNow());
  registration.listeners.push(() => show(registration));
  show(registration);
}

function show(registration) {
  const { status, refusal } = registration;
  if (status === "connecting" && registration.wasTried) return tick(registration);
  const state = status === "online" && refusal ? "refused" : status;
  const word = WORDS[state] || "Connecting";
  if ($("state").dataset.status !== state) {
    $("state").dataset.status = document.body.dataset.status = state;
    $("state").textContent = word;
  }
  $("transport").textContent = TRANSPORTS[registration.relay.transport] || "";
  document.title = (/^(offline|refused)$/.test(state) ? `${word} · ` : "") + `${id} · the relay`;
  showNote(...sentence(registration));
  $("try-now").hidden = state !== "offline";
  showRemedies(registration, state === "refused");
  tick(registration);
}

/** Show a sentence under the id. `kind` is "", "warn" or "error". */
export function showNote(text, kind = "") {
  if ($("note-text").textContent !== text) $("note-text").textContent = text;
  $("note").dataset.kind = kind;
}

/** Return the sentence for this state, and its kind. A refusal stays true while the relay is away. */
function sentence(registration) {
  const { refusal, status, trouble } = registration;
  if (registration.isTokenOld) return [OLD_TOKEN, "error"];
  if (refusal) return [why(refusal, registration), "error"];
  if (trouble) return [trouble, "error"];
  if (status === "offline") return ["The relay does not answer.", "warn"];
  if (status === "resting") return ["This page is hidden and rests. It catches up when you look at it."];
  if (status !== "online") return ["Connecting to the relay …"];
  if (!registration.isRegistered) return ["Connected. Registering this id …"];
  return [registration.isJustBack ? returned(registration.lastAway) : "Pushes to this id appear here immediately."];
}

function why({ error, message }, { isOnlyMe }) {
  if (error === "missing_token") return "This relay requires a token to register an id, and this page has none yet.";
  if (error === "not_allowed" && isOnlyMe) return "On this relay, a page may register only “me”, its browser’s own id.";
  return `Not registered: ${message || error}`;
}

function returned({ from, to, caughtUp, outcome }) {
  const seconds = `Reconnected after ${Math.max(1, Math.round((to - from) / 1000))} s.`;
  if (outcome === "lost") return `${seconds} Some pushes are missing: the relay no longer keeps them.`;
  if (caughtUp) return `${seconds} ${counted(caughtUp, "push", "pushes")} caught up, none missing.`;
  return outcome ? `${seconds} Nothing was missed.` : seconds;
}

/** Show the seconds until the next attempt. This is not in a live region: nobody wants to hear it. */
function tick(registration) {
  clearTimeout(ticking);
  const { status, retryAt } = registration;
  const seconds = Math.ceil((retryAt - performance.now()) / 1000);
  let text = "";
  if (status === "offline") text = seconds > 0 ? `Next try in ${seconds} s.` : "Trying now …";
  if (status === "connecting" && registration.wasTried) text = "Trying now …";
  $("countdown").textContent = text;
  if (text && seconds > 0) ticking = setTimeout(tick, 1000 - ((performance.now() - retryAt + 1e6) % 1000), registration);
}

// --- Remedies, shown while the id is refused ---

function prepareRemedies(registration) {
  $("token-line").textContent = `.venv/bin/python relay.py token --ids=${quote.shell(id)}`;
  const me = new URL(location.href);
  me.searchParams.set("id", "me");
  $("use-me").href = me.href;
  $("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    registration.token = $("token").value.trim();
    registration.register();
  });
  $("again").addEventListener("click", () => registration.register());
  if ($("set-cookie")) $("set-cookie").addEventListener("click", setCookie);
}

function showRemedies(registration, isRefused) {
  if (isRefused || registration.isRegistered) {
    const { token, me, cookie, site } = registration.remedies;
    $("token-form").hidden = !token;
    $("me-hint").hidden = !me;
    $("cookie-hint").hidden = !cookie;
    $("site-hint").hidden = !site;
  }
  const isWaiting = registration.isRegistered && registration.status === "online";
  $("empty").dataset.state = registration.refusal ? "refused" : isWaiting ? "waiting" : "away";
  $("waiting").textContent = registration.refusal
    ? "Nothing can arrive here yet"
    : isWaiting || registration.status !== "offline" ? "New pushes appear here" : "Offline: nothing can arrive now";
  $("next").hidden = Boolean(registration.refusal) || registration.status === "offline";
}

/** Set a session cookie for a test. It cannot overwrite another, because the relay reported that there is none. */
function setCookie() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const value = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  document.cookie = `${cookieName}=${value}; path=/; SameSite=Lax`;
  location.reload();
}
