"""The destinations that this node holds, and up to which offset each of them has been queued for its sockets.

Redis determines the order of publications, and sends every publication to every node. A node queues those of the
destinations that it holds, each offset exactly once and in order. The lock of the link guards everything here: a
newcomer that reads an offset finds everything up to it in the stripe's queue, or it has been handed out.
"""

from collections.abc import Callable
from typing import NamedTuple

from pushrelay.store.stripe import Pending, Stripe

# In place of an offset: Redis has been asked for the last one. Until it answers, publications are kept aside.
ASKED = -1
MOST_EARLIER = 2  # epochs whose offsets are remembered


class Hole(Exception):
    """A publication arrived, and an earlier one of its destination did not."""


class Earlier(NamedTuple):
    """The offsets up to which this node had handed out a store when it changed to another one."""

    generation: int
    reached: dict[bytes, int]


class Held:
    """The destinations by their names in UTF-8. `stripe_of(destination)` returns the stripe of one."""

    def __init__(self, stripe_of: Callable[[str], Stripe]):
        self._stripe_of = stripe_of
        self.reached: dict[bytes, int] = {}  # everything up to this offset is in the stripe's queue or was handed out
        # By epoch, of the last few that this node has left. A store may come back: if a master was replaced while it
        # was paused, it is a master until it notices, and a node may meet it and its successor in turn.
        self.earlier: dict[str, Earlier] = {}
        self._early: dict[bytes, list[Pending]] = {}

    def wants(self, key: bytes, offset: int) -> bool:
        """Return whether the publication at this offset must be queued. Raises Hole."""
        reached = self.reached.get(key)
        if reached is None:
            return False
        if reached == ASKED:
            return True
        if offset > reached + 1:
            raise Hole(key)
        return offset > reached

    def put(self, key: bytes, item: Pending) -> Stripe | None:
        """Queue an item that is wanted. Return its stripe, to be drained, or None if it is kept aside."""
        if self.reached[key] == ASKED:
            self._early[key].append(item)
            return None
        self.reached[key] = item.offset
        stripe = self._stripe_of(item.destination)
        stripe.queue.append(item)
        return stripe

    def leave(self, epoch: str, generation: int) -> None:
        """Remember the offsets of a store that this node leaves for another one."""
        self.earlier.pop(epoch, None)
        self.earlier[epoch] = Earlier(generation, {key: at for key, at in self.reached.items() if at != ASKED})
        while len(self.earlier) > MOST_EARLIER:
            del self.earlier[next(iter(self.earlier))]

    def ask(self, key: bytes) -> None:
        """Keep aside what arrives for a destination until found() is called for it."""
        self.reached[key] = ASKED
        self._early[key] = []

    def found(self, key: bytes, offset: int) -> list[Pending]:
        """Hold a destination whose last offset was this one; queue what has arrived since, and return it.

        Do nothing if another thread has done so. Raises Hole.
        """
        if self.reached.get(key) != ASKED:
            return []
        early = [item for item in self._early.pop(key, ()) if item.offset > offset]
        if [item.offset for item in early] != list(range(offset + 1, offset + 1 + len(early))):
            self.drop(key)
            raise Hole(key)
        self.reached[key] = offset + len(early)
        for item in early:
            self._stripe_of(item.destination).queue.append(item)
        return early

    def give_up(self, key: bytes) -> None:
        """Forget a destination whose last offset could not be read."""
        if self.reached.get(key) == ASKED:
            self.drop(key)

    def drop(self, key: bytes) -> None:
        """Hold a destination no longer."""
        self.reached.pop(key, None)
        self._early.pop(key, None)

    def drop_asked(self) -> None:
        """Forget all destinations whose last offset is not known."""
        for key in list(self._early):
            self.drop(key)
