"""`memory:`: publications in this process's memory. They end with it, and the next start has another epoch."""

import bisect
import itertools
import operator
import threading
import time
from collections import OrderedDict, deque
from typing import Any

from .broker import Broker, new_epoch
from .dispatch import Pending
from .publication import Kept, Tip, cut

OVERHEAD = 600  # bytes that a publication takes beside its data, and a destination beside its name (measured)
_OFFSET = operator.attrgetter("offset")


class _Destination:
    __slots__ = ("acked", "kept", "offset", "trimmed")

    def __init__(self, offset: int):
        self.offset = self.trimmed = self.acked = offset
        self.kept: deque[Kept] = deque()


class MemoryBroker(Broker):
    """A broker without a store beyond this process. What expired early may take room until older ones go, too."""

    def __init__(self, deliver: Any, **options: Any):
        super().__init__(deliver, **options)
        self._data = threading.Lock()  # guards all below, and is held from _begin() to _commit()
        self._destinations: dict[str, _Destination] = {}
        self._oldest: OrderedDict[tuple[str, int], int] = OrderedDict()  # (destination, offset): bytes, by age
        self._quiet: OrderedDict[str, float] = OrderedDict()  # without history, by the time since when
        # By key: offset, connections, fingerprint, time.
        self._keys: OrderedDict[str, tuple[int, int, str, float]] = OrderedDict()
        self._bytes = 0  # that all publications and destinations take, about
        self._floor = 0  # the highest offset ever forgotten: new destinations count on from it

    def _open(self) -> None:
        self.epoch = new_epoch()

    def _close(self) -> None:
        pass

    def _tip(self, destination: str) -> Tip:
        found = self._destinations.get(destination)
        if found is None:
            return Tip(self._floor, self._floor, self._floor)
        return Tip(found.offset, found.trimmed, found.acked)

    def _page(
        self, destination: str, since: int, most: int | None = None, with_data: bool = True
    ) -> tuple[list[Kept], Tip, bool]:
        with self._data:
            found = self._destinations.get(destination)
            tip = self._tip(destination)
            if found is None:
                return [], tip, False
            first = bisect.bisect_right(found.kept, since, key=_OFFSET)
            kept, more = cut(itertools.islice(found.kept, first, None), most)
            return kept, tip, more

    def _begin(self) -> None:
        self._data.acquire()

    def _commit(self) -> None:
        self._data.release()

    def _rollback(self) -> None:
        # Nothing between _begin() and _commit() can fail: drafts are checked before.
        self._data.release()

    def _store(self, items: list[Pending], now: float) -> None:
        for item in items:
            if item.key is not None and self._repeats(item, now):
                continue
            name = item.destination
            found = self._destinations.get(name)
            if found is None:
                found = self._destinations[name] = _Destination(self._floor)
                self._bytes += OVERHEAD + len(name)
            offset = found.offset + 1
            seconds, own = self._lifetime(item.ttl)
            self._place(item, offset, now, now + seconds)  # first: see _reached(), which this thread does not wait for
            found.offset = offset
            self._keep(found, item, Kept._make((offset, item.event, item.text, now, now + seconds, own)))
            if item.key is not None:
                self._keys[item.key] = (item.offset, 0, item.use.fingerprint, now)

    def _keep(self, found: _Destination, item: Pending, kept: Kept) -> None:
        name = item.destination
        if kept.expires > kept.created:
            self._quiet.pop(name, None)
            found.kept.append(kept)
            self._oldest[name, kept.offset] = size = OVERHEAD + len(kept.text)
            self._bytes += size
            if len(found.kept) > self.history_size:
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

    def _find_key(self, key: str, now: float) -> tuple[int, int, str | None] | None:
        found = self._keys.get(key)
        if found is None or found[3] + self.KEY_TTL <= now:
            self._keys.pop(key, None)  # so that the new one stands at the end
            return None
        return found[:3]

    def _store_connections(self, items: list[Pending]) -> None:
        for item in items:
            if found := self._keys.get(item.key or ""):
                self._keys[item.key or ""] = (found[0], item.connections, *found[2:])

    def _store_ack(self, destination: str, offset: int) -> None:
        found = self._destinations.get(destination)
        if found is not None:
            found.acked = max(found.acked, offset)

    def _sweep(self) -> bool:
        end, now, looks = time.monotonic() + self.SWEEP_SECONDS, self._clock(), 0
        while self._sweep_history(now) or self._sweep_name(now) or self._sweep_key(now):
            looks += 1
            if time.monotonic() > end and (looks >= self.SWEEP_LEAST or self._bytes <= self.history_bytes):
                return True
        return False

    def _sweep_history(self, now: float) -> bool:
        """Drop the oldest publication of all where it expired or there is too much; returns whether it did."""
        if not self._oldest:
            return False
        name, _ = next(iter(self._oldest))
        found = self._destinations[name]
        if found.kept[0].expires > now and self._bytes <= self.history_bytes:
            return False
        self._drop(name, found, now)
        return True

    def _sweep_name(self, now: float) -> bool:
        """Forget the destination that had no history for the longest, where that is long enough."""
        if not self._quiet:
            return False
        name, since = next(iter(self._quiet.items()))
        if since + self.FORGET_AFTER > now and self._bytes <= self.history_bytes:
            return False
        del self._quiet[name]
        self._floor = max(self._floor, self._destinations.pop(name).offset)
        self._bytes -= OVERHEAD + len(name)
        return True

    def _sweep_key(self, now: float) -> bool:
        if not self._keys:
            return False
        key, (*_, created) = next(iter(self._keys.items()))
        if created + self.KEY_TTL > now and len(self._keys) <= self.MAX_KEYS:
            return False
        del self._keys[key]
        return True
