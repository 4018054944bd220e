// Positions, and where a tab keeps them for its next page. A position such as "9f3c:17" is an epoch, which is the lifetime
// of a store, and an offset.
//
// A tab keeps positions in sessionStorage. A frame shares sessionStorage with its page, but the page may not have received
// what the frame has. So only the page itself keeps positions. If several connections of a page register an id, each uses
// an item of its own: the first connection uses the first item, and so on.

import { scope } from "./scope.js";
import { soon } from "./timing.js";

const parse = (position) => String(position).split(":");
export const isPosition = (position) => /.:\d+$/.test(position);

/** Return whether a publication comes after the last one that was handed over. In another epoch, every one does. */
export function isAfter(position, last) {
  const [epoch, offset] = parse(position);
  const [lastEpoch, lastOffset] = parse(last);
  return epoch !== lastEpoch || !(+offset <= +lastOffset);
}

// The items of all connections in this page, also those of other copies of the client, whose private names may differ.
const taken = () => (scope.relayIds ||= new Set());
const keyOf = (state) => state._item + " " + state.id;
const unsaved = new Set(); // states
const saveSoon = soon(saveAll, 50); // so that a burst causes few writes

/** Start an id from the first item that no other connection of this page uses for it. */
export function takeItem(state) {
  if (!state._item) return;
  while (taken().has(keyOf(state))) state._item += "#";
  taken().add(keyOf(state));
  saveAll();
  state._handed = readItem(state._item).get(state.id);
}

/** Let another connection use the item. */
export function leaveItem(state) {
  taken().delete(keyOf(state));
}

function readItem(item) {
  try {
    return new Map(JSON.parse(scope.sessionStorage.getItem(item)));
  } catch {
    return new Map(); // storage is denied, or the item is not ours
  }
}

/** Set an id's position: that of the publication handed over now, or the one at which the id starts. */
export function reach(state, position) {
  state._handed = position;
  if (!state._item) return;
  unsaved.add(state);
  saveSoon();
}

/** Write all positions that changed. Each item keeps the newest 100. */
export function saveAll() {
  for (const { id, _item: item, _handed: handed } of unsaved) {
    const positions = readItem(item);
    positions.delete(id); // the newest last
    if (isPosition(handed)) positions.set(id, handed);
    try {
      scope.sessionStorage.setItem(item, JSON.stringify([...positions].slice(-100)));
    } catch {
      // Denied or full: recovery works within the page.
    }
  }
  unsaved.clear();
}
