"""After a new connection: what was published in the meantime is read from the histories and handed out.

It runs on the new, subscribed connection before that is used for anything else: whatever is published later arrives
after it, as messages. A hole that the history no longer fills cannot be closed; then exactly the clients concerned must
reconnect, so that they learn it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import hiredis

from pushrelay.store.stripe import Pending

from .entry import Arrived, Entry, read_body, read_entry
from .held import ASKED, Held
from .link import State, Talk
from .scripts import READ, TIPS

TIPS_AT_ONCE = 500
READS_AT_ONCE = 50
FIRST_BYTES = 65_536  # of one history, when several are read at once
READ_BYTES = 262_144  # of one history, at a time; or one publication, if that is larger

_FAR = 1 << 62  # beyond all offsets


class Missed(NamedTuple):
    """The publications that a node has missed."""

    offsets: dict[bytes, int]  # the last offset of each
    entries: dict[bytes, list[Entry]]  # what must be handed out, in order
    lost: list[bytes]  # something is missing, and no history has it any more


class _Behind(NamedTuple):
    """A destination whose history must be read."""

    key: bytes
    state: State  # the store in which `reached` counts
    reached: int  # everything up to this offset has been handed out
    after: int  # the offset after which the history is read


class _Read(NamedTuple):
    """The history of one destination after an offset."""

    entries: list[Entry]
    trimmed: int  # the highest offset lost to a limit before it was read
    is_torn: bool  # something was lost while it was read


def read_missed(talk: Talk, held: Held, before: State, now: State, clock: Callable[[], float]) -> Missed:
    """Ask for everything that the held destinations have missed since `before`. Raises StoreError and OSError."""
    missed = Missed({}, {}, [])
    earlier = held.earlier.get(now.epoch) if before.epoch != now.epoch else None
    returned = before if earlier is None else before._replace(epoch=now.epoch, generation=earlier.generation)
    behind: list[_Behind] = []
    keys = [key for key, reached in list(held.reached.items()) if reached != ASKED]
    for some in _chunks(keys, TIPS_AT_ONCE):
        answer = talk.run(TIPS, clock(), *some)
        for number, key in enumerate(some):
            offset, _, last, generation = answer[4 * number : 4 * number + 4]
            missed.offsets[key] = offset
            state, reached = before, held.reached.get(key, offset)
            if earlier is not None and key in earlier.reached:
                state, reached = returned, earlier.reached[key]
            is_new_epoch = state.epoch != now.epoch
            went_back = is_new_epoch and now.generation <= state.generation  # its offsets may be equal by chance
            is_later = generation > state.generation or (is_new_epoch and last > reached)
            if offset != reached or is_later or (went_back and last):
                behind.append(_Behind(key, state, reached, 0 if is_new_epoch else reached))
    for reads in _chunks(behind, READS_AT_ONCE):
        for each, read in zip(reads, _read(talk, now.epoch, clock(), reads), strict=True):
            new, is_lost = _new_entries(read.entries, each.reached, read.trimmed, each.state, now)
            if new:
                missed.entries[each.key] = new
            if is_lost or read.is_torn:
                missed.lost.append(each.key)
    return missed


def queue_missed(missed: Missed, held: Held, epoch: str, now: float) -> list[Pending]:
    """Queue what was missed for the sockets, and return it. The lock of the link is held."""
    held.drop_asked()
    queued: list[Pending] = []
    for key, offset in missed.offsets.items():
        if key not in held.reached:
            continue
        destination, entries = key.decode(), missed.entries.get(key, ())
        for entry in entries:
            body = read_body(entry.body)
            if body.expires > now or not body.own:
                item = Arrived(destination, entry.offset, epoch, entry.body)
                held.put(key, item)
                queued.append(item)
        # The history was read after the offset, so it may have later publications, whose messages are still to come.
        held.reached[key] = max(offset, entries[-1].offset) if entries else offset
    return queued


def _new_entries(
    history: list[Entry], reached: int, trimmed: int, before: State, now: State
) -> tuple[list[Entry], bool]:
    """Return the entries that this node has not handed out, and whether some are missing.

    An entry of a later generation than the node's last one is new whatever its offset: the store may have gone back.
    """
    mine, known = before.generation, reached
    if before.epoch != now.epoch and now.generation <= before.generation:  # the store was emptied, or has gone back
        mine, known = now.generation - 1, _FAR
    new = [each for each in history if each.generation > mine or (each.generation == mine and each.offset > known)]
    if before.epoch == now.epoch:
        return new, trimmed > reached
    reaches_back = bool(history) and history[0].generation <= mine and history[0].offset <= known + 1
    return new, (bool(new) or trimmed > reached) and not reaches_back and trimmed > 0 and trimmed != reached


def _read(talk: Talk, epoch: str, now: float, wanted: Sequence[_Behind]) -> Iterator[_Read]:
    """Yield the history of each destination after an offset.

    Redis ends a subscribed connection to which it must send too much at once. So all first parts together are bounded,
    and large publications are read one by one.
    """
    commands = [talk.command(READ, epoch, now, each.key, each.after, FIRST_BYTES, 2) for each in wanted]
    for each, answer in zip(wanted, talk.ask_all(talk.deadline, commands), strict=True):
        if isinstance(answer, hiredis.ReplyError):
            raise talk.explained(answer)
        trimmed, is_torn = answer[1], False
        entries = [read_entry(raw) for raw in answer[4:]]
        while answer[3]:
            after = entries[-1].offset if entries else each.after
            answer = talk.run(READ, epoch, now, each.key, after, READ_BYTES, 1)
            if entries:
                is_torn = is_torn or answer[1] > after
            else:
                trimmed = answer[1]
            entries += [read_entry(raw) for raw in answer[4:]]
        yield _Read(entries, trimmed, is_torn)


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
