"""Threads that share one epoll set: whoever is told of an event handles it itself, with ordinary blocking Python.

One thread at a time polls, the *leader*. It takes a batch of events and handles them one after the other, as an event
loop does: threads that all want to run Python would only fight over the interpreter lock. When a handler blocks, a
watchdog hands the lead to another thread within two ticks; the blocked one joins those who wait when it is done.

A *source* is anything with `fileno()` and `run()`. It is armed for one event at a time (`EPOLLONESHOT`), so one thread
at a time owns it. An event is only a hint to look at the socket, never a fact about it.

Sources without a `share` come first: connections that push, or may. The others wait in `Shares`, and the leader gives
them a turn each, looking for new events at least every POLL_SECONDS. So a push waits for one turn of a visitor, however
many visitors there are.
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
from collections.abc import Callable
from typing import Any, Protocol

from .fair_queue import Shares
from .outboxes import Outboxes

log = logging.getLogger(__name__)

IN = select.EPOLLIN
OUT = select.EPOLLOUT
HANGUP = select.EPOLLRDHUP

# A handler is stuck after one tick at least and two at most.
TICK = 0.002
# A leader that gets through so many turns in a tick is looked at less often. Each wake-up of the watchdog takes the
# interpreter lock from it, and then its core: one every 4 ms cost a busy leader 10 % of its pushes.
BRISK_TURNS = 20
BRISK_TICK = 0.016
# The watchdog dozes off after so many ticks without work, so that an idle relay costs no CPU.
DOZE_AFTER = 25
# A thread beyond the first leaves after so many seconds without work.
IDLE_SECONDS = 10.0
# Turns that the sources which come first may take before something else has one: what was left for afterwards, a timer,
# or a source with a share. Some turns take as long as ten pushes.
PATIENCE = 16
# Seconds between two looks for new events while sources with a share wait for their turn.
POLL_SECONDS = 0.002
# Seconds for which the watchdog pauses after a failure of its own.
WATCHDOG_PAUSE = 0.1
# Events taken at a time: enough to make the call cheap, few enough that timers are not late.
BATCH = 256


class Source(Protocol):
    """What the poller can watch."""

    def fileno(self) -> int: ...

    def run(self) -> None: ...


class Timer:
    """A call that is due at a time on the monotonic clock, or when there is nothing else to do."""

    __slots__ = ("_args", "_callback", "deadline")

    def __init__(self, deadline: float, callback: Callable[..., Any], args: tuple[Any, ...]):
        self.deadline = deadline
        self._callback: Callable[..., Any] | None = callback
        self._args = args

    def cancel(self) -> None:
        """Make it do nothing. Any thread may call this, also when it is too late."""
        self._callback, self._args = None, ()

    def run(self) -> None:
        callback, args = self._callback, self._args
        self._callback, self._args = None, ()
        if callback is not None:
            callback(*args)


class _Worker:
    """A thread of the poller, and the lock it sleeps on while it has nothing to do."""

    __slots__ = ("thread", "wake")

    def __init__(self) -> None:
        self.wake = threading.Lock()
        self.wake.acquire()
        self.thread: threading.Thread | None = None


class Poller:
    """Watches sources and timers with at most `threads` threads, started on demand and let go when idle."""

    def __init__(self, threads: int = 8):
        if threads < 2:
            raise ValueError("the poller needs two threads at least: one that polls while the other is stuck")
        self.threads = threads
        self.outboxes = Outboxes(lambda shed: self.call_later(0, shed))
        # What the leader works on.
        self._epoll: Any = None  # from start() on
        self._sources: dict[int, Source] = {}
        self._ready: collections.deque[Source | Timer] = collections.deque()  # sources without a share
        self._shares = Shares()  # sources with a share, and what had a turn and is not done
        self._due: collections.deque[Timer] = collections.deque()
        self._spare: collections.deque[Source | Timer] = collections.deque()  # what may block; see run_when_spare
        self._others_at = 0  # the turn from which on these three come before `_ready` once
        self._timer_next = False  # a timer comes before a source with a share
        self._polled = 0.0  # monotonic; when events were last looked for
        self._afterwards: collections.deque[Timer] = collections.deque()  # when there is nothing ready
        self._patience = 0  # or when there have been so many turns
        self._retired: list[socket.socket] = []  # to be closed while no event is in anybody's hands
        self._polling = threading.Lock()  # held from closing what is retired until events have become sources
        self._waiting = False  # the leader is about to wait, or waits, and has to be woken
        self._bell = -1  # an eventfd that wakes it
        # Who leads.
        self._lock = threading.Lock()  # over the workers below
        self._leader: _Worker | None = None
        self._idle: list[_Worker] = []  # the last one is woken first, so that the others can leave
        self._workers: set[_Worker] = set()
        # The watchdog compares this to what it was a tick ago, and tells the source that is stuck.
        self._turns = 0
        self._current: Any = None
        self._dozing = False
        self._alarm = threading.Event()
        # Timers, the next one first; the number keeps those of one deadline in order.
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._timer_lock = threading.Lock()
        self._stopped = False

    def start(self) -> None:
        """Start polling; nothing before this makes a thread or a file descriptor, so a process may fork until then."""
        with self._lock:
            if self._epoll is not None:
                return
            self._epoll = select.epoll()
            self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._epoll.register(self._bell, IN)
            self._hire_leader()
        threading.Thread(target=self._watch, name="poller-watchdog", daemon=True).start()

    def call_later(self, seconds: float, callback: Callable[..., Any], *args: Any) -> Timer:
        """Call back on one of the poller's threads, not before `seconds` have passed. Any thread may call this."""
        timer = Timer(time.monotonic() + seconds, callback, args)
        with self._timer_lock:
            heapq.heappush(self._timers, (timer.deadline, next(self._numbers), timer))
            first = self._timers[0][2] is timer
        if first:
            self.wake()
        return timer

    def run_soon(self, source: Source) -> None:
        """Let a thread run the source, as if an event had come for it. Any thread may call this."""
        self._queue(source)
        self.wake()

    def run_again(self, source: Source) -> None:
        """Let a thread run the source once more, behind others, because one turn was not enough. Any thread."""
        self._shares.add(source)
        self.wake()

    def run_when_spare(self, source: Source) -> None:
        """Let a thread run the source once another thread is free: it might block. Any thread may call this."""
        self._spare.append(source)
        self.wake()

    def call_when_spare(self, callback: Callable[..., Any], *args: Any) -> None:
        """Call back in the same way."""
        self.run_when_spare(Timer(0.0, callback, args))

    def has_urgent_work(self) -> bool:
        """Return whether something without a share waits, so that a source with one should not run now."""
        return bool(self._ready or self._afterwards)

    def call_afterwards(self, callback: Callable[..., Any], *args: Any) -> None:
        """Call back once, when the events that are at hand have been handled, or some. Any thread may call this."""
        if not self._afterwards:
            self._patience = self._turns + PATIENCE
        self._afterwards.append(Timer(0.0, callback, args))
        self.wake()

    def watch(self, source: Source, events: int) -> None:
        """Arm a source that is new to the poller for one event."""
        fd = source.fileno()
        self._sources[fd] = source
        self._epoll.register(fd, events | select.EPOLLONESHOT)

    def rearm(self, fd: int, events: int) -> None:
        """Arm a watched source again. Its own lock must make sure that it was not retired in between."""
        self._epoll.modify(fd, events | select.EPOLLONESHOT)

    def retire(self, sock: socket.socket) -> None:
        """Forget the source of this socket and close the socket, soon.

        epoll tells Python the number of a file descriptor and no more, and the kernel gives a number out again as soon
        as it is free. So a socket is closed only while nobody holds an event that has not become a source yet.
        """
        self._sources.pop(sock.fileno(), None)
        self._retired.append(sock)
        self.wake()

    def wake(self) -> None:
        """Make the leader look at what it has to do, if it waits for events."""
        if self._waiting:
            self._waiting = False
            os.eventfd_write(self._bell, 1)

    def thread_count(self) -> int:
        """How many threads work here now, the watchdog not counted."""
        return len(self._workers)

    def is_short(self) -> bool:
        """Whether the thread that asks is the last one that is left: if it blocks, everybody waits."""
        return not self._idle and len(self._workers) >= self.threads

    def sources(self) -> list[Source]:
        """All that is watched."""
        return list(self._sources.values())

    def close(self) -> None:
        """Stop all threads, wait for those that do not sit in a handler, and give the file descriptors back."""
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
        os.eventfd_write(self._bell, 1)
        for worker in workers:
            if worker.thread is not None and worker.thread is not threading.current_thread():
                worker.thread.join(1.0)
        with self._polling:
            self._bury()
            self._epoll.close()
            os.close(self._bell)

    # What a worker does.

    def _work(self, me: _Worker) -> None:
        while self._gets_the_lead(me):
            self._lead(me)
            with self._lock:
                if not self._stopped:
                    self._idle.append(me)
            if self._spare:
                self.wake()
        with self._lock:
            self._workers.discard(me)

    def _gets_the_lead(self, me: _Worker) -> bool:
        """Wait to be made the leader. False if this thread is to end instead."""
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
        ready, due, shares = self._ready, self._due, self._shares
        while self._leader is me:
            if self._spare and not self.is_short():
                self._queue_spare()
            try:
                if self._afterwards and (not ready or self._turns >= self._patience):
                    source = self._afterwards.popleft()
                elif ready and (not (shares.count or due) or self._turns < self._others_at):
                    source = ready.popleft()
                elif (shares.count or due) and (ready or time.monotonic() - self._polled < POLL_SECONDS):
                    source = self._next_of_others()
                else:
                    self._poll()
                    continue
            except IndexError:  # a thread that had been stuck, not yet aware that it lost the lead, took it
                continue
            self._turns += 1
            self._current = source
            try:
                source.run()
            except Exception:
                log.exception("%r failed", source)

    def _next_of_others(self) -> Source | Timer:
        """Take a timer that is due or a source with a share, in turn. Raises IndexError if another thread took it."""
        self._others_at = self._turns + PATIENCE
        self._timer_next = not self._timer_next
        if self._due and (self._timer_next or not self._shares.count):
            return self._due.popleft()
        return self._shares.pop()

    def _queue_spare(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                source = self._spare.popleft()
                if isinstance(source, Timer):
                    self._due.append(source)
                else:
                    self._shares.add(source)

    def _queue(self, source: Source) -> None:
        if getattr(source, "share", None) is None:
            self._ready.append(source)
        else:
            self._shares.add(source)

    def _poll(self) -> None:
        """Wait for events and queue their sources."""
        with self._polling:
            if self._stopped:
                return
            self._bury()
            # From here on others ring the bell; what they left before that is seen by looking once more.
            self._waiting = True
            has_work = self._ready or self._retired or self._afterwards or self._shares.count or self._due
            has_work = has_work or (self._spare and not self.is_short())
            events = self._epoll.poll(0 if has_work else self._until_next_timer(), BATCH)
            self._waiting = False
            self._polled = time.monotonic()
            sources, ready = self._sources, self._ready
            for fd, _ in events:
                source = sources.get(fd)
                if source is not None:
                    if getattr(source, "share", None) is None:
                        ready.append(source)
                    else:
                        self._shares.add(source)
                elif fd == self._bell:
                    self._silence_bell()
            # Still with the lock: the lead may have been handed on meanwhile, and the next leader has to see them.
            if self._timers:
                self._take_due()
        if self._dozing:
            self._alarm.set()

    def _bury(self) -> None:
        retired = self._retired
        while retired:
            retired.pop().close()

    def _silence_bell(self) -> None:
        with contextlib.suppress(BlockingIOError):  # a leader before this one has heard it
            os.eventfd_read(self._bell)

    def _until_next_timer(self) -> float:
        with self._timer_lock:
            if not self._timers:
                return -1
            # epoll counts in milliseconds and rounds down: without this it would come back just too early.
            return max(0.0, math.ceil((self._timers[0][0] - time.monotonic()) * 1000) / 1000)

    def _take_due(self) -> None:
        now = time.monotonic()
        with self._timer_lock:
            while self._timers and self._timers[0][0] <= now:
                self._due.append(heapq.heappop(self._timers)[2])

    # Who leads.

    def _hire_leader(self) -> None:
        """Start a thread that leads. The lock is held."""
        worker = _Worker()
        worker.wake.release()
        worker.thread = threading.Thread(target=self._work, args=(worker,), name="poller", daemon=True)
        self._workers.add(worker)
        self._leader = worker
        worker.thread.start()

    def _watch(self) -> None:
        """Watch the leader until the poller is closed, also after a failure of its own."""
        while not self._stopped:
            try:
                self._watch_leader()
            except Exception:
                log.exception("the watchdog failed, and goes on")
                self._alarm.wait(WATCHDOG_PAUSE)  # not time.sleep(), which may be what fails

    def _watch_leader(self) -> None:
        """Hand the lead over when the leader has been busy with one thing for a whole tick."""
        seen, quiet, brisk = -1, 0, False
        while not self._stopped:
            time.sleep(BRISK_TICK if brisk else TICK)
            turns = self._turns
            brisk = turns - seen > BRISK_TURNS
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
            if self._idle:
                self._leader = self._idle.pop()
                self._leader.wake.release()
            elif len(self._workers) < self.threads:
                self._hire_leader()
