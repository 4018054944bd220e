"""The batches that a node publishes: one at a time is under way, and later items wait for the next one.

A batch has a number. After a cut, the batch that was under way is sent again with the same number, and the script
answers what it answered before if it was stored. So nothing is stored twice, and nothing that was answered is missing.
Redis hands out the batch of a node as a message to all nodes, this one included. A batch is done when both its answer
and its message are here: one follows the other at once, in an order that depends on Redis's version.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import hiredis

from pushrelay.errors import NotKnown, StoreError
from pushrelay.store.base_broker import overtaken
from pushrelay.store.broker import Stored
from pushrelay.store.publication import Mark, Publication, position_of
from pushrelay.store.store import HistoryLimits
from pushrelay.store.stripe import NOT_STORED, Pending

from .entry import write_body
from .explanations import word_of
from .held import Held
from .link import PUBLIC, Link
from .measures import Measures
from .scripts import BATCH, MARKED
from .work import Work

MOST_ITEMS = 256  # in one batch, unless one push has more
MOST_BYTES = 1 << 20  # of data in one batch, before its last push
CHECK_SECONDS = 0.1  # between two looks for batches whose time is up
WAIT_MS = 500  # for replicas
UNKNOWN = "it is not known whether this was stored: send it again with the same id, and it is stored once"
# The errors with which Redis refuses a script before its first write. After another one, a part may be stored.
UNTOUCHED = ("OOM", "MISCONF", "NOREPLICAS", "BUSY", "NOAUTH", "DENIED", "CLUSTERDOWN", "MOVED", "CROSSSLOT", "OLD")
STORED, REPEATED, REUSED = 0, 1, 2  # states in the script's answer


class _Group:
    """Items that are stored together, and whom to call then."""

    __slots__ = ("deadline", "items", "mark", "stored")

    def __init__(self, items: list[Pending], stored: Stored, deadline: float, mark: Mark | None):
        self.items = items
        self.mark = mark  # changes with them; then they are a batch of their own
        self.stored = stored
        self.deadline = deadline  # monotonic


class _Batch:
    """Groups under way to Redis."""

    __slots__ = (
        "answer",
        "args",
        "created",
        "expires",
        "groups",
        "has_message",
        "is_abandoned",
        "is_published",
        "is_resent",
        "is_settled",
        "items",
        "number",
        "replicas",
    )

    def __init__(self, number: int, groups: list[_Group], created: float):
        self.number = number
        self.groups = groups
        self.items = groups[0].items if len(groups) == 1 else [item for group in groups for item in group.items]
        self.created = created
        self.expires: list[float] = []  # for each item
        self.args: list[Any] = []  # of the script, for one item after another
        self.is_abandoned = False  # its publishers were answered that it is not known
        self.is_resent = False
        self.forget_replies()

    def forget_replies(self) -> None:
        """Forget the replies that have come, because they will come again."""
        self.answer: bytes | None = None  # the script's
        self.is_published = False  # a message belongs to the answer
        self.has_message = False  # it is here
        self.is_settled = False  # its items have their receipts
        self.replicas: int | None = None  # that have acknowledged it


class Publishing:
    """Publishes items through a link.

    `clock` returns the seconds since 1970. `patience` and `replicas` are the settings redis_patience and redis_wait.
    `holders(destination)` returns the number of connections at this node, and `announced(destination)` the number that
    Redis knows.
    """

    def __init__(
        self,
        link: Link,
        held: Held,
        limits: HistoryLimits,
        clock: Callable[[], float],
        patience: float,
        replicas: int,
        holders: Callable[[str], int],
        announced: Callable[[str], int],
        measures: Measures,
    ):
        self.trouble: str | None = None  # why the last batch was refused
        self._measures = measures
        self._link = link
        self._held = held
        self._limits = limits
        self._clock = clock
        self._patience = patience
        self._replicas = replicas
        self._holders = holders
        self._announced = announced
        self._number = 0
        self._waiting: deque[_Group] = deque()
        self._batch: _Batch | None = None  # under way
        self._keyed: dict[str, Pending] = {}  # items whose final connections are not stored with their key yet
        self._is_checking = False

    def add(self, items: list[Pending], stored: Stored, mark: Mark | None = None) -> None:
        """Store items with the next batch, and call `stored(error)`. Those with a mark are a batch of their own."""
        with self._link.lock:
            now = time.monotonic()
            deadline = self._deadline(now)
            if deadline > now:
                self._waiting.append(_Group(items, stored, deadline, mark))
                self._send_next()
                if not self._is_checking:
                    self._is_checking = True
                    self._link.loop.call_later(CHECK_SECONDS, self._check)
                return
            error = self._overdue()
        stored(error)

    def publish(self, items: list[Pending], mark: Mark | None = None) -> None:
        """Store items, with a change of a mark, and wait for that. Raises StoreError."""
        done, errors = threading.Event(), []

        def stored(error: StoreError | None) -> None:
            errors.append(error)
            done.set()

        self.add(items, stored, mark)
        self._link.wait(done, self._patience + 60)
        error = errors[0] if errors else StoreError("the relay does not get to ask Redis: it is overloaded")
        if error is not None:
            raise type(error)(str(error), error.public)

    # With the lock held.

    def _deadline(self, now: float) -> float:
        """Return until when items that are added now may wait.

        Items that come while Redis is away wait no longer than those that came first. Otherwise a queue of batches
        would wait for Redis one after another, each for the whole patience.
        """
        link, batch = self._link, self._batch
        if not link.is_up:
            return min(now, link.down_since) + self._patience
        return now if batch is not None and batch.is_abandoned else now + self._patience

    def _overdue(self) -> StoreError:
        reason = self._link.trouble if not self._link.is_up else "Redis does not answer in time"
        return StoreError(f"{reason}; waited {self._patience:g} s (setting redis_patience)", PUBLIC)

    def resume(self, work: Work) -> None:
        """Send the batch that was under way when the connection ended, or the next one."""
        if self._batch is not None:
            self._measures.resent += 1
            self._batch.is_resent = True
            self._send(self._batch)
        self._send_next()

    def cut(self) -> None:
        """Expect no reply any more."""
        self._keyed.clear()
        if self._batch is not None:
            self._batch.forget_replies()
            if self._batch.is_abandoned:
                self._batch = None

    def fail_all(self, error: StoreError, work: Work) -> None:
        """Refuse everything that waits, because the relay stops."""
        batch, self._batch = self._batch, None
        if batch is not None and not batch.is_abandoned:
            unknown = NotKnown(f"{error}: {UNKNOWN}", UNKNOWN)
            for group in batch.groups:
                work.call(partial(group.stored, unknown))
        while self._waiting:
            work.call(partial(self._waiting.popleft().stored, error))

    def is_own(self, number: int, work: Work) -> bool:
        """Take the message of this node's batch, if it is under way; return whether it is."""
        batch = self._batch
        if batch is None or batch.number != number or batch.is_abandoned:
            return False
        batch.has_message = True
        self._finish_if_complete(work)
        return True

    def _send_next(self) -> None:
        if self._batch is not None or not self._link.is_up or not self._waiting:
            return
        groups: list[_Group] = []
        count = size = 0
        while self._waiting and count < MOST_ITEMS and size < MOST_BYTES:
            if groups and (groups[0].mark or self._waiting[0].mark):
                break
            group = self._waiting.popleft()
            groups.append(group)
            count += len(group.items)
            size += sum(len(item.text) for item in group.items)
        self._number += 1
        batch = self._batch = _Batch(self._number, groups, self._clock())
        self._measures.batches.observe(count)
        self._write(batch)
        self._send(batch)

    def _write(self, batch: _Batch) -> None:
        """Write the script's arguments for the items of a batch."""
        limits, now, args, expires_at = self._limits, batch.created, batch.args, batch.expires
        plain = limits.lifetime(None)
        counted: Any = None
        for item in batch.items:
            seconds, own = plain if item.ttl is None else limits.lifetime(item.ttl)
            expires = now + seconds
            expires_at.append(expires)
            mode = "k"
            if own:
                mode = f"o{expires!r}" if seconds else "n"
            elif not seconds:
                mode = "l"
            use = item.use
            if use is None:
                args += (item.destination, mode, write_body(item, now, expires, own), "", "")
                continue
            count = len(use.keys) if use is not counted else 0
            counted = use
            key = f"{count}:{item.key}"
            args += (item.destination, mode, write_body(item, now, expires, own), key, use.fingerprint)

    def _send(self, batch: _Batch) -> None:
        link, limits, state = self._link, self._limits, self._link.state
        ttl = math.ceil(limits.history_ttl) + 1
        head = (link.node, batch.number, state.epoch, state.run, batch.created, limits.history_size, ttl)
        more = (int(limits.key_ttl), link.channel, limits.forget_after)
        script, mark = (MARKED, batch.groups[0].mark) if batch.groups[0].mark else (BATCH, ())
        link.run_script(script, (*head, *more, *batch.args, *mark), partial(self._answered, batch))
        if self._replicas:
            link.send(("WAIT", self._replicas, WAIT_MS), partial(self._replicated, batch))

    def _answered(self, batch: _Batch, reply: Any, work: Work) -> None:
        if isinstance(reply, hiredis.ReplyError):
            self._refused(batch, reply, work)
            return
        batch.is_published = reply[0] == 0
        batch.answer = reply[1]
        self._finish_if_complete(work)

    def _replicated(self, batch: _Batch, reply: Any, work: Work) -> None:
        batch.replicas = 0 if isinstance(reply, hiredis.ReplyError) else reply
        self._finish_if_complete(work)

    def _refused(self, batch: _Batch, reply: hiredis.ReplyError, work: Work) -> None:
        word = word_of(str(reply))
        if word in ("EPOCH", "READONLY", "LOADING", "MASTERDOWN"):  # it is sent again once the connection is there
            self._link.cut("epoch" if word == "EPOCH" else "demoted", str(reply), work)
            return
        if word == "NOSCRIPT":
            self._link.cut("scripts", "its scripts were removed", work)  # a new connection loads them
            return
        error = self._explained(batch, word, reply)
        self._batch = None
        for group in () if batch.is_abandoned else batch.groups:  # those of an abandoned batch have an answer
            work.call(partial(group.stored, error))
        self._send_next()

    def _explained(self, batch: _Batch, word: str, reply: hiredis.ReplyError) -> StoreError:
        """Return the error for the publishers of a batch that Redis refused."""
        mark = batch.groups[0].mark
        if mark is not None and word == "OVERTAKEN":
            return overtaken(mark)
        error = self._link.place.explained(reply)
        if word not in UNTOUCHED:
            error = NotKnown(f"{error}; {UNKNOWN}", UNKNOWN)
        self.trouble = str(error)
        return error

    def _finish_if_complete(self, work: Work) -> None:
        batch = self._batch
        if batch is None or batch.answer is None:
            return
        if batch.is_abandoned:  # its publishers have an answer; its message, if that comes later, is another node's
            if batch.has_message:
                self._settle(batch, work)
                self._forget_keys(batch)
            self._batch = None
            self._send_next()
            return
        if batch.is_published and not batch.has_message:
            return
        if not batch.is_settled:  # before any later message of its destinations; if it raises Hole, it is sent again
            self._settle(batch, work if self._replicas else None)
            batch.is_settled = True
        if self._replicas and batch.replicas is None:
            return
        self.trouble = None
        error = None
        if self._replicas and (batch.replicas or 0) < self._replicas:
            found = f"only {batch.replicas} of {self._replicas} replicas (setting redis_wait) took it in time"
            error = NotKnown(f"{found}: {UNKNOWN}", UNKNOWN)
            self._forget_keys(batch)
        self._batch = None
        for group in batch.groups:
            work.call(partial(group.stored, error))
        self._send_next()

    def _settle(self, batch: _Batch, work: Work | None) -> None:
        """Give items their receipts, and queue those whose destinations this node holds.

        Their publishers hand them out, or `work` if there is one.
        """
        assert batch.answer is not None  # noqa: S101 - the caller has checked it
        numbers = iter(map(int, batch.answer.split()))
        epoch, held, created = self._link.state.epoch, self._held, batch.created
        repeated = 0
        for item, expires, offset, others, state in zip(
            batch.items, batch.expires, numbers, numbers, numbers, strict=True
        ):
            if state != STORED:
                self._take_repeated(item, offset, others, state, epoch)
                repeated += 1
                continue
            item.offset = offset
            item.position = position = f"{epoch}:{offset}"
            item.publication = Publication._make((item.destination, position, item.event, item.text, created, expires))
            item.elsewhere = others
            if item.use is not None:
                self._keyed[item.key] = item
            key = item.destination.encode()
            if held.wants(key, offset):
                item.stripe = held.put(key, item)
                if work is not None:
                    work.drain(item.stripe)
            elif batch.is_resent:  # it may have been handed out when it was read after the new connection
                item.connections = self._holders(item.destination)
        self._measures.published += len(batch.items) - repeated

    def _forget_keys(self, batch: _Batch) -> None:
        """Forget the keys of items for which finish() is not called, because their publishers get an error."""
        for item in batch.items:
            if self._keyed.get(item.key) is item:
                del self._keyed[item.key]

    def _take_repeated(self, item: Pending, offset: int, connections: int, state: int, epoch: str) -> None:
        item.publication = NOT_STORED
        if state == REUSED:
            if item.use is not None:
                item.use.is_reused = True
            return
        first = self._keyed.get(item.key)
        if first is not None and first.offset == offset:
            item.first = first
        else:
            item.position, item.connections = position_of(epoch, offset), connections

    # Afterwards.

    def finish(self, items: list[Pending]) -> None:
        """Add the connections of other nodes to items that were handed out here, and store them with their keys."""
        unreached = 0
        for item in items:
            if item.publication is NOT_STORED:
                continue
            here = item.connections
            if item.elsewhere:
                item.connections, item.elsewhere = here + item.elsewhere, 0
            elif not here:
                unreached += 1
            if item.use is None or self._keyed.get(item.key) is not item:
                continue
            if here == self._announced(item.destination):  # the script has stored the same number
                self._keyed.pop(item.key, None)
            else:
                self._store_connections(item, item.use.fingerprint)
        if unreached:
            with self._link.lock:
                self._measures.unreached += unreached

    def _store_connections(self, item: Pending, fingerprint: str) -> None:
        """Store the connections of an item with its key. Repeats before that get them from the item itself."""
        value = f"{item.offset} {item.connections} {fingerprint} {item.publication.created!r}"
        key = f"{self._link.keys}k:{item.key}"
        with self._link.lock:
            if self._link.is_up:
                self._link.send(("SET", key, value, "XX", "KEEPTTL"), partial(self._forget_key, item.key))
            else:
                self._keyed.pop(item.key, None)

    def _forget_key(self, key: str, reply: Any, work: Work) -> None:
        self._keyed.pop(key, None)

    def _check(self) -> None:
        """Refuse what has waited for too long."""
        work = Work()
        with self._link.lock:
            now = time.monotonic()
            while self._waiting and self._waiting[0].deadline < now:
                work.call(partial(self._waiting.popleft().stored, self._overdue()))
            batch = self._batch
            if batch is not None and not batch.is_abandoned and batch.groups[0].deadline < now:
                self._abandon(batch, work)
            self._is_checking = bool(self._waiting or self._batch)
            if self._is_checking:
                self._link.loop.call_later(CHECK_SECONDS, self._check)
        work.run()

    def _abandon(self, batch: _Batch, work: Work) -> None:
        batch.is_abandoned = True
        error = NotKnown(
            f"Redis did not answer within {self._patience:g} s (setting redis_patience): {UNKNOWN}", UNKNOWN
        )
        for group in batch.groups:
            work.call(partial(group.stored, error))
        if not self._link.is_up:
            self._batch = None
