"""The path of publications from the store to the sockets: which have been stored, queued, and handed out.

The sockets of a destination have been handed everything up to one offset, however they registered it; only
Stripe.drain() moves it. Publications that are stored and still queued are beyond that offset, so the end of the store
is never the answer to a socket.
"""

from pushrelay.counters import Family

from .publication import Delivered, Tip, offset_in
from .store import TipReader
from .stripe import Deliver, LiveQueue, Stripe

STRIPES = 64  # locks that the destinations share; far more than there are threads, so two threads seldom collide


def unreached(count: int) -> Family:
    """Return the metric of the publications that reached nobody."""
    help_ = "Publications of accepted pushes whose destination had no connected client."
    return Family("relay_unreached_total", "counter", help_, count)


class Dispatcher:
    """The stripes of all destinations, and how far the publications of each have been handed out.

    `deliver` is called by one thread at a time for each destination, in the order of the offsets.
    """

    def __init__(self, store: TipReader, deliver: Deliver):
        self._store = store
        # For each destination in the present transaction, its first offset that is not in its stripe's queue yet. All
        # threads read it. The thread in the transaction changes it, and Stripe.drain() advances entries.
        self.committing: dict[str, int] = {}
        self.stripes = [Stripe(self.committing, deliver) for _ in range(STRIPES)]

    def stripe_of(self, destination: str) -> Stripe:
        """Return the stripe of a destination."""
        return self.stripes[hash(destination) % STRIPES]

    def deliveries(self) -> Family:
        """Return the metric of what was handed out."""
        help_ = "Publications that were handed to a connected client, once for each client."
        return Family("relay_deliveries_total", "counter", help_, sum(stripe.deliveries for stripe in self.stripes))

    def reached(self, destination: str, tip: Tip | None = None) -> int:
        """Return the offset up to which everything is in the stripe's queue or was handed out.

        The caller holds the stripe's lock. `tip` is the destination's, if the caller has just read it.

        Publications that are being committed do not count yet, though the store may have them already: they will come
        through the queue. The order matters: the store is asked first, so what it does not know yet is committed later.
        """
        offset = (tip or self._store.tip(destination)).offset
        first = self.committing.get(destination)
        return offset if first is None else min(offset, first - 1)

    def delivered(self, stripe: Stripe, destination: str) -> Delivered:
        """Hand out what is queued, and return how far the destination's sockets are. Raises StoreError.

        The caller holds the stripe's lock, so it may let a newcomer join at exactly this point. The offset is one
        number for all sockets of a destination. A publication that is stored and not handed out is beyond it, so the
        stored tip is never an answer to a socket. A store that loses something may begin a new epoch in between: the
        epoch is returned with its offset, and offsets of two epochs are never compared.
        """
        while True:
            epoch, last = self._store.epoch, 0
            tip = self._store.tip(destination)
            reached = self.reached(destination, tip)
            if stripe.queue:  # what is queued after this check is handed out to newcomers too
                live_queue = LiveQueue()
                stripe.attach(destination, live_queue)
                try:
                    stripe.drain()
                finally:
                    stripe.detach(destination, live_queue)
                last = offset_in(live_queue.last, epoch) or 0
            if epoch == self._store.epoch:  # otherwise the tip could belong to either epoch
                offset = max(reached, last)
                return Delivered(epoch, offset, max(tip.offset, offset))
