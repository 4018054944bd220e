// The console: puts its parts together.

import { $ } from "../dom.js";
import { Arrivals } from "./arrivals.js";
import { useBar } from "./bar.js";
import { address, canPush, destination, id, isMe, ownToken } from "./facts.js";
import { offerHistory } from "./history.js";
import { showIdentity, showPresence } from "./identity.js";
import { Latency } from "./latency.js";
import { PushForm } from "./push.js";
import { Registration } from "./registration.js";
import { showSnippets, useSnippets } from "./snippets.js";
import { showNote, showRegistration } from "./view.js";

showIdentity();
showSnippets();
useSnippets();
if (isMe && !destination) $("next").textContent = "Let your PHP push to session_id(), as in the code below.";

if (typeof Relay === "undefined") {
  showNote(`The script ${address("static/relay.js")} did not load, so nothing can arrive here.`, "error");
} else {
  listen(Relay.connect());
}

function listen(relay) {
  const list = new Arrivals();
  const latency = new Latency();
  const registration = new Registration(relay, id);
  relay.on("*", (data, received) => {
    // The positions of "me" carry a hash of the session; those of pushes and of what is kept do not.
    const publication = isMe ? { ...received, id: received.id?.replace(/~[^:]*/, "") } : received;
    latency.arrived(isMe ? id : publication.destination, publication.id);
    const isCaughtUp = registration.isCatchingUp && registration.lastAway !== null;
    if (isCaughtUp) registration.caughtUp();
    list.add(data, publication, isCaughtUp);
  });
  registration.listeners.push((what) => {
    if (what === "away") list.away(registration.awaySince);
    if (what === "back") list.back(registration.lastAway.to);
    if (what.startsWith("settled")) settle(list, registration, what.slice("settled ".length));
  });
  showRegistration(registration);
  const presence = showPresence(registration);
  offerHistory(list);
  if (canPush) {
    const form = new PushForm(latency, list, presence);
    useBar();
    registration.listeners.push(() => registration.status === "online" && form.forgetNoAnswer());
  }
  registration.listeners.push(() => {
    if (registration.isRegistered && registration.token !== ownToken) showSnippets(registration.token);
  });
}

function settle(list, { lastAway }, outcome) {
  if (lastAway) list.settled(lastAway);
  else if (outcome) list.settledAtStart(outcome);
}
