"""The broker on a Redis that several relays share: Redis numbers publications, and sends each of them to every node.

A node hands out what it receives through its subscription, its own publications too. So the order at every node is
Redis's order, and there is one path. See link.py for how nothing gets lost on it.
"""

import logging
import math
import secrets
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from pushrelay.counters import Family
from pushrelay.errors import StoreError
from pushrelay.store.archive import Archive
from pushrelay.store.base_broker import BaseBroker, require_pushed
from pushrelay.store.broker import Stored
from pushrelay.store.dispatcher import Dispatcher
from pushrelay.store.node_name import default_node
from pushrelay.store.nodes import Clients
from pushrelay.store.publication import Mark
from pushrelay.store.store import CLOSED, HistoryLimits
from pushrelay.store.stripe import Deliver, Pending

from .entry import Arrived
from .events import RedisEvents
from .held import ASKED, Held, Hole
from .history import RedisHistory, Seen
from .link import LEASE_SECONDS, PUBLIC, Link, State, Talk
from .loop import Loop, ThreadLoop
from .measures import FILLED, LOST, NOTHING, Measures
from .members import RedisMembers
from .newcomers import Newcomers
from .nodes import Announcer, Orders, clean
from .place import Place
from .publishing import Publishing
from .questions import Questions
from .resync import Missed, queue_missed, read_missed
from .rings import RedisRings
from .scripts import ACK, CLEAN, EXPECT, MARK, PRESENCE, SWEEP
from .verdicts import warnings
from .work import Work

log = logging.getLogger(__name__)

SHARD = "{0}"  # the hash tag of all keys, so that a shard's keys lie on one server
FORGET_AT_ONCE = 100  # destinations, in one sweep
DROP_SECONDS = 5.0  # after which a destination that nobody holds is held no longer
EXPECT_SECONDS = 60.0  # for which acknowledgements are reported after a new connection
READY_SECONDS = 3.0  # without a connection, after which the relay is not ready


class RedisBroker(BaseBroker):
    """A Broker: see there for its methods. `place` is the Redis.

    `deliver` and `clock` are LocalBroker's. `prefix`, `patience`, `replicas` and `node` are the settings redis_prefix,
    redis_patience, redis_wait and node. `loop` is the server's poller, or a ThreadLoop. `warns`: log at the start what
    is risky about this Redis.
    """

    is_shared = True

    def __init__(
        self,
        place: Place,
        deliver: Deliver,
        limits: HistoryLimits,
        clock: Callable[[], float] = time.time,
        *,
        loop: Loop,
        node: str = "",
        prefix: str = "relay",
        patience: float = 2.0,
        replicas: int = 0,
        durable: bool = False,
        warns: bool = False,
    ):
        self.name = node or default_node()
        self._measures = Measures()
        self._limits = limits
        self._clock = clock
        self._clients: Clients | None = None
        self._link = Link(
            place, loop, f"{self.name}:{secrets.token_hex(4)}", f"{prefix}:{SHARD}:", durable, self._measures
        )
        self._link.owner = self
        self._questions = Questions(place, patience)
        self._history = RedisHistory(self._questions, self._link, clock)
        seen = Seen(self._link)
        super().__init__(self._history, Archive(self._history, limits, clock), Dispatcher(seen, deliver))
        self._held = seen.held = Held(self._stripe_of)
        self._announcer = Announcer(self._link, lambda: self._clients)
        self._publishing = Publishing(
            self._link,
            self._held,
            limits,
            clock,
            patience,
            replicas,
            self._holders,
            self._announcer.announced,
            self._measures,
        )
        self.events = RedisEvents(self._history, self._questions, self._link, self._announce_all)
        self.members: RedisMembers = RedisMembers(self._link, self._history, self._questions)
        self.rings: RedisRings = RedisRings(self._link)
        self._orders = Orders(self._link, lambda: self._clients)
        self._fresh: dict[bytes, float] = {}  # destinations that may have no holder, and since when (monotonic)
        self._newcomers = Newcomers(self._link, patience)
        self._warns = warns
        self._started = False

    @property
    def trouble(self) -> str | None:
        """Why pushes are refused; None while they are not."""
        if not self._link.is_up and self._started and time.monotonic() - self._link.down_since > READY_SECONDS:
            return self._link.trouble
        return self._publishing.trouble

    def attach(self, clients: Clients) -> None:
        """Have the clients of this node take part. Call it once, before start()."""
        self._clients = clients

    def changed(self, destination: str, is_empty: bool) -> None:
        """Note that a client registered a destination, or that the last one left it. Any lock may be held."""
        self._announcer.changed(destination, is_empty)
        if is_empty:
            self._fresh[destination.encode()] = time.monotonic()

    def start(self) -> None:
        """Connect. Raises StoreError with what is wrong and what to do; after that, it may be called again."""
        facts = self._link.start()
        self._started = self._newcomers.may_wait = True
        place = self._link.place
        for each in warnings(facts, place.wanted, place.url) if self._warns else ():
            log.warning("%s: %s", place, each)

    # Publishing.

    def publish_pending(self, items: list[Pending]) -> None:
        """Store items in one transaction, and hand each out."""
        if items:
            self._require_started()
            self._publishing.publish(items)
            self.hand_out(items)

    def mark(self, name: str) -> str:
        """Return the text of a mark."""
        self._require_started()
        text: bytes = self._history.run(MARK, self.epoch, name)
        return text.decode()

    def publish_pending_marked(self, items: list[Pending], mark: Mark) -> None:
        """Store items and set a mark in one transaction, and hand each out."""
        self._require_started()
        self._publishing.publish(items, mark)
        self.hand_out(items)

    def store_soon(self, items: list[Pending], stored: Stored) -> None:
        """Store items in one transaction, and call `stored(error)` when Redis has answered."""
        self._publishing.add(items, stored)

    def hand_out(self, items: list[Pending], most: float = math.inf) -> list[Pending]:
        """Hand out all of the items, whatever `most` is: see Broker."""
        try:
            for item in items:
                stripe = item.stripe if item.first is None else item.first.stripe
                if stripe is not None:
                    with stripe:
                        stripe.drain()
        finally:
            self._publishing.finish(items)
        return []

    def sweep_after(self, count: int) -> None:
        """Do nothing: the scripts drop what a publication makes superfluous."""

    # Clients.

    @property
    def is_away(self) -> bool:
        """Whether Redis cannot be reached now, and has been away for less than redis_patience."""
        return self._newcomers.must_wait()

    def call_when_back(self, callback: Callable[[], None]) -> None:
        """Call back once when Redis is back, or redis_patience is over."""
        self._newcomers.call_when_back(callback)

    def _hold(self, destination: str) -> None:
        """Have this node hand out a destination's publications. Raises StoreError.

        Redis is asked for the last offset. Publications that arrive before its answer are kept aside; those that are
        not after that offset are in the history.
        """
        key, link, held = destination.encode(), self._link, self._held
        for _ in range(5):
            with link.lock:
                self._require_started()
                link.require_up()
                reached = held.reached.get(key)
                if reached is not None and reached != ASKED:
                    if key in self._fresh:  # it must not be dropped before the newcomer joins
                        self._fresh[key] = time.monotonic()
                    return
                if reached is None:
                    held.ask(key)
                    self._fresh[key] = time.monotonic()
                session = link.session
            try:
                offset = self._history.hold(destination, self._limits.forget_after)
            except BaseException:
                with link.lock:
                    held.give_up(key)
                raise
            work = Work()
            with link.lock:
                if link.session == session and link.is_up:
                    try:
                        early = held.found(key, offset)
                    except Hole:
                        link.cut("hole", "something is missing", work)
                    else:
                        for item in early:
                            work.drain(self._stripe_of(item.destination))
            work.run()
        raise StoreError("the connection to Redis keeps ending", PUBLIC)

    def _holders(self, destination: str) -> int:
        return 0 if self._clients is None else self._clients.holders(destination)[0]

    def _require_started(self) -> None:
        if not self._started:
            raise StoreError(CLOSED)

    # Acknowledgements.

    def ack(self, destination: str, position: str, sid: str = "") -> None:
        """Acknowledge everything up to a position. One that is earlier than acknowledged before changes nothing."""
        offset = self._offset_to_ack(position)
        last, _ = self._history.run(ACK, self.epoch, self._clock(), destination, offset, self._link.channel, sid)
        require_pushed(offset, last)

    def expect(self, destination: str, offset: int, seconds: float) -> None:
        """Have the acknowledgements of this offset reported by all nodes for some seconds."""
        link = self._link

        def expected(reply: Any, work: Work) -> None:
            if self._clients is not None and isinstance(reply, int) and reply >= offset:
                work.call(partial(self._clients.acknowledged, destination, reply, "somebody"))

        with link.lock:
            if link.is_up:
                link.run_script(EXPECT, (destination, seconds), expected)

    # Nodes.

    def elsewhere(self, destinations: list[str]) -> dict[str, tuple[int, float]]:
        """Return the connections at other nodes of each destination that has some, and since when."""
        answer = self._history.run(PRESENCE, self._link.node, *destinations)
        found = zip(destinations, answer[::2], answer[1::2], strict=True)
        return {each: (connections, float(since)) for each, connections, since in found if connections}

    def close_connections(self, destinations: list[str]) -> dict[str, Any]:
        """Disconnect the sockets of destinations at all nodes: see Orders.close(). Raises StoreError."""
        return self._orders.close(destinations)

    # Maintenance.

    def sweep(self) -> bool:
        """Forget a few destinations that nobody has used for long; return whether there is more."""
        self._require_started()
        self._drop_unheld()
        if not self._link.is_up:
            if time.monotonic() - self._link.down_since > READY_SECONDS:
                raise StoreError(self._link.trouble)
            return False
        if self._publishing.trouble:
            raise StoreError(self._publishing.trouble)  # until a batch or a beat is stored
        more = self._history.run(SWEEP, self._clock(), self._limits.forget_after, FORGET_AT_ONCE)
        return bool(more)

    def metrics(self) -> Iterator[Family]:
        """Return the metrics of the publications and of the connection. Any thread may call it; it does not wait."""
        yield from self._measures.metrics()
        yield self._dispatcher.deliveries()

    def flush(self) -> None:
        """Do nothing: what was accepted is in Redis."""

    def close(self) -> None:
        """Leave the other nodes, and close the connections. Later calls raise StoreError."""
        if not self._started:
            return
        self._started = self._newcomers.may_wait = False
        link = self._link
        link.close()
        try:
            while link.state.epoch and self._history.run(CLEAN, link.node, self.members.return_seconds()):
                pass
        except StoreError:
            log.info("the other nodes will notice within %d s that this one is gone", LEASE_SECONDS)
        self._questions.close()
        if isinstance(link.loop, ThreadLoop):
            link.loop.close()

    def _drop_unheld(self) -> None:
        """Hold destinations no longer that have had no client for DROP_SECONDS."""
        if self._clients is None:
            return
        now = time.monotonic()
        for key, since in list(self._fresh.items()):
            if now - since < DROP_SECONDS:
                continue
            destination = key.decode()
            stripe = self._stripe_of(destination)
            with stripe, self._link.lock:
                if self._fresh.get(key) != since:
                    continue
                del self._fresh[key]
                if destination in stripe.live_queues or not self._link.is_up:
                    self._fresh.setdefault(key, now)  # later
                elif not self._holders(destination):  # otherwise the last one that leaves reports it
                    self._held.drop(key)

    # Called by the link.

    def resync(self, talk: Talk, before: State, now: State) -> Callable[[Work], None]:
        """Read what was missed; see resync.py."""
        self._questions.renew()
        if not before.epoch:
            self._orders.begin(now.order)
            return lambda work: None
        self._orders.catch_up(talk, now.order)
        missed = read_missed(talk, self._held, before, now, self._clock)
        self._measures.resyncs.add(LOST if missed.lost else FILLED if missed.entries else NOTHING)
        if missed.lost:
            self._send_back(missed.lost)
        return partial(self._hand_out_missed, missed, before)

    def _send_back(self, keys: list[bytes]) -> None:
        """Have the clients of destinations reconnect, because something that they missed is in no history any more.

        Nothing arrives before the link is up. So nothing later is handed to them, and they come back with a position
        from before the hole.
        """
        destinations = [key.decode() for key in keys]
        for key, destination in zip(keys, destinations, strict=True):
            stripe = self._stripe_of(destination)
            with stripe, self._link.lock:
                self._held.drop(key)
                for live_queue in stripe.live_queues.get(destination, ()):
                    live_queue.break_off()
        log.warning(
            "something is missing for %d destinations, and their histories do not reach back to it (settings "
            "history_size and history_ttl): their clients reconnect, and get the status lost",
            len(destinations),
        )
        if self._clients is not None:
            self._clients.send_back(destinations)

    def _hand_out_missed(self, missed: Missed, before: State, work: Work) -> None:
        if before.epoch != self.epoch:
            self._held.leave(before.epoch, before.generation)
        queued = queue_missed(missed, self._held, self.epoch, self._clock())
        for item in queued:
            work.drain(self._stripe_of(item.destination))
        self._measures.missed += len(queued)
        if queued:
            log.warning("%d publications came while the connection was away, and are handed out now", len(queued))

    def message(self, fields: list[Any], work: Work) -> None:
        """Take a message of any node. Raises Hole if something before it is missing."""
        kind = fields[2]
        if kind == b"p":
            if fields[3] != self._link.node_bytes or not self._publishing.is_own(fields[4], work):
                self._take_foreign(fields, work)
        elif kind == b"a":
            if self._clients is not None:
                destination, offset, sid = fields[3].decode(), int(fields[4]), fields[5].decode()
                work.call(partial(self._clients.acknowledged, destination, offset, sid))
        elif kind == b"o":
            self._orders.take(int(fields[4]), fields[3].decode(), fields[5])
        elif kind == b"m":
            self.members.take(fields)
        elif kind == b"e":
            work.call(self.events.wake)
        elif kind == b"b":
            work.call(self.rings.wake)
        elif kind == b"r" and fields[3] == self._link.node_bytes:
            self._orders.answered(int(fields[4]), fields[5].decode(), int(fields[6]))

    def _take_foreign(self, fields: list[Any], work: Work) -> None:
        wants, reached = self._held.wants, self._held.reached
        for at in range(5, len(fields), 3):
            key = fields[at]
            if key in reached and wants(key, fields[at + 1]):
                item = Arrived(key.decode(), fields[at + 1], self.epoch, fields[at + 2])
                work.drain(self._held.put(key, item))

    def beaten(self, holding: int, users: int, nodes: int, refusal: str | None, gone: list[str]) -> None:
        """Compare what Redis knows of this node, and forget nodes that are gone."""
        self._publishing.trouble = refusal
        self._measures.nodes = nodes
        self._announcer.compare(holding)
        self.members.compare(users)
        for each in gone:
            clean(self._link, each)

    def up(self, work: Work) -> None:
        """Go on after a new connection."""
        self._announce_all()
        self.members.up()
        self._publishing.resume(work)
        work.call(self._newcomers.let_in)
        work.call(self._ask_for_acknowledgements)

    def _ask_for_acknowledgements(self) -> None:
        if self._clients is None:
            return
        for each in self._clients.waiting():
            try:
                acked = self._history.run(EXPECT, each, EXPECT_SECONDS)  # the first time, it may not have arrived
            except StoreError:
                return
            self._clients.acknowledged(each, acked, "somebody")

    def cut(self, work: Work) -> None:
        """Expect no reply any more."""
        self._publishing.cut()
        self.members.cut(work)
        if not self._started:
            work.call(self._newcomers.let_in)
            self._publishing.fail_all(StoreError(CLOSED), work)

    def information(self) -> str:
        """Return what other nodes may know about this one."""
        self._announcer.count()
        self.members.count()
        return self.name

    def last_order(self) -> int:
        """Return the number of the last order that this node has seen."""
        return self._orders.last

    def _announce_all(self) -> None:
        """Write again what this node holds. The lock of the link is held."""
        reached = self._held.reached.items()
        self._announcer.announce_all([key.decode() for key, offset in list(reached) if offset != ASKED])
