import { Messages } from "./messages.js";
import { leaveItem, reach, takeItem } from "./positions.js";
import { noop, scope } from "./scope.js";

/** Return the `since` with which an id is registered: its position, or "acked" for an inbox; undefined if it has none. */
export const sinceOf = (state) => (state._queue ? "acked" : state._handed);

/** The ids that a connection has registered, and the progress of each. */
export class Ids extends Messages {
  _ids = new Map(); // id -> state, see _of()
  _left = new Map(); // id -> number of its last unregister

  /**
   * Return this connection's state of an id.
   *
   * `_handed` is the position of the last publication that the page's handlers were given; before the first one, the
   * position at which the id became live. This alone records the progress of the handlers. Only takeItem() and reach() set it.
   */
  _of(id) {
    let state = this._ids.get(id);
    if (!state) {
      state = {
        id,
        _item: scope.top === scope && !this.io && this._url, // name in sessionStorage; frames and `io` keep nothing
        _live: 0, // on this wire: 1: register was sent, 2: it is registered
        _calls: 0, // calls of register() without leave()
        // Set later: _handed; _acked, the position up to which all handlers have succeeded; _told, the last position that
        // was acknowledged on this wire; _queue of an inbox, [{position, _calls that have not succeeded, _tries}]; and
        // _tries, the number of failures after which a publication counts as handled.
      };
      this._ids.set(id, state);
      takeItem(state);
    }
    return state;
  }

  _all(ids) {
    return ids.map((id) => this._of(id));
  }

  /** Forget an id. Another connection may use its item. */
  _release(state) {
    leaveItem(state);
    this._ids.delete(state.id);
    state._calls = 0;
    state._queue = null;
  }

  /**
   * Start an id after `since`. If it is live on this wire, unregister it first: publications that are under way are
   * dropped, because the replay contains them. `null`, which means now, changes nothing for a live id.
   */
  _startAt(state, since) {
    if (since === undefined || (state._live && since === null)) return;
    if (state._live) this._leaveIds([state.id], noop);
    state._live = 0;
    reach(state, since || undefined);
  }

  _leaveIds(ids, done) {
    ids.forEach((id) => this._left.set(id, this._sent)); // the number of the packet that is sent now
    this._send(["unregister", { id: ids }], done);
  }

  /** Return whether a publication of this id was under way when the id was unregistered. */
  _isLeft(id) {
    const left = this._left.get(id);
    return this._answers.has(left) || (left >= 0 && !this._ids.has(id));
  }
}
