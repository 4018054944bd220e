"""Idempotency keys: a push whose key was used before gets the first one's answer and is not stored."""

from .publication import KeyRecord, position_of
from .store import Store
from .stripe import KeyUse, Pending


class Keys:
    """The keys that were used before: those of items on their way, and those in the store.

    Only the thread in the transaction calls is_repeat(). It may do so while others remove from `pending`.
    """

    def __init__(self, store: Store):
        self._store = store
        # Items with a key, from their transaction until their `connections` are final and stored.
        self.pending: dict[str, Pending] = {}

    def is_repeat(self, item: Pending, use: KeyUse, now: float) -> bool:
        """Return whether an item's key was used before; then the item gets the first one's receipt and is not stored.

        If a key of its push was used for something else, no item of the push is stored.
        """
        known = use.known
        if known is None:
            known = use.known = self._look_up(use, now if use.asked_at is None else min(now, use.asked_at))
        if use.is_reused:
            return True
        first = known.pop(item.key, None)
        if first is None:
            return False
        if isinstance(first, Pending):
            item.first = first
        else:
            item.position, item.connections = position_of(self._store.epoch, first.offset), first.connections
        return True

    def _look_up(self, use: KeyUse, now: float) -> dict[str, Pending | KeyRecord]:
        known: dict[str, Pending | KeyRecord] = {}
        for key in use.keys:
            first = self.pending.get(key) or self._store.find_key(key, now)
            if first is None:
                continue
            known[key] = first
            fingerprint = _fingerprint_of(first)
            if fingerprint not in (use.fingerprint, None):
                use.is_reused = True
                return {}
        return known


def _fingerprint_of(first: Pending | KeyRecord) -> str | None:
    if isinstance(first, Pending):
        return first.use.fingerprint if first.use is not None else None
    return first.fingerprint
