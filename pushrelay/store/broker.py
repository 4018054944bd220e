"""The broker: numbers publications, stores them, hands them out in order, and replays what somebody missed.

`Broker` is the interface, and what all stores have in common; its subclasses are the stores. A publication is stored
in a transaction that it shares with whatever waits (group_commit.py), queued with others of its stripe in the order of
the offsets, and handed out by whoever holds the stripe (dispatch.py).
"""

import contextlib
import logging
import secrets
import time
from collections.abc import Callable
from typing import Any

from pushrelay.errors import StoreError

from .dispatch import KeyUse, LiveQueue, Pending, Stripe
from .group_commit import GroupCommit, Job
from .listing import MOST_BYTES, Listing
from .publication import Delivered, Draft, History, Kept, Publication, Receipt, Recovery, Tip, offset_in, position_of
from .replay import Replay

log = logging.getLogger(__name__)

STRIPES = 64  # locks that the destinations share; far more than there are threads, so two seldom meet
SWEEP_EVERY = 64  # publications between two sweeps; each sweep can drop more than that
CLOSED = "the store is closed, until the relay is started again"


def new_epoch() -> str:
    """A random word; 40 bits, so that a store made anew is never taken for the one before."""
    return secrets.token_hex(5)


class Broker:
    """Publications of all destinations. Every method may be called by any thread.

    `deliver(publication, skip_sid)` hands one publication to the sockets of its destination and returns how many
    those were. It is called by one thread at a time for each destination, in the order of the offsets, and must not
    call the broker itself.

    History keeps `history_size` publications of a destination, each `history_ttl` seconds at most, and
    `history_bytes` in all. `clock` gives the seconds since 1970.
    """

    FORGET_AFTER = 86_400.0  # seconds without any history after which a destination's offset is forgotten
    KEY_TTL = 300.0  # seconds in which an idempotency key is known
    MAX_KEYS = 1_000_000  # keys that are known at once: clocks that are set back must not make them pile up
    SWEEP_SECONDS = 0.0015  # what one call of sweep() takes at most, as long as the disk and the other threads let it
    SWEEP_LEAST = 16  # looks that it takes all the same where there is too much: more than is published meanwhile

    def __init__(
        self,
        deliver: Callable[[Publication, str | None], int],
        *,
        history_size: int = 100,
        history_ttl: float = 3600.0,
        history_bytes: int = 256 << 20,
        clock: Callable[[], float] = time.time,
    ):
        self.history_size = history_size
        self.history_ttl = history_ttl
        self.history_bytes = history_bytes
        self.epoch = ""  # of the store, once it is open
        self.trouble: str | None = None  # why the last transaction stored nothing, until one does
        self._deliver = deliver
        self._clock = clock

        self._group_commit = GroupCommit(self._run)
        self._closed = True
        self._away = CLOSED  # why the store cannot be used, while it is not open

        # All threads read these. The thread in the transaction changes them; whoever hands out moves the first one on.
        self._committing: dict[str, int] = {}  # destination: its first offset that is not in its stripe's queue yet
        self._placed: list[Pending] = []  # what this transaction stores, in order

        # Items with a key, from their transaction until `connections` is final and stored.
        self._keyed: dict[str, Pending] = {}
        self._stripes = [Stripe(self._committing) for _ in range(STRIPES)]
        self._unswept = 0  # publications since the last sweep; a lost count delays a sweep by as much

    # What the relay calls.

    def start(self) -> None:
        """Open the store. Raises StoreError with what is wrong and what to do."""
        try:
            self._open()
        except StoreError as error:
            self._away = str(error)
            raise
        self._closed, self.trouble = False, None

    def publish(self, drafts: list[Draft]) -> list[Receipt]:
        """Store all drafts in one transaction, then hand each one out; returns their receipts in the same order.

        Raises StoreError, and ValueError for data that is not JSON; then nothing was stored, nothing was handed out
        and no offset was used. A draft whose key was used within KEY_TTL seconds is answered with the first receipt,
        or with `reused` if that one had another event, other data, or another ttl or skip_sid.
        """
        items = [Pending(*draft) for draft in drafts]
        self.publish_pending(items)
        return [item.receipt() for item in items]

    def publish_pending(self, items: list[Pending]) -> None:
        """The same for items made of drafts; they have their receipts then."""
        if items:
            self.store(items)
            self.hand_out(items)
            self.sweep_after(len(items))

    # Its steps, for who has something to do between them.

    def store(self, items: list[Pending]) -> None:
        """Store all of them in one transaction. Raises StoreError; then nothing was."""
        self._group_commit.run(lambda: self._store(items, self._clock()))

    def hand_out(self, items: list[Pending]) -> None:
        """Return when all are handed out, by this thread or by another that was quicker; they have receipts then.

        So it is with those that they repeat: the same destination, the same stripe, and earlier in its queue.
        """
        try:
            for stripe in {item.stripe or self._stripe(item.destination): None for item in items}:
                with stripe.lock:
                    if stripe.queue:
                        stripe.drain(self._deliver)
        finally:
            self._finish_keys(items)

    def sweep_after(self, count: int) -> None:
        """Sweep on behalf of what was published, so long that no flood of pushes outruns it."""
        self._unswept += count
        if self._unswept < SWEEP_EVERY:
            return
        steps, self._unswept = 8 * (self._unswept // SWEEP_EVERY), 0
        with contextlib.suppress(StoreError):  # what was published is stored, and that is what its publisher is told
            while steps > 0 and self.sweep():
                steps -= 1

    def replay(self, *args: Any, **options: Any) -> Replay:
        """Return a replay for a newcomer, not begun; see Replay for the arguments behind the first."""
        return Replay(self, *args, **options)

    def recover(
        self, destination: str, since: str | None, send: Callable[[Publication], Any], join: Callable[[], Any]
    ) -> Recovery:
        """Replay to a newcomer that takes all at once, in this thread; returns how it stands then."""
        replay = self.replay(destination, since, send, join)
        try:
            while not replay.go_on():
                pass
        finally:
            replay.close()
        return replay.recovery()

    def delivered(self, destination: str) -> Delivered:
        """Return up to where the sockets of a destination have been handed everything.

        It waits for what is being handed out. Raises StoreError.
        """
        stripe = self._stripe(destination)
        with stripe.lock:
            return self._delivered(stripe, destination)

    def join(self, destination: str, join: Callable[[], Any]) -> Delivered:
        """Let a newcomer join that asks for nothing it missed; returns what delivered() does at that moment.

        `join()` must not block. Raises StoreError, and what `join()` raises.
        """
        stripe = self._stripe(destination)
        with stripe.lock:
            delivered = self._delivered(stripe, destination)
            join()
        return delivered

    def let_finish(self, destination: str, seconds: float = -1) -> None:
        """Wait until what is being handed out for a destination has been handed out, or the time is over.

        A socket that left the destination before this call gets nothing of it afterwards.
        """
        lock = self._stripe(destination).lock
        if lock.acquire(timeout=seconds):
            lock.release()

    def history(self, destination: str, since: str | None = None, limit: int | None = None) -> History:
        """Return what is kept after `since` (a position, "acked", or None for all), the oldest `limit` of it."""
        listing = Listing(self, destination, since, limit, None)
        publications = [each for page in listing.pages() for each in page]
        return History(publications, listing.position, listing.recovered)

    def listing(self, destination: str, since: str | None = None, limit: int | None = None) -> Listing:
        """Return the same, not read yet, and no more of it than one answer may have."""
        return Listing(self, destination, since, limit, MOST_BYTES)

    def position(self, destination: str) -> str:
        """The position of the last publication. Where there was none, the one from which counting will go on."""
        return position_of(self.epoch, self._tip(destination).offset)

    def ack(self, destination: str, position: str) -> None:
        """Acknowledge all up to a position; an earlier one than acknowledged before changes nothing.

        Raises ValueError with a sentence for what is not a position of this destination, and StoreError.
        """
        offset, tip = offset_in(position, self.epoch), self._tip(destination)
        if offset is None:
            raise ValueError("this is no position of this relay's store: acknowledge the id that came with the push")
        if offset > tip.offset:
            raise ValueError("nothing was pushed at this position yet: acknowledge the id that came with the push")
        if offset > tip.acked:
            self._group_commit.run(lambda: self._store_ack(destination, offset))

    def acked(self, destination: str) -> str:
        """The position acknowledged last; where there is none, the one before the first publication."""
        return position_of(self.epoch, self._tip(destination).acked)

    def sweep(self) -> bool:
        """Drop a little of what no bound allows any more; returns whether there is more.

        Raises StoreError where the store takes nothing: a full disk is not noticed by who only reads, so after a
        failure something is written to see whether it is over.
        """
        if self.trouble:
            self._group_commit.run(self._probe)
            self.trouble = None
        return self._group_commit.run(self._sweep)

    def flush(self) -> None:
        """Bring what was accepted to where the store keeps it for good. Raises StoreError."""

    def close(self) -> None:
        """Wait for the transaction under way, and close the store. What comes later gets StoreError."""
        self._group_commit.exclusive(self._close_once)

    def _close_once(self) -> None:
        if not self._closed:
            self._closed, self._away = True, CLOSED
            self._close()

    # GroupCommit.

    def _run(self, jobs: list[Job]) -> None:
        """Do the work of all jobs in one transaction, and queue what it stored; either all of it or nothing."""
        committed = False
        try:
            self._transact(jobs)
            for item in self._placed:
                item.stripe = stripe = self._stripe(item.destination)
                stripe.queue.append(item)
            committed = True
            if self._placed:
                self.trouble = None
        except StoreError as error:
            self.trouble = str(error)
            raise
        except Exception as error:
            log.exception("the store failed")
            self.trouble = f"the store failed ({error!r}): the log says more"
            raise StoreError(self.trouble) from error
        finally:
            if not committed:
                for item in self._placed:
                    self._keyed.pop(item.key or "", None)
            self._placed = []
            self._committing.clear()

    def _transact(self, jobs: list[Job]) -> None:
        if self._closed:
            raise StoreError(self._away)
        self._begin()
        try:
            for job in jobs:
                job.result = job.work()
            self._commit()
        except BaseException:
            self._rollback()
            raise

    def _place(self, item: Pending, offset: int, now: float, expires: float) -> None:
        """Called by _store() for each item that it stores: give it its offset, and keep it for handing out."""
        item.offset = offset
        item.position = position = f"{self.epoch}:{offset}"
        item.publication = Publication._make((item.destination, position, item.event, item.text, now, expires))
        self._committing.setdefault(item.destination, offset)
        self._placed.append(item)
        if item.key is not None:
            self._keyed[item.key] = item

    def _repeats(self, item: Pending, now: float) -> bool:
        """Called by _store() for each item with a key: whether that was used before, and the item is not stored."""
        use = item.use
        if use.known is None:
            self._look_up(use, now)
        if use.is_reused:
            return True
        known = use.known.pop(item.key, None)
        if known is None:
            return False
        if isinstance(known, Pending):
            item.first = known
        else:
            item.position, item.connections = position_of(self.epoch, known[0]), known[1]
        return True

    def _look_up(self, use: KeyUse, now: float) -> None:
        """Find which keys of a push were used before. If one was used for something else, nothing of it is stored."""
        use.known = {}
        for key in use.keys:
            known = self._keyed.get(key) or self._find_key(key, now)
            if known is None:
                continue
            use.known[key] = known
            first = known.use.fingerprint if isinstance(known, Pending) else known[2]
            if first not in (use.fingerprint, None):
                use.is_reused = True
                use.known = {}
                return

    def _lifetime(self, ttl: float | None) -> tuple[float, bool]:
        """Seconds for which a draft of this ttl is kept, and whether its end is its publisher's wish and no loss."""
        if ttl is None or ttl > self.history_ttl:
            return (self.history_ttl if self.history_size else 0.0), False
        return (ttl if self.history_size else 0.0), ttl == 0 or self.history_size > 0

    # Handing out.

    def _stripe(self, destination: str) -> Stripe:
        return self._stripes[hash(destination) % STRIPES]

    def _finish_keys(self, items: list[Pending]) -> None:
        """Store what the publishers of keys are told, for who repeats them after a restart."""
        if not self._keyed:
            return
        firsts = [item for item in items if item.key is not None and item.publication is not None]
        if not firsts:
            return
        counted = [item for item in firsts if item.connections]
        if counted:
            # They are accepted whether this works or not; where it fails, a repeat is told of no connections.
            with contextlib.suppress(StoreError):
                self._group_commit.run(lambda: self._store_connections(counted))
        for item in firsts:
            del self._keyed[item.key]

    # Recovery.

    def _reached(self, destination: str, tip: Tip | None = None) -> int:
        """The offset up to which all is in the stripe's queue or was handed out. The caller holds the stripe's lock.

        `tip` is the destination's, if the caller has just read it.

        What is being committed counts as not there yet, though it may be in the store already: it will come through
        the queue. The order matters: the store is asked first, so that what it does not say is committed later.
        """
        offset = (tip or self._tip(destination)).offset
        first = self._committing.get(destination)
        return offset if first is None else min(offset, first - 1)

    def _delivered(self, stripe: Stripe, destination: str) -> Delivered:
        """delivered() for a caller that holds the stripe's lock, and may let a newcomer join at this very point."""
        while True:
            epoch, last = self.epoch, 0
            tip = self._tip(destination)
            reached = self._reached(destination, tip)
            if stripe.queue:  # what is queued after this look is handed out to whoever joins
                live_queue = LiveQueue()
                stripe.attach(destination, live_queue)
                try:
                    stripe.drain(self._deliver)
                finally:
                    stripe.detach(destination, live_queue)
                last = offset_in(live_queue.last, epoch) or 0
            if epoch == self.epoch:  # else the tip may be of either
                offset = max(reached, last)
                return Delivered(epoch, offset, max(tip.offset, offset))

    def _after(self, destination: str, since: str) -> int | None:
        """The offset that `since` stands for; None where it is no position of this store."""
        return self._tip(destination).acked if since == "acked" else offset_in(since, self.epoch)

    def _live(self, kept: list[Kept], tip: Tip, after: int) -> list[Kept] | None:
        """What of `kept`, all that came after an offset, may still be had; None where something is missing."""
        if not tip.trimmed <= after <= tip.offset:
            return None
        now = self._clock()
        live = [each for each in kept if each.expires > now]
        lost = len(live) > self.history_size or any(each.expires <= now and not each.own for each in kept)
        return None if lost else live

    def _publication(self, destination: str, kept: Kept) -> Publication:
        position = position_of(self.epoch, kept.offset)
        return Publication(destination, position, kept.event, kept.text, kept.created, kept.expires)

    # What a store does. All but the first four are called by one thread at a time, between _begin() and _commit().

    def _open(self) -> None:
        """Open the store and set `epoch`. Raises StoreError."""
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError

    def _tip(self, destination: str) -> Tip:
        """Where a destination stands, by what is committed. Raises StoreError."""
        raise NotImplementedError

    def _page(
        self, destination: str, since: int, most: int | None = None, with_data: bool = True
    ) -> tuple[list[Kept], Tip, bool]:
        """Return what is kept after an offset, in order; a tip that knows of all that was trimmed before; more or not.

        `most` bounds the bytes of data; at least one publication is returned. Without data all texts may be empty.
        """
        raise NotImplementedError

    def _begin(self) -> None:
        raise NotImplementedError

    def _commit(self) -> None:
        raise NotImplementedError

    def _rollback(self) -> None:
        """Undo all since _begin(), which may have failed itself. Raises nothing."""
        raise NotImplementedError

    def _store(self, items: list[Pending], now: float) -> None:
        """Store items: ask _repeats() about those with a key, and call _place() for each that is stored."""
        raise NotImplementedError

    def _find_key(self, key: str, now: float) -> tuple[int, int, str | None] | None:
        """Return what is stored for an idempotency key, unless it is older than KEY_TTL.

        That is the offset, the connections, and the fingerprint; None for that if an older relay stored the key.
        """
        raise NotImplementedError

    def _store_connections(self, items: list[Pending]) -> None:
        raise NotImplementedError

    def _store_ack(self, destination: str, offset: int) -> None:
        """Move the acknowledged offset of a destination forward to this one, never back."""
        raise NotImplementedError

    def _sweep(self) -> bool:
        """Drop a little of what no bound allows; returns whether there is more."""
        raise NotImplementedError

    def _probe(self) -> None:
        """Write something as large as a push. Nothing, where a store that can begin a transaction can write as well."""
