"""The metrics of a broker on Redis."""

from collections.abc import Iterator

from pushrelay.counters import SIZES, Counters, Family, Histogram
from pushrelay.store.dispatcher import unreached

# Why a connection ended. See link.py.
CUTS = ("eof", "beat", "hole", "epoch", "demoted", "scripts", "protocol")
NOTHING, FILLED, LOST = "nothing", "filled", "lost"  # what a new connection found to be missing


class Measures:
    """The counters. The lock of the link guards all but `resyncs`, which any thread may add to."""

    def __init__(self) -> None:
        self.is_up = False
        self.nodes = 1
        self.echo = Histogram()  # seconds until a beat came back
        self.cuts = Counters(CUTS)
        self.resyncs = Counters((NOTHING, FILLED, LOST))
        self.missed = 0  # publications that a resync handed out
        self.epochs = 0  # that began while this node was connected before
        self.batches = Histogram(SIZES)  # by the publications in them
        self.resent = 0  # batches that were sent again
        self.published = 0
        self.unreached = 0  # publications of this node for which no client was connected at any node

    def metrics(self) -> Iterator[Family]:
        """Return the metrics."""
        yield Family("relay_redis_up", "gauge", "1 while the connection to Redis can be used, 0 otherwise.", self.is_up)
        help_ = "Seconds until a beat, which writes to Redis once a second, came back."
        yield Family("relay_redis_echo_seconds", "histogram", help_, self.echo)
        help_ = "Connections to Redis that ended, by the reason."
        yield Family("relay_redis_cuts_total", "counter", help_, self.cuts.values(), ("reason",))
        help_ = (
            "New connections to Redis after the first one, by what was missed: nothing, publications that were handed "
            "out late (filled), or some that are gone, so that clients had to reconnect (lost)."
        )
        yield Family("relay_resyncs_total", "counter", help_, self.resyncs.values(), ("result",))
        help_ = "Publications that were handed out late, after a new connection to Redis."
        yield Family("relay_resync_publications_total", "counter", help_, self.missed)
        help_ = "Batches that this node published, by the number of their publications."
        yield Family("relay_batch_publications", "histogram", help_, self.batches)
        help_ = "Batches that were sent again because the connection ended before their answer."
        yield Family("relay_batches_resent_total", "counter", help_, self.resent)
        help_ = "New epochs of the store: clients with an earlier position learn that something may be missing."
        yield Family("relay_epochs_total", "counter", help_, self.epochs)
        yield Family("relay_nodes", "gauge", "Relays that share this Redis and live.", self.nodes)
        yield Family("relay_publications_total", "counter", "Publications that were stored.", self.published)
        yield unreached(self.unreached)
