"""The nodes that share a Redis: what each of them holds, orders to all of them, and acknowledgements among them.

A node writes which destinations it holds, and renews one lease for all of them with its beat. So the cost does not
depend on the number of clients, and the destinations of a node that died are forgotten within some seconds.
"""

import contextlib
import itertools
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import hiredis

from pushrelay.errors import StoreError
from pushrelay.json_text import decode, encode
from pushrelay.store.nodes import Clients

from .link import Link, Talk
from .scripts import CLEAN, HOLDERS, ORDER
from .wire import packed
from .work import Work

log = logging.getLogger(__name__)

FLUSH_SECONDS = 0.05  # after which a change is written
LINGER_SECONDS = 2.0  # the same for a destination that nobody holds any more: a page change writes nothing
MOST_AT_ONCE = 256  # destinations in one write
ORDER_SECONDS = 2.0  # for all nodes to carry out an order
UNSURE = -1  # in place of a number of connections
COMPARE_EVERY = 10  # beats between two comparisons with what Redis knows


class Announcer:
    """Writes which destinations this node holds. Any thread may call changed(), with any lock held."""

    def __init__(self, link: Link, clients: Callable[[], Clients | None]):
        self._link = link
        self._clients = clients
        self._changes: deque[tuple[float, str]] = deque()  # when to look at it (monotonic), destination
        # Connections of each destination as they were written. UNSURE if that may not have arrived; 0 until Redis has
        # confirmed that it forgot the destination.
        self._known: dict[str, int] = {}
        self._due = math.inf  # when flush() is called (monotonic)
        self._timer: Any = None  # of that call
        self._beats = 0
        self._counted: int | None = None  # destinations that Redis must know of when the present beat arrives

    def changed(self, destination: str, is_empty: bool) -> None:
        """Note that a client registered a destination, or that the last one left it."""
        now = time.monotonic()
        self._changes.append((now + LINGER_SECONDS if is_empty else now, destination))
        self._flush_in(LINGER_SECONDS if is_empty else FLUSH_SECONDS, now)

    def announced(self, destination: str) -> int:
        """Return the number of connections that Redis knows this node to have at a destination."""
        return self._known.get(destination, 0)

    def announce_all(self, destinations: Iterable[str]) -> None:
        """Write everything again, and what else Redis may know. The lock of the link is held."""
        self._known = dict.fromkeys(self._known, UNSURE)
        for each in {**self._known, **dict.fromkeys(destinations)}:
            self.changed(each, False)

    def count(self) -> None:
        """Count what Redis must know, because a beat is about to be sent. The lock of the link is held."""
        self._beats += 1
        self._counted = None
        if self._beats % COMPARE_EVERY == 0:
            known = list(self._known.values())
            self._counted = None if UNSURE in known else len(known) - known.count(0)

    def compare(self, holding: int) -> None:
        """Write everything again if Redis knew of another number of destinations when the beat arrived."""
        if self._counted is not None and holding != self._counted:
            self.announce_all(())

    def flush(self) -> None:
        """Write the changes that are due."""
        clients, now = self._clients(), time.monotonic()
        self._due = math.inf
        if clients is None:
            self._changes.clear()
            return
        due: dict[str, None] = {}
        later: list[tuple[float, str]] = []
        with contextlib.suppress(IndexError):  # there are no more
            while True:
                at, destination = self._changes.popleft()
                if at <= now:
                    due[destination] = None
                else:
                    later.append((at, destination))
        with self._link.lock:
            if self._link.is_up:  # otherwise everything is written again when it is
                self._write(list(due), clients)
        self._changes.extend(later)
        if later:
            self._flush_in(max(FLUSH_SECONDS, min(later)[0] - now), now)

    def _flush_in(self, seconds: float, now: float) -> None:
        """Have flush() called after this time, unless it is called earlier."""
        if now + seconds < self._due:
            self._due = now + seconds
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._link.loop.call_later(seconds, self.flush)

    def _write(self, destinations: list[str], clients: Clients) -> None:
        writes: list[tuple[str, int, str]] = []
        for each in destinations:
            connections, since = clients.holders(each)
            if connections != self._known.get(each, 0):
                self._known[each] = connections
                writes.append((each, connections, f"{since:.3f}"))
        for start in range(0, len(writes), MOST_AT_ONCE):
            part = writes[start : start + MOST_AT_ONCE]
            args = (self._link.node, *itertools.chain.from_iterable(part))
            self._link.run_script(HOLDERS, args, partial(self._written, part))

    def _written(self, writes: list[tuple[str, int, str]], reply: Any, work: Work) -> None:
        for destination, connections, _ in writes:
            if self._known.get(destination) != connections:
                continue  # it was written again since
            if isinstance(reply, hiredis.ReplyError):
                self._known[destination] = UNSURE
                self.changed(destination, True)  # again later
            elif not connections:
                del self._known[destination]


class _Answers:
    """The answers to one order of this node."""

    def __init__(self) -> None:
        self.closed: dict[str, int] = {}  # sockets that were closed, by node
        self.changed = threading.Event()  # an answer has come


class Orders:
    """Orders to all nodes: to close the sockets of some destinations."""

    def __init__(self, link: Link, clients: Callable[[], Clients | None]):
        self._link = link
        self._clients = clients
        self.last = 0  # number of the last order that was carried out here
        self._answers: dict[int, _Answers] = {}  # by order of this node
        self._todo: deque[tuple[int, str, bytes]] = deque()
        self._is_working = False

    def close(self, destinations: list[str]) -> dict[str, Any]:
        """Have all nodes close the sockets of destinations; return the answer to the program that wants it.

        `closed` is their number. `unreached` names the nodes that did not answer within ORDER_SECONDS; they carry out
        the order before a client can register there. Raises StoreError.
        """
        number, nodes = self._give({"close": destinations})
        deadline = time.monotonic() + ORDER_SECONDS
        answers = self._answers[number]
        while not nodes <= answers.closed.keys() and (left := deadline - time.monotonic()) > 0:
            answers.changed.clear()
            if not nodes <= answers.closed.keys():
                self._link.wait(answers.changed, left)
        with self._link.lock:
            closed = self._answers.pop(number).closed
        answer: dict[str, Any] = {"closed": sum(closed.values())}
        if missing := nodes - closed.keys():
            answer["unreached"] = sorted(each.rpartition(":")[0] for each in missing)
        return answer

    def _give(self, order: dict[str, Any]) -> tuple[int, set[str]]:
        """Publish an order; return its number, and the nodes that live."""
        replies: list[Any] = []
        done, link, is_over = threading.Event(), self._link, False

        def given(reply: Any, work: Work) -> None:
            if not isinstance(reply, hiredis.ReplyError) and not is_over:
                self._answers[reply[0]] = _Answers()
            replies.append(reply)
            done.set()

        with link.lock:
            link.require_up()
            link.run_script(ORDER, (link.node, link.state.epoch, link.channel, encode(order)), given)
        link.wait(done, ORDER_SECONDS)
        with link.lock:
            is_over = True
        if not replies:
            raise StoreError(f"{link.place} did not answer: it is not known whether the order was given; repeat it")
        if isinstance(replies[0], hiredis.ReplyError):
            raise link.place.explained(replies[0])
        number, *nodes = replies[0]
        return number, {each.decode() for each in nodes}

    # With the lock of the link held.

    def begin(self, last: int) -> None:
        """Count from an order that was given before this node was there, or in an earlier epoch."""
        self.last = last

    def take(self, number: int, asking: str, order: bytes) -> None:
        """Carry out an order soon, unless that was done."""
        if number <= self.last:
            return
        self.last = number
        self._todo.append((number, asking, order))
        if not self._is_working:
            self._is_working = True
            threading.Thread(target=self._work, name="redis-orders", daemon=True).start()

    def answered(self, number: int, node: str, closed: int) -> None:
        """Take a node's answer to an order of this node."""
        answers = self._answers.get(number)
        if answers is not None:
            answers.closed[node] = closed
            answers.changed.set()

    # Without it.

    def catch_up(self, talk: Talk, last: int) -> None:
        """Carry out the orders that were given while the connection was away, before it is used."""
        for raw in talk.checked("LRANGE", f"{self._link.keys}orders", 0, -1):
            number, _, order = raw.partition(b" ")
            if int(number) > self.last:
                self.last = int(number)
                self._carry_out(order)
        self.last = max(self.last, last)

    def _work(self) -> None:
        while True:
            with self._link.lock:
                if not self._todo:
                    self._is_working = False
                    return
                number, asking, order = self._todo.popleft()
            closed = self._carry_out(order)
            message = packed(self._link.state.epoch, 0, "r", asking, number, self._link.node, closed)
            with self._link.lock:
                if self._link.is_up:
                    self._link.send(("PUBLISH", self._link.channel, message), lambda reply, work: None)

    def _carry_out(self, order: bytes) -> int:
        clients = self._clients()
        try:
            return 0 if clients is None else clients.close(decode(order.decode())["close"])
        except Exception:
            log.exception("an order of another node could not be carried out")
            return 0


def clean(link: Link, node: str) -> None:
    """Forget a node that is gone, step by step. The lock of the link is held."""

    def cleaned(more: Any, work: Work) -> None:
        if more == 1 and link.is_up:
            clean(link, node)

    link.run_script(CLEAN, (node, 0), cleaned)
