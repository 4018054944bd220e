"""The history of all destinations for readers: positions go in, publications come out."""

from collections.abc import Callable

from .publication import Kept, Publication, Tip, offset_in, position_of
from .store import HistoryLimits, Page, StoreReader


class Archive:
    """The history of all destinations. `clock` returns the seconds since 1970. Every method may raise StoreError."""

    def __init__(self, store: StoreReader, limits: HistoryLimits, clock: Callable[[], float]):
        self._store = store
        self.limits = limits
        self.clock = clock

    @property
    def epoch(self) -> str:
        """The store's epoch."""
        return self._store.epoch

    def offset_of(self, destination: str, since: str) -> int | None:
        """Return the offset of `since`, a position or "acked"; None if this store did not give out that position."""
        return self._store.tip(destination).acked if since == "acked" else offset_in(since, self._store.epoch)

    def read(self, destination: str, after: int, max_bytes: int | None = None, with_data: bool = True) -> Page:
        """Return what is kept after an offset, like Store.read()."""
        return self._store.read(destination, after, max_bytes, with_data)

    def complete(self, kept: list[Kept], tip: Tip, after: int) -> list[Kept] | None:
        """Return the unexpired part of `kept`, everything after an offset; None if something is missing."""
        if not tip.trimmed <= after <= tip.offset:
            return None
        now = self.clock()
        live = [each for each in kept if each.expires > now]
        lost = len(live) > self.limits.history_size or any(each.expires <= now and not each.own for each in kept)
        return None if lost else live

    def publication(self, destination: str, kept: Kept, epoch: str) -> Publication:
        """Return a publication as it was handed out.

        `epoch` is the one from before it was read. If the store begins a new one in between, the position is invalid,
        and not that of another publication.
        """
        position = position_of(epoch, kept.offset)
        return Publication(destination, position, kept.event, kept.text, kept.created, kept.expires)
