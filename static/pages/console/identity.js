// The page's id: the form to change it, the second window, the number of windows that have it, and the code for a phone.

import { $, counted } from "../dom.js";
import { address, canPush, destination, id } from "./facts.js";

const PRESENCE_SECONDS = 5;
const NAMES = 5; // of users; the others are counted

/** Show the id and let the reader change it. */
export function showIdentity() {
  document.title = `${id} · the relay`;
  $("id").textContent = $("new-id").value = id;
  $("second").href = location.href;
  disclose($("change"), $("change-form"), () => $("new-id").select());
  if ($("phone")) {
    disclose($("phone"), $("phone-panel"), () => {
      const code = $("qr");
      if (code && !code.src) code.src = address(`qr.svg?id=${encodeURIComponent(id)}`);
    });
  }
}

/** Let a button open and close a panel. Escape closes it and returns to the button. */
function disclose(button, panel, opened) {
  const open = (isOpen) => {
    panel.hidden = !isOpen;
    button.setAttribute("aria-expanded", String(isOpen));
    if (isOpen) opened();
  };
  button.addEventListener("click", () => open(panel.hidden));
  panel.addEventListener("keydown", ({ key }) => {
    if (key !== "Escape") return;
    open(false);
    button.focus();
  });
}

/** Return a sentence with the users of these windows whom tokens name, or nothing. */
function usersOf(members = []) {
  const names = members.slice(0, NAMES).map(({ id: user, info }) => {
    const name = typeof info.name === "string" && info.name ? info.name : user;
    return name.length > 30 ? `${name.slice(0, 29)}…` : name;
  });
  if (members.length > NAMES) names.push(`${counted(members.length - NAMES, "other")}`);
  const last = names.length > 1 ? ` and ${names.pop()}` : "";
  return names.length ? ` ${members.length === 1 ? "User" : "Users"}: ${names.join(", ")}${last}.` : "";
}

/** Show how many windows have the id, and whose they are, if this browser may ask. */
export function showPresence(registration) {
  if (!canPush || !destination) return () => {};
  let users = "";
  const show = (connections) => {
    const isTrue = registration.status === "online" && registration.isRegistered && connections > 0;
    $("presence").textContent = isTrue ? `${counted(connections, "window has", "windows have")} this id.${users}` : "";
  };
  const ask = async () => {
    if (document.hidden || registration.status !== "online" || !registration.isRegistered) return show(0);
    const query = new URLSearchParams({ destination });
    const response = await fetch(address(`presence?${query}`)).catch(() => null);
    const answer = response && response.ok ? await response.json().catch(() => ({})) : {};
    const { connections = 0, members } = answer[destination] || {};
    users = usersOf(members);
    show(connections);
  };
  registration.listeners.push(ask);
  document.addEventListener("visibilitychange", ask);
  setInterval(ask, PRESENCE_SECONDS * 1000);
  return show;
}
