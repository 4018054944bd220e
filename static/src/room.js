import { Emitter } from "./emitter.js";

/** The members of a destination, for one call of presence(). The connection asks for them again on every wire. */
export class Room extends Emitter {
  _members = new Map(); // id -> {id, info, since}
  _answers = []; // of a registration
  // Set later: _payload, and _version of the last list.

  get members() {
    return [...this._members.values()];
  }

  /** Take a list of all members, or events of the relay, except those that the list contains. */
  _take({ version, members, events = [] }) {
    events = events.filter((_, i) => version + i > this._version);
    if (members) {
      const gone = new Set(this._members.keys());
      members.forEach((join) => events.push({ join }) && gone.delete(join.id));
      gone.forEach((leave) => events.push({ leave }));
      this._version = version;
    }
    for (const { join, leave = join.id } of events) {
      const before = this._members.get(leave);
      if (join) this._members.set(leave, join);
      else this._members.delete(leave);
      if (!join !== !before) this._fire(join ? "join" : "leave", join || before);
    }
    if (events[0]) this._fire("change", this.members);
  }
}
