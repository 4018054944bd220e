// The connection and the registration of this page's id: a model without any element, which view.js shows.

import { asks, ownToken } from "./facts.js";

// The errors of a registration. All others concern the connection, and end with it.
const REFUSALS = /token|cookie|not_allowed|_id|too_many_ids|not_available/;
const BACK_SECONDS = 60; // how long the page shows that it was away
const SETTLE_SECONDS = 10; // after which a return is complete, even if the relay keeps no history and reports nothing

/** Has two states, because a registration may be refused although the connection works. */
export class Registration {
  constructor(relay, id) {
    this.relay = relay;
    this.id = id;
    this.token = ownToken;
    this.status = relay.status; // connecting, online, offline, resting
    this.isRegistered = false;
    this.refusal = null; // {error, message} while the relay refuses to register the id
    this.trouble = ""; // another error since the page was last online
    this.wasTried = false; // after the first attempt, "connecting" is not shown, so that the page does not flicker
    this.awaySince = null; // a Date while the page is offline
    this.retryAt = 0; // when the next attempt starts, by performance.now()
    this.isCatchingUp = true; // until the relay has sent what this page missed
    this.lastAway = null; // {from, to, caughtUp, outcome} after the page was away; outcome: "", "recovered", "lost"
    this.listeners = []; // called with what happened: changed, away, back, settled
    relay.on("status", (status, detail) => this.changed(status, detail || {}));
    relay.on("error", (error) => this.failed(error));
    this.register();
  }

  tell(what) {
    this.listeners.forEach((listener) => listener(what, this));
  }

  /** Register the id, with the token if there is one. The relay client repeats that after each reconnect. */
  async register() {
    try {
      await this.relay.register(this.id, this.token ? { token: this.token } : {});
      this.accepted("");
    } catch ({ code, message }) {
      if (["closed", "disconnected", "offline"].includes(code)) return;
      this.refused({ error: code, message });
    }
    this.tell("changed");
  }

  accepted(outcome) {
    this.isRegistered = true;
    this.refusal = null;
    if (!this.isCatchingUp) return;
    this.isCatchingUp = false;
    if (this.lastAway) this.lastAway.outcome = outcome;
    this.tell(outcome ? `settled ${outcome}` : "settled");
  }

  refused(error) {
    this.isRegistered = false;
    this.refusal = error;
    if (!this.isCatchingUp) return;
    this.isCatchingUp = false;
    this.tell("settled");
  }

  failed({ error, message }) {
    if (REFUSALS.test(error)) this.refused({ error, message });
    else this.trouble = message || error;
    this.tell("changed");
  }

  changed(status, { retryIn }) {
    if (status === "recovered" || status === "lost") this.accepted(status);
    else {
      this.status = status;
      if (status === "offline" || status === "resting") this.left(retryIn);
      if (status === "online") this.isBack();
    }
    this.tell("changed");
  }

  left(retryIn) {
    this.wasTried = true;
    this.retryAt = retryIn >= 0 ? performance.now() + retryIn : 0;
    if (this.awaySince) return;
    this.awaySince = new Date();
    this.isCatchingUp = true;
    if (this.isRegistered) this.tell("away");
  }

  isBack() {
    this.wasTried = true;
    this.trouble = "";
    const wasRegistered = this.isRegistered;
    if (this.awaySince && wasRegistered) {
      this.lastAway = { from: this.awaySince, to: new Date(), caughtUp: 0, outcome: "" };
      this.tell("back");
    }
    this.awaySince = null;
    setTimeout(() => this.status === "online" && this.isRegistered && this.accepted(""), SETTLE_SECONDS * 1000);
    if (this.refusal) this.register(); // the restarted relay may accept it
  }

  /** Count a publication that the page had missed while it was away. */
  caughtUp() {
    if (this.lastAway) this.lastAway.caughtUp += 1;
  }

  /** Try to connect now instead of waiting. */
  tryNow() {
    (this.relay.reconnect || this.relay.connect).call(this.relay);
  }

  /** Whether the refusal is about the token that this page was loaded with. */
  get isTokenOld() {
    const { refusal } = this;
    return Boolean(refusal && ownToken && this.token === ownToken && /^(token_expired|invalid_token)$/.test(refusal.error));
  }

  /** Whether the page was away a short while ago. */
  get isJustBack() {
    return this.lastAway !== null && Date.now() - this.lastAway.to < BACK_SECONDS * 1000;
  }

  /** The remedies that apply to the refusal. */
  get remedies() {
    const why = this.refusal ? this.refusal.error : "";
    return {
      token: Boolean(why) && asks("token") && /token|not_allowed/.test(why),
      me: Boolean(why) && asks("cookie") && this.id !== "me",
      cookie: why === "missing_cookie",
      site: Boolean(why) && asks("site") && /token|not_allowed|auth_not_available/.test(why),
    };
  }

  /** Whether the relay may know this browser as "me", and by no other id. */
  get isOnlyMe() {
    return asks("cookie") && !asks("token") && !asks("site");
  }
}
