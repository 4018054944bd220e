"""`memory:`: publications in this process's memory. They end with it, and the next start has another epoch."""

import bisect
import itertools
import operator
import threading
from collections import OrderedDict, deque
from typing import Any

from pushrelay.counters import Family

from .group_commit import Job
from .memory_events import MemoryEvents
from .publication import Kept, KeyRecord, Survey, Tip, cut
from .store import Deadline, HistoryLimits, IsRepeat, Page, Place, Store, new_epoch, store_size
from .stripe import Pending

OVERHEAD = 600  # memory of a publication besides its data, and of a destination besides its name (measured)
_OFFSET = operator.attrgetter("offset")


class _Destination:
    __slots__ = ("acked", "kept", "offset", "trimmed")

    def __init__(self, offset: int):
        self.offset = self.trimmed = self.acked = offset
        self.kept: deque[Kept] = deque()


class MemoryStore(Store):
    """A store in memory. Publications that expired early may take space until older ones are dropped too."""

    def __init__(self, limits: HistoryLimits):
        self.events = MemoryEvents()
        self._limits = limits
        self._lock = threading.Lock()  # guards all below; held for the whole of a transaction
        self._destinations: dict[str, _Destination] = {}
        self._oldest: OrderedDict[tuple[str, int], int] = OrderedDict()  # (destination, offset): bytes, by age
        self._quiet: OrderedDict[str, float] = OrderedDict()  # destinations without history: since when, by age
        self._keys: OrderedDict[str, tuple[KeyRecord, float]] = OrderedDict()  # with the time of its use, by age
        self._marks: dict[str, str] = {}
        self._bytes = 0  # memory of all publications and destinations, about
        self._floor = 0  # the highest offset ever forgotten: new destinations count on from it

    def open(self) -> None:
        """Begin a new epoch."""
        self.epoch = new_epoch()

    def close(self) -> None:
        """Do nothing: a store that was closed can still be read."""

    def metrics(self) -> list[Family]:
        """Return the size of the store."""
        return store_size(self._bytes, self._limits.history_bytes)

    def survey(self, now: float, seconds: float) -> Survey | None:
        """Count what is kept, with what expired and was not dropped yet."""
        with self._lock:
            first = next(iter(self._oldest), None)
            oldest = None if first is None else self._destinations[first[0]].kept[0].created
            return Survey(len(self._oldest), oldest)

    # Reading.

    def tip(self, destination: str) -> Tip:
        """Return the state of a destination."""
        found = self._destinations.get(destination)
        if found is None:
            return Tip(self._floor, self._floor, self._floor)
        return Tip(found.offset, found.trimmed, found.acked)

    def read(self, destination: str, after: int, max_bytes: int | None = None, with_data: bool = True) -> Page:
        """Return what is kept after an offset."""
        with self._lock:
            found = self._destinations.get(destination)
            tip = self.tip(destination)
            if found is None:
                return Page([], tip, False)
            first = bisect.bisect_right(found.kept, after, key=_OFFSET)
            kept, more = cut(itertools.islice(found.kept, first, None), max_bytes)
            return Page(kept, tip, more)

    # Writing.

    def transact(self, jobs: list[Job[Any]]) -> None:
        """Do the work of all jobs. Nothing needs to be undone: items are checked before, so no work fails halfway."""
        with self._lock:
            for job in jobs:
                job.result = job.work()

    def append(self, items: list[Pending], now: float, place: Place, is_repeat: IsRepeat) -> None:
        """Store items in this order."""
        for item in items:
            if item.use is not None and is_repeat(item, item.use, now):
                continue
            name = item.destination
            found = self._destinations.get(name)
            if found is None:
                found = self._destinations[name] = _Destination(self._floor)
                self._bytes += OVERHEAD + len(name)
            offset = found.offset + 1
            seconds, own = self._limits.lifetime(item.ttl)
            place(item, offset, now, now + seconds)  # first: tip() does not wait for this transaction
            found.offset = offset
            self._keep(found, item, Kept._make((offset, item.event, item.text, now, now + seconds, own)))
            if item.use is not None:
                self._keys[item.key] = KeyRecord(item.offset, 0, item.use.fingerprint), now

    def _keep(self, found: _Destination, item: Pending, kept: Kept) -> None:
        name = item.destination
        if kept.expires > kept.created:
            self._quiet.pop(name, None)
            found.kept.append(kept)
            self._oldest[name, kept.offset] = size = OVERHEAD + len(kept.text)
            self._bytes += size
            if len(found.kept) > self._limits.history_size:
                self._drop(name, found, kept.created)
            return
        if not kept.own:
            found.trimmed = kept.offset
        if not found.kept:
            self._quiet[name] = kept.created
            self._quiet.move_to_end(name)

    def _drop(self, name: str, found: _Destination, now: float) -> None:
        """Drop the oldest publication of a destination."""
        kept = found.kept.popleft()
        self._bytes -= self._oldest.pop((name, kept.offset))
        if kept.expires > now or not kept.own:
            found.trimmed = kept.offset
        if not found.kept:
            self._quiet[name] = now

    def find_key(self, key: str, now: float) -> KeyRecord | None:
        """Return what is known of an idempotency key."""
        found = self._keys.get(key)
        if found is None or found[1] + self._limits.key_ttl <= now:
            self._keys.pop(key, None)  # so that the new one is at the end
            return None
        return found[0]

    def mark(self, name: str) -> str:
        """Return the text of a mark."""
        return self._marks.get(name, "")

    def set_mark(self, name: str, text: str) -> None:
        """Set a mark."""
        self._marks[name] = text

    def set_connections(self, items: list[Pending]) -> None:
        """Keep the `connections` of items with a key."""
        for item in items:
            if found := self._keys.get(item.key):
                self._keys[item.key] = found[0]._replace(connections=item.connections), found[1]

    def ack(self, destination: str, offset: int) -> None:
        """Move the acknowledged offset of a destination forward."""
        found = self._destinations.get(destination)
        if found is not None:
            found.acked = max(found.acked, offset)

    # Retention.

    def retain(self, now: float) -> bool:
        """Drop a little of what the limits no longer allow; return whether there is more."""
        deadline = Deadline(self._limits)
        while self._drop_oldest(now) or self._forget_destination(now) or self._forget_key(now):
            if deadline.is_over(self._is_crowded):
                return True
        return False

    def flush(self) -> None:
        """Do nothing: there is no place other than memory."""

    def probe(self) -> None:
        """Do nothing: memory can always be written."""

    def _is_crowded(self) -> bool:
        return self._bytes > self._limits.history_bytes

    def _drop_oldest(self, now: float) -> bool:
        """Drop the oldest publication of all if it expired or there is too much; return whether it did."""
        if not self._oldest:
            return False
        name, _ = next(iter(self._oldest))
        found = self._destinations[name]
        if found.kept[0].expires > now and not self._is_crowded():
            return False
        self._drop(name, found, now)
        return True

    def _forget_destination(self, now: float) -> bool:
        """Forget the destination that had no history for the longest time, if that is long enough."""
        if not self._quiet:
            return False
        name, since = next(iter(self._quiet.items()))
        if since + self._limits.forget_after > now and not self._is_crowded():
            return False
        del self._quiet[name]
        self._floor = max(self._floor, self._destinations.pop(name).offset)
        self._bytes -= OVERHEAD + len(name)
        return True

    def _forget_key(self, now: float) -> bool:
        """Forget the oldest key if it is too old, or there are too many."""
        if not self._keys:
            return False
        key, (_, created) = next(iter(self._keys.items()))
        if created + self._limits.key_ttl > now and len(self._keys) <= self._limits.max_keys:
            return False
        del self._keys[key]
        return True
