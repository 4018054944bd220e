"""Threads that share one epoll set: the thread that receives an event handles it, in ordinary blocking Python.

One thread at a time polls, the *leader*. It takes a batch of events and handles them one after another, as an event
loop does. With several threads polling, each push would cost a hand-over of the interpreter lock. If a handler blocks,
a watchdog hands the lead to another thread within two ticks; when the blocked thread is done, it waits for the lead. So
a blocking handler delays others once, by some milliseconds, and holds one thread.

A *source* is anything with `fileno()`, `run()`, a `share` and `hung_up`. An event is only a hint to look at the socket,
never a fact about it. A connection is watched for edges (EDGE): it has an event whenever something arrives, and none
for what it has left unread. So a connection that reads everything need not be armed again. An event may also come while
another thread runs the source; see Connection.run().

Sources whose `share` is None come first: connections that push, or may. The others wait in a `FairQueue`, and the
leader gives them one turn each, looking for new events at least every POLL_SECONDS. So a push waits for one turn of a
visitor, however many visitors there are. After PATIENCE turns of sources that come first, one turn goes to the others.
"""

import collections
import contextlib
import heapq
import itertools
import logging
import math
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from pushrelay.counters import Family, queue_length

from .fair_queue import FairQueue
from .outboxes import Outboxes
from .sources import Runnable, Source, Timer

log = logging.getLogger(__name__)

# This module can be imported without epoll, because others use constants and names of its package there.
IN = getattr(select, "EPOLLIN", 1)
OUT = getattr(select, "EPOLLOUT", 4)
HANGUP = getattr(select, "EPOLLRDHUP", 0x2000)
EDGE = getattr(select, "EPOLLET", 1 << 31)
ONE_SHOT = getattr(select, "EPOLLONESHOT", 1 << 30)

TICK = 0.002  # seconds; a handler counts as stuck after one tick at least and two at most
# A leader that finishes more than BUSY_TURNS turns in a tick is checked less often. Each wake-up of the watchdog takes
# the interpreter lock from the leader, and then its core: a wake-up every 4 ms cost a busy leader 10 % of its pushes.
BUSY_TURNS = 20
BUSY_TICK = 0.016
DOZE_AFTER = 25  # ticks without work after which the watchdog sleeps, so that an idle relay uses no CPU
IDLE_SECONDS = 10.0  # without work, after which a thread beyond the first one ends
# Turns in a row for sources that come first. Then something else has one turn: deferred work, a timer, or a source with
# a share. Some turns take as long as ten pushes.
PATIENCE = 16
POLL_SECONDS = 0.002  # between two looks for new events while sources with a share wait for their turn
WATCHDOG_PAUSE = 0.1  # seconds for which the watchdog pauses after it has failed
BATCH = 256  # events taken at a time: enough to make the call cheap, few enough that timers are not late


class _Worker:
    """A thread of the poller, and the lock on which it sleeps while it has nothing to do."""

    __slots__ = ("thread", "wake")

    def __init__(self) -> None:
        self.wake = threading.Lock()
        self.wake.acquire()
        self.thread: threading.Thread | None = None


class Poller:
    """Watches sources and timers with at most `threads` threads, which start on demand and end when idle."""

    def __init__(self, threads: int = 8):
        if threads < 2:
            raise ValueError("the poller needs at least two threads: one polls while the other is stuck")
        self.threads = threads
        self.outboxes = Outboxes(lambda shed: self.call_later(0, shed))
        self.polled = 0.0  # when the leader last looked for events (monotonic); only the leader sets it
        # The leader's work.
        self._epoll: Any = None  # set by start()
        self._sources: dict[int, Source] = {}  # by file descriptor
        self._ready: collections.deque[Runnable] = collections.deque()  # work without a share
        self._shares: FairQueue[Runnable] = FairQueue()  # work with a share, and work that needs another turn
        self._due: collections.deque[Timer] = collections.deque()
        self._spare: collections.deque[Runnable] = collections.deque()  # work that may block: see run_when_spare
        self._timer_next = False  # the next of `_shares` and `_due` is a timer, not work with a share
        self._afterwards: collections.deque[Timer] = collections.deque()  # for when `_ready` is empty, or had PATIENCE
        self._retired: list[socket.socket] = []  # to be closed while no thread holds an event
        self._polling = threading.Lock()  # held from closing the retired sockets until all events have become sources
        self._waiting = False  # the leader waits for events, or is about to, and must be woken
        self._wake_fd = -1  # an eventfd that wakes it
        # The lead.
        self._lock = threading.Lock()  # guards the workers below
        self._leader: _Worker | None = None
        self._idle: list[_Worker] = []  # the last one is woken first, so that the others can become idle and end
        self._workers: set[_Worker] = set()
        self._handovers = 0  # how often the watchdog has handed the lead over
        # The watchdog compares `_turns` with its value a tick ago, and notifies the source that is stuck.
        self._turns = 0
        self._current: Runnable | None = None
        self._dozing = False
        self._alarm = threading.Event()
        # Timers, the next one first; the number keeps timers of the same deadline in order.
        self._timers: list[tuple[float, int, Timer]] = []
        self._next_due = math.inf  # the first one's deadline; infinity if there is none
        self._numbers = itertools.count()
        self._timer_lock = threading.Lock()
        self._stopped = False

    def start(self) -> None:
        """Start polling. No thread and no file descriptor exists before this call, so a process may fork until then."""
        with self._lock:
            if self._epoll is not None:
                return
            self._epoll = select.epoll()
            self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._epoll.register(self._wake_fd, IN)
            self._start_leader()
        threading.Thread(target=self._watch, name="poller-watchdog", daemon=True).start()

    def call_later(self, seconds: float, callback: Callable[..., Any], *args: Any) -> Timer:
        """Call back on one of the poller's threads, `seconds` from now at the earliest. Any thread may call this."""
        timer = Timer(time.monotonic() + seconds, callback, args)
        with self._timer_lock:
            heapq.heappush(self._timers, (timer.deadline, next(self._numbers), timer))
            first = self._timers[0][2] is timer
            self._next_due = self._timers[0][0]
        if first:
            self.wake()
        return timer

    def run_soon(self, source: Runnable) -> None:
        """Run the source on a thread of the poller, as after an event. Any thread may call this."""
        self._queue(source)
        self.wake()

    def run_again(self, source: Runnable) -> None:
        """Run the source again, after others, because one turn was not enough. Any thread may call this."""
        self._shares.add(source)
        self.wake()

    def run_when_spare(self, source: Runnable) -> None:
        """Run the source, which may block, once another thread is free. Any thread may call this."""
        self._spare.append(source)
        self.wake()

    def call_when_spare(self, callback: Callable[..., Any], *args: Any) -> None:
        """Call back, in the same way as `run_when_spare`."""
        self.run_when_spare(Timer(0.0, callback, args))

    def has_urgent_work(self) -> bool:
        """Return whether work without a share waits, so that a source with a share should not run now."""
        return bool(self._ready or self._afterwards)

    def call_afterwards(self, callback: Callable[..., Any], *args: Any) -> None:
        """Call back when the events of this batch have been handled, or PATIENCE of them. Any thread may call this."""
        self._afterwards.append(Timer(0.0, callback, args))
        self.wake()

    def watch(self, source: Source, events: int) -> None:
        """Watch a new source for `events`, with EDGE or ONE_SHOT."""
        fd = source.fileno()
        self._sources[fd] = source
        self._epoll.register(fd, events)

    def rearm(self, fd: int, events: int) -> None:
        """Arm a watched source again. Events that are already there are reported again, as edges too.

        The source's own lock must ensure that it was not retired in between.
        """
        self._epoll.modify(fd, events)

    def retire(self, sock: socket.socket) -> None:
        """Forget the source of this socket, and close the socket soon.

        epoll reports only the number of a file descriptor, and the kernel reuses a number as soon as it is free. So a
        socket is closed only while no thread holds an event that has not become a source yet. Otherwise an event could
        reach the wrong connection.
        """
        self._sources.pop(sock.fileno(), None)
        self._retired.append(sock)
        self.wake()

    def wake(self) -> None:
        """Wake the leader if it waits for events."""
        if self._waiting:
            self._waiting = False
            os.eventfd_write(self._wake_fd, 1)

    def thread_count(self) -> int:
        """Return the number of threads, without the watchdog."""
        return len(self._workers)

    def is_short(self) -> bool:
        """Return whether the calling thread is the last free one: if it blocks, nothing is handled."""
        return not self._idle and len(self._workers) >= self.threads

    def sources(self) -> list[Source]:
        """Return the watched sources."""
        return list(self._sources.values())

    def close(self) -> None:
        """Stop all threads, wait for those that are not inside a handler, and close the file descriptors."""
        with self._lock:
            if self._stopped or self._epoll is None:
                self._stopped = True
                return
            self._stopped = True
            self._leader = None
            workers = list(self._workers)
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.wake.release()
        self._alarm.set()
        os.eventfd_write(self._wake_fd, 1)
        for worker in workers:
            if worker.thread is not None and worker.thread is not threading.current_thread():
                worker.thread.join(1.0)
        with self._polling:
            self._close_retired()
            self._epoll.close()
            os.close(self._wake_fd)

    def metrics(self) -> Iterator[Family]:
        """Return the metrics of the threads, of the work that waits for them, and of the outboxes."""
        yield Family("relay_poller_threads", "gauge", "Threads that serve connections.", len(self._workers))
        yield Family("relay_poller_threads_limit", "gauge", "Threads that may serve connections.", self.threads)
        help_ = "Handlers that blocked their thread, so that another one continued."
        yield Family("relay_poller_handovers_total", "counter", help_, self._handovers)
        yield queue_length("first", len(self._ready))
        yield queue_length("turns", len(self._shares))
        yield queue_length("spare", len(self._spare))
        yield queue_length("timers", len(self._due))
        yield from self.outboxes.metrics()

    # On a worker's thread.

    def _work(self, me: _Worker) -> None:
        while self._wait_for_lead(me):
            self._lead(me)
            with self._lock:
                if not self._stopped:
                    self._idle.append(me)
            if self._spare:
                self.wake()
        with self._lock:
            self._workers.discard(me)

    def _wait_for_lead(self, me: _Worker) -> bool:
        """Wait to become the leader. Return False if this thread must end instead."""
        if self._stopped:
            return False
        if not me.wake.acquire(timeout=IDLE_SECONDS):
            with self._lock:
                if me in self._idle:
                    self._idle.remove(me)
                    return False
            me.wake.acquire()
        return not self._stopped

    def _lead(self, me: _Worker) -> None:
        ready = self._ready
        source: Runnable | None
        left = PATIENCE  # turns of `ready` before `_afterwards` and the others have one each
        while self._leader is me:
            try:
                if left > 0 and ready:
                    left -= 1
                    source = ready.popleft()
                elif self._afterwards and (left == 0 or not ready):
                    left = -1
                    source = self._afterwards.popleft()
                else:
                    left = PATIENCE
                    source = self._next_of_others()
                    if source is None:
                        if not ready:  # what waits by now has a turn before the next events, which might never end
                            left = 0 if self._shares.count or self._due else PATIENCE
                            self._poll()
                        continue
            except IndexError:  # taken by a thread that was stuck and has not noticed that it lost the lead
                continue
            self._turns += 1
            self._current = source
            try:
                source.run()
            except Exception:
                log.exception("%r failed", source)

    def _next_of_others(self) -> Runnable | None:
        """Take a timer that is due or a source with a share, in turn; None if there is none, or new events come first.

        Raises IndexError if another thread took it.
        """
        if self._spare and not self.is_short():
            self._queue_spare()
        due, shares = self._due, self._shares
        if not (shares.count or due) or not (self._ready or time.monotonic() - self.polled < POLL_SECONDS):
            return None
        self._timer_next = not self._timer_next
        if due and (self._timer_next or not shares.count):
            return due.popleft()
        return shares.pop()

    def _queue_spare(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                source = self._spare.popleft()
                if isinstance(source, Timer):
                    self._due.append(source)
                else:
                    self._shares.add(source)

    def _queue(self, source: Runnable) -> None:
        if source.share is None:
            self._ready.append(source)
        else:
            self._shares.add(source)

    def _poll(self) -> None:
        """Wait for events and queue their sources."""
        with self._polling:
            if self._stopped:
                return
            self._close_retired()
            # From here on other threads write to the eventfd; work that they left before that is seen by the next line.
            self._waiting = True
            has_work = self._ready or self._retired or self._afterwards or self._shares.count or self._due
            has_work = has_work or (self._spare and not self.is_short())
            events = self._epoll.poll(0 if has_work else self._until_next_timer(), BATCH)
            self._waiting = False
            self.polled = time.monotonic()
            sources, ready = self._sources, self._ready
            for fd, event in events:
                source = sources.get(fd)
                if source is not None:
                    if event & HANGUP:
                        source.hung_up = True
                    if source.share is None:
                        ready.append(source)
                    else:
                        self._shares.add(source)
                elif fd == self._wake_fd:
                    self._clear_wake_fd()
            # Still under the lock: the lead may have been handed over in the meantime, and the next leader needs these.
            if self._next_due <= self.polled:
                self._take_due()
        if self._dozing:
            self._alarm.set()

    def _close_retired(self) -> None:
        while self._retired:
            self._retired.pop().close()

    def _clear_wake_fd(self) -> None:
        with contextlib.suppress(BlockingIOError):  # another leader has read it
            os.eventfd_read(self._wake_fd)

    def _until_next_timer(self) -> float:
        due = self._next_due
        if due == math.inf:
            return -1
        # epoll rounds down to milliseconds; without rounding up it would return just before the deadline.
        return max(0.0, math.ceil((due - time.monotonic()) * 1000) / 1000)

    def _take_due(self) -> None:
        now = time.monotonic()
        with self._timer_lock:
            while self._timers and self._timers[0][0] <= now:
                self._due.append(heapq.heappop(self._timers)[2])
            self._next_due = self._timers[0][0] if self._timers else math.inf

    # The lead.

    def _start_leader(self) -> None:
        """Start a thread that leads. The caller holds the lock."""
        worker = _Worker()
        worker.wake.release()
        worker.thread = threading.Thread(target=self._work, args=(worker,), name="poller", daemon=True)
        self._workers.add(worker)
        self._leader = worker
        worker.thread.start()

    def _watch(self) -> None:
        """Run the watchdog until the poller is closed, even if it fails in between."""
        while not self._stopped:
            try:
                self._watch_leader()
            except Exception:
                log.exception("the watchdog failed; it continues")
                self._alarm.wait(WATCHDOG_PAUSE)  # not time.sleep(), which may be what fails

    def _watch_leader(self) -> None:
        """Hand the lead over if the leader has been in one turn for a whole tick."""
        seen, quiet, busy = -1, 0, False
        while not self._stopped:
            time.sleep(BUSY_TICK if busy else TICK)
            turns = self._turns
            busy = turns - seen > BUSY_TURNS
            if self._waiting:
                quiet = quiet + 1 if turns == seen else 0
                if quiet >= DOZE_AFTER:
                    self._doze()
                    quiet = 0
            elif turns == seen:
                stuck = getattr(self._current, "stuck", None)
                if stuck is not None:
                    stuck()
                self._hand_over()
            seen = turns

    def _doze(self) -> None:
        self._dozing = True
        if self._waiting and not self._stopped:
            self._alarm.wait()
        self._dozing = False
        self._alarm.clear()

    def _hand_over(self) -> None:
        with self._lock:
            if self._stopped:
                return
            self._handovers += 1
            if self._idle:
                self._leader = self._idle.pop()
                self._leader.wake.release()
            elif len(self._workers) < self.threads:
                self._start_leader()


class Turn:
    """A call that waits for its turn. Give it to the poller's `run_again`."""

    __slots__ = ("_args", "_callback", "_poller", "share")

    def __init__(self, poller: Poller, share: str | None, callback: Callable[..., Any], *args: Any):
        self._poller = poller
        self._callback = callback
        self._args = args
        self.share = share

    def run(self) -> None:
        """Call back, or wait for a thread that may block."""
        if self._poller.is_short():
            self._poller.run_when_spare(self)
        else:
            self._callback(*self._args)
