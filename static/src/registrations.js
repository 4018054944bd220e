import { CLOSED, CUT, LATE, asError, isRefused, isTemporary, refusal } from "./errors.js";
import { Ids, sinceOf } from "./ids.js";
import { isPosition, reach } from "./positions.js";
import { timer } from "./timing.js";
import { isFunction, isObject, listOf } from "./values.js";

/** The registrations of the page. Each is sent again on every wire, until it is refused or unregistered. */
export class Registrations extends Ids {
  _registrations = new Set(); // {_room, _ids, _payload, _key, _answers (functions that wait), _tries, _isAway}; the newest last

  /** Register now and after every reconnect, unless the first answer is a refusal. */
  _remember({ id, since, inbox, ...payload }, answer) {
    const ids = listOf(id);
    const key = JSON.stringify([ids, since, inbox, payload, typeof payload.token]);
    const isSame = (it) => it._answers[0] && it._key === key;
    const same = [...this._registrations].find(isSame);
    this._token = payload.token ?? this._token;
    if (same) {
      same._payload = payload;
      same._answers.push(answer);
      return this._wakeUp();
    }
    const registration = this._add({ _ids: ids, _key: key, _payload: payload }, "register", answer);
    for (const state of this._all(ids)) {
      this._startAt(state, isObject(since) ? new Map(Object.entries(since)).get(state.id) : since);
      if (!inbox) continue;
      if (!state._queue) this._startAt(state, "acked");
      state._queue ||= [];
      state._tries = inbox.tries;
    }
    if (this.transport) this._register(registration);
    else this._replaceOlder(registration);
  }

  _add(registration, event, answer) {
    registration._event = event;
    registration._ids ||= [];
    registration._answers = [answer];
    registration._tries = 0;
    registration._again = timer(() => this._register(registration));
    this._registrations.add(registration);
    this._wakeUp();
    return registration;
  }

  /** Return the messages of send(). Each waits until those before it are stored. */
  _sends() {
    return [...this._registrations].filter((it) => it._event === "send");
  }

  async _register(registration) {
    const wire = this._wire;
    const isOver = () => !this.transport || this._wire !== wire || !this._registrations.has(registration);
    if (isOver() || (registration._event === "send" && registration !== this._sends()[0])) return;
    registration._again(); // stop
    const again = (body) => {
      if (!registration._tries) this._error({ ...body, ids: registration._ids });
      registration._again(this._backOff(registration._tries++));
    };
    const payload = registration._payload;
    let { token } = payload;
    if (this._all(registration._ids).some((state) => !state._live && sinceOf(state))) registration._isAway = true;
    if (isFunction(token)) {
      try {
        token = await Promise.race([token(), new Promise((_, reject) => timer(() => reject(asError(LATE)))(this._options.timeout))]);
      } catch (error) {
        return isOver() || again(refusal("token_failed", "token: " + error));
      }
      if (isOver()) return;
    }
    const { _ids: ids } = registration;
    const asked = this._all(ids).map((state) => ({ ...state, _now: state })); // their states when this is sent
    const since = ids[0] && Object.fromEntries(asked.map((state) => [state.id, sinceOf(state)]));
    this._all(ids).forEach((state) => (state._live ||= 1));
    this._send([registration._event, { id: ids, ...payload, token, since }], (body) => {
      if (isOver()) return; // the next connection registers again
      if (isTemporary(body)) again(body);
      else this._registered(registration, body, asked);
    });
  }

  /** Register ids again whose token is a function. Return the others. */
  _renew(ids) {
    ids = ids.filter((id) => this._ids.has(id)); // an unregister may be under way
    this._all(ids).forEach((state) => (state._live = 0));
    this._registrations.forEach((registration) => {
      if (!isFunction(registration._payload.token) || !ids.some((id) => registration._ids.includes(id))) return;
      ids = ids.filter((id) => !registration._ids.includes(id));
      this._register(registration);
    });
    return ids;
  }

  /**
   * Handle the answer to a registration.
   *
   * Publications before its position may still be under way. So an id takes that position only if it has none, or if
   * what it missed is lost and nothing has arrived since.
   */
  _registered(registration, body, asked) {
    const answers = registration._answers.splice(0);
    const isNo = isRefused(body);
    const lost = [];
    registration._tries = 0;
    for (const before of asked) {
      const { id, _handed: handed, _now: state } = before;
      if (!registration._ids.includes(id)) continue;
      state._live = isNo && state._live < 2 ? 0 : 2;
      const { position, recovered = true } = body.ids?.[id] || {};
      const isLost = sinceOf(before) && !recovered;
      if (state._handed === handed && (isLost || !isPosition(handed))) reach(state, position);
      if (!isLost) continue;
      lost.push(id);
      state._acked = null; // a later acknowledgement includes these
      state._queue = state._queue && [];
    }
    if (registration._event === "send") {
      this._registrations.delete(registration);
      this._register(this._sends()[0]);
    }
    if (!isNo) {
      this._present(registration._payload.id, body);
      if (body.expires_in > 9 && isFunction(registration._payload.token)) registration._again(900 * body.expires_in);
      this._replaceOlder(registration);
      this._acknowledge();
      if (lost[0]) this._changed("lost", lost);
      else this._settle(registration);
    } else if (answers[0]) {
      this._registrations.delete(registration);
      // The refused registration may have unregistered an id that others need.
      this._registrations.forEach((it) => this._all(it._ids).every((state) => state._live) || this._register(it));
    } else this._error(body); // kept, because the next attempt may succeed
    answers.forEach((answer) => answer(body));
  }

  /** Report `recovered` when the last registration that missed something is complete. */
  _settle(registration) {
    if (!registration._isAway) return;
    registration._isAway = false;
    if (![...this._registrations].some((it) => it._isAway)) this._changed("recovered", []);
  }

  /** Replace older registrations of the same ids, unless they wait for an answer. */
  _replaceOlder(registration) {
    for (const older of this._registrations) {
      if (older === registration) return;
      if (!older._answers[0]) this._dropIds(older, registration._ids);
    }
  }

  _dropIds(registration, ids) {
    const before = registration._ids;
    registration._ids = before.filter((id) => !ids.includes(id));
    registration._key = 0; // another call with the old ids is another registration
    if (before[0] && !registration._ids[0]) this._forget(registration);
  }

  _forget(registration) {
    this._registrations.delete(registration);
    registration._answers.splice(0).forEach((answer) => answer(CLOSED));
    this._settle(registration);
  }

  _present(id, body) {
    this._registrations.forEach((it) => it._payload.id === id && it._take?.(body));
  }

  _unregister(id, answer) {
    const ids = listOf(id);
    this._registrations.forEach((registration) => this._dropIds(registration, ids));
    this._all(ids).forEach((state) => {
      reach(state);
      this._release(state);
    });
    const done = (body) => answer(body === CUT ? { ok: true } : body); // the next connection does not register it
    if (this.transport && ids.length) this._leaveIds(ids, done);
    else done(CUT);
  }

}
