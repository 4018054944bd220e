"""Fills the last hour: reads the figures of all parts every ten seconds, and remembers restarts, gaps and trouble."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from pushrelay.counters import Histogram

from . import process
from .figures import Figures, quantile, since
from .kept import Before, Kept
from .rings import COUNTS, LENGTH, STEP, Rings

HOUR = float(STEP * LENGTH)
BEAT = 0.9  # seconds between two notes that the relay is alive; slightly less than the second between two calls
SETTLED = 300.0  # seconds after a restart during which clients that come back count as its clients
MOST_MARKS = 16
LATENCY_EVERY = 30  # steps between two copies of the histogram of latencies: five minutes
# Each count of a step is the increase of a metric: its name and labels.
_COUNTED: dict[str, tuple[str, dict[str, str]]] = {
    "pushes": ("relay_pushes_total", {"result": "accepted"}),
    "refused": ("relay_pushes_total", {"result": "refused"}),
    "failed": ("relay_pushes_total", {"result": "failed"}),
    "publications": ("relay_publications_total", {}),
    "nobody": ("relay_unreached_total", {}),
    "deliveries": ("relay_deliveries_total", {}),
    "connects": ("relay_connects_total", {}),
    "closed": ("relay_disconnects_total", {}),
    "recovered": ("relay_recoveries_total", {"result": "recovered"}),
    "lost": ("relay_recoveries_total", {"result": "lost"}),
}
LATENCY = "relay_publish_seconds"


class Clock(NamedTuple):
    """`passing()` measures durations; `wall()` returns the time in seconds since 1970."""

    passing: Callable[[], float] = process.passing_time
    wall: Callable[[], float] = time.time


REAL = Clock()


class Mark(NamedTuple):
    """Something that happened at one moment of the hour."""

    at: float  # seconds since 1970
    kind: str  # "start", "restart", "gap", "trouble" or "ready"
    text: str


class Restart(NamedTuple):
    """The start of this process after a previous one, and how many clients of that one came back."""

    at: float
    away: float  # seconds in which no process was running
    was_stopped: bool  # the previous process was stopped in order; otherwise it was killed
    clients_before: int
    came_back: int = 0
    recovered: int = 0
    lost: int = 0


class Recorder:
    """The figures of the last hour.

    `read()` returns the figures of all parts, `clients()` the number of connected clients. `reason()` returns why the
    relay is not ready, or None, and `is_draining()` whether it is being stopped. `path` is the file that keeps
    the hour over a restart; without one, the hour begins with the process.

    One thread calls each_second() and close(); any thread may call the other methods, which never wait for a file.
    """

    def __init__(
        self,
        read: Callable[[], Figures],
        clients: Callable[[], int],
        reason: Callable[[], str | None],
        is_draining: Callable[[], bool],
        path: str | None = None,
        clock: Clock = REAL,
    ):
        self.started = clock.wall()
        self._read, self._clients, self._reason, self._is_draining = read, clients, reason, is_draining
        self._clock = clock
        self._kept = Kept(path) if path else None
        self._lock = threading.Lock()  # guards all that follows
        self.rings = Rings()
        self.marks: deque[Mark] = deque([Mark(self.started, "start", "The relay was started.")], MOST_MARKS)
        self._began = False
        self._beat_at = 0.0  # by the passing clock
        self._began_at = self._step_began = clock.passing()
        self._step_end_wall = self.started
        self._last: dict[str, float] = {}  # the counters at the end of the last step; empty before the first
        self._last_latency: Histogram | None = None
        self._latencies: deque[Histogram | None] = deque([None], 3600 // (STEP * LATENCY_EVERY))
        self._last_cpu = process.cpu()
        self._steps = 0  # since this process began
        self._alive = Before(self.started, 0, False)
        self._restart: Restart | None = None
        self._most_clients = 0  # since this process began
        self._trouble: str | None = None
        self._state_since = self.started

    # Called by one thread.

    def each_second(self) -> None:
        """Bring the hour up to date, and write it to the file."""
        kept = self._kept
        if not self._began:
            self._begin()
        now = self._clock.passing()
        if now - self._beat_at < BEAT:
            return
        self._beat_at = now
        reason = self._reason()
        with self._lock:
            self._note_state(reason)
            self._count_clients()
        figures = self._read() if now - self._step_began >= STEP else None
        if figures is not None:
            with self._lock:
                self._end_step(figures, now)
            if kept:
                kept.write_step(self.rings)
        if kept:
            kept.write_alive(self.rings, self._alive)

    def close(self) -> None:
        """Note that the relay was stopped in order, and close the file."""
        if self._kept and self._began:
            self._kept.write_alive(self.rings, self._alive._replace(alive=self._clock.wall(), was_stopped=True))
            self._kept.close()

    def _begin(self) -> None:
        self._began = True
        before = self._kept.open(self.rings) if self._kept else None
        with self._lock:
            if before is not None:
                self._follow(before)
            self._step_began = self._clock.passing()
        if self._kept:
            self._kept.write_all(self.rings)

    def _follow(self, before: Before) -> None:
        """Continue the hour of the previous process."""
        away = max(0.0, self.started - before.alive)
        if away >= HOUR:
            self.rings = Rings()
            return
        self.rings.skip(round(away / STEP))
        self._restart = Restart(self.started, away, before.was_stopped, before.clients)
        how = "stopped" if before.was_stopped else "killed"
        text = f"The relay was {how}, and was back after {_seconds(away, before.was_stopped)}."
        self.marks[0] = Mark(self.started, "restart", text)

    def _count_clients(self) -> None:
        clients = self._clients()
        self._most_clients = max(self._most_clients, clients)
        if self._is_draining():
            clients = self._alive.clients  # the number before they were disconnected
        self._alive = Before(self._clock.wall(), clients, False)

    def _end_step(self, figures: Figures, now: float) -> None:
        """Add the step that ends now. If it ends late, nothing is known about those before it."""
        elapsed = now - self._step_began
        missed = int(elapsed / STEP) - 1
        if missed > 0:
            self.rings.skip(missed)
        if missed > 1:
            text = f"There are no figures for {STEP * missed} s: the machine was suspended or too busy."
            self._mark("gap", text)
        self.rings.add(self._step(figures, elapsed))
        self._steps += 1
        self._step_began = now if missed > 0 else self._step_began + STEP
        self._step_end_wall = self._clock.wall()
        self._last = _counters(figures)
        self._last_latency = figures.histogram(LATENCY)
        if self._steps % LATENCY_EVERY == 0:
            self._latencies.append(self._last_latency)
        if self._restart is not None and not self._is_settled():
            self._restart = self._settled(figures)

    def _step(self, figures: Figures, elapsed: float) -> dict[str, int]:
        """Return the figures of a step that lasted this number of seconds."""
        counters, cpu = _counters(figures), process.cpu()
        step = {name: max(0, int(count - self._last.get(name, 0))) for name, count in counters.items()}
        latency = since(figures.histogram(LATENCY), self._last_latency)
        for name, part in (("p50_us", 0.5), ("p99_us", 0.99)):
            if (seconds := quantile(latency, part)) is not None:
                step[name] = round(seconds * 1e6)
        if (stored := figures.number("relay_store_bytes")) is not None:
            step["store_kib"] = int(stored) >> 10
        if (memory := process.memory()) is not None:
            step["memory_kib"] = memory >> 10
        step["cpu_permille"] = round(1000 * max(0.0, cpu - self._last_cpu) / elapsed)
        self._last_cpu = cpu
        step["clients"] = figures.whole("relay_clients")
        step["websocket"] = figures.whole("relay_clients", transport="websocket")
        return step

    # Called by any thread.

    def up(self) -> float:
        """Return for how many seconds the relay has been running, whatever happened to the time of day."""
        return self._clock.passing() - self._began_at

    def note_state(self, reason: str | None) -> float:
        """Note why the relay is not ready, or None if it is. Return the time since which that has been so."""
        with self._lock:
            self._note_state(reason)
            return self._state_since

    def _note_state(self, reason: str | None) -> None:
        if bool(reason) != bool(self._trouble):
            self._state_since = self._clock.wall()
            if not self._is_draining():
                kind, text = ("trouble", "Pushes were refused.") if reason else ("ready", "Pushes were accepted again.")
                self._mark(kind, text)
        self._trouble = reason

    def _mark(self, kind: str, text: str) -> None:
        self.marks.append(Mark(self._clock.wall(), kind, text))

    def snapshot(self) -> "Hour":
        """Return the hour as it is now."""
        with self._lock:
            rings = Rings()
            rings.cells, rings.next = self.rings.cells[:], self.rings.next
            seconds = self._clock.passing() - self._step_began
            recent = [mark for mark in self.marks if mark.at > self._clock.wall() - HOUR]
            return Hour(rings, recent, self._step_end_wall, seconds, dict(self._last), self._latencies[0], self._steps)

    def restart(self, figures: Figures) -> Restart | None:
        """Return the restart, if it happened within the last hour and the previous process is known."""
        with self._lock:
            if self._restart is None or self._clock.wall() - self._restart.at > HOUR:
                return None
            self._most_clients = max(self._most_clients, self._clients())
            return self._restart if self._is_settled() else self._settled(figures)

    def _is_settled(self) -> bool:
        return self._steps * STEP > SETTLED

    def _settled(self, figures: Figures) -> Restart | None:
        if self._restart is None:
            return None
        came_back = min(self._most_clients, self._restart.clients_before)
        recovered, lost = (figures.whole("relay_recoveries_total", result=each) for each in ("recovered", "lost"))
        return self._restart._replace(came_back=came_back, recovered=recovered, lost=lost)


class Hour(NamedTuple):
    """The last hour as it was at one moment."""

    rings: Rings
    marks: list[Mark]
    end: float  # of the last step, in seconds since 1970
    seconds: float  # that the present step has lasted
    last: dict[str, float]  # the counters at the end of the last step
    latency_before: Histogram | None  # the histogram of latencies an hour ago, or when the process began
    steps: int  # that this process has completed

    def total(self, name: str, figures: Figures) -> int:
        """Return the sum of a count over the hour, with the present step."""
        return self.rings.total(name) + self._now(name, figures)

    def rate(self, name: str, figures: Figures) -> float:
        """Return a count for each second, over the present step and the one before."""
        known = self.rings.known(name, 1) if self.steps else []
        seconds = self.seconds + (STEP if known else 0)
        return (sum(known) + self._now(name, figures)) / max(1.0, seconds)

    def _now(self, name: str, figures: Figures) -> int:
        return max(0, int(_counters(figures).get(name, 0) - self.last.get(name, 0)))

    def covers(self) -> float:
        """Return for how many seconds there are figures."""
        return min(HOUR, self.rings.steps_known() * STEP + self.seconds)


def _counters(figures: Figures) -> dict[str, float]:
    """Return the counters of which there is one."""
    found = {name: figures.number(metric, **labels) for name, (metric, labels) in _COUNTED.items()}
    return {name: count for name in COUNTS if (count := found[name]) is not None}


def _seconds(seconds: float, is_exact: bool) -> str:
    """Return a duration for people. After a kill it is known to a second only."""
    if seconds >= 90:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds:.1f} s" if is_exact else f"{max(1, round(seconds))} s"
