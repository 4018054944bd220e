"""The part of the relay that empties the outbox, on a thread of its own."""

import logging
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

from pushrelay.counters import Family, Values
from pushrelay.errors import StoreError
from pushrelay.push.counts import PushCounts
from pushrelay.settings import Settings
from pushrelay.settings.mysql_url import mysql_url
from pushrelay.store import Broker
from pushrelay.store.nodes import Rings

from . import table
from .database import Database
from .explanations import DatabaseError
from .taker import BATCH_ROWS, LOOK_ROWS, Counts, Taker

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.05  # seconds until the relay connects again after a failure; the next pauses double
LONGEST_PAUSE = 2.0
BRIEF_SECONDS = 1.0  # for which a failure may last before it is reported
LOCKED_SECONDS = 5.0  # the same for rows that somebody has locked
COUNT_EVERY = 10.0  # seconds between two counts of the rows that cannot be pushed
LEAST_LOOK_ROWS = 1000
SLOW_LOOK = 0.05  # seconds; after a look that takes longer, the next one waits for four times as long
LONGEST_WAIT = 4.0  # seconds: with the longest outbox_interval, less than the wait_timeout of the session
CLOSE_SECONDS = 4.0


class Outbox:
    """A Part of the backend: see there for its methods."""

    name = "outbox"

    def __init__(self, settings: Settings, broker: Broker, pushes: PushCounts):
        self._settings = settings
        self._url = mysql_url(settings.outbox)
        self._broker = broker
        self._pushes = pushes
        self._thread: threading.Thread | None = None
        self._bell = threading.Event()  # somebody rang, or the relay stops
        self._closing = threading.Event()
        self._retry_seconds = FIRST_PAUSE  # until the next connection, after a failure
        self._look_rows = LOOK_ROWS  # that a look may find
        self._counts = Counts()
        self._state = "starting"  # or sending, standby, away
        self._failure: tuple[str, float] | None = None  # what does not work, and since when (monotonic)
        self._locked: tuple[int, float] | None = None  # the first row that somebody has locked, and since when
        self._refused: tuple[int, int, str] | None = None  # rows with an error: how many, the first one, its error
        self._counted = (0.0, 0)  # when they were counted (monotonic), and how many this relay had refused by then

    @property
    def is_on(self) -> bool:
        """Whether the setting outbox is set: nobody creates this part otherwise."""
        return True

    @property
    def trouble(self) -> str | None:
        """Why rows are not taken, and what to do; None while all of them are."""
        now, failure, locked, refused = time.monotonic(), self._failure, self._locked, self._refused
        if failure is not None and now - failure[1] >= BRIEF_SECONDS:
            return failure[0]
        if self._state == "standby" and not self._broker.is_shared:
            return (
                f"another relay, with a store of its own, takes the rows of {self._url}: stop it, or remove its "
                "setting outbox. This relay takes over when it is gone"
            )
        if locked is not None and now - locked[1] >= LOCKED_SECONDS:
            return (
                f"another connection has locked row {locked[0]} of {table.NAME}, so the rows of its destination wait: "
                "end its transaction"
            )
        if refused is not None:
            return (
                f"rows of {table.NAME} cannot be pushed: correct them and set error to NULL, or delete them. The first "
                f"is {refused[1]} ({refused[2]})"
            )
        return None

    def start(self) -> None:
        """Start the thread."""
        rings: Rings | None = getattr(self._broker, "rings", None)
        if rings is not None:
            rings.call_on_ring(self._bell.set)
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def ring(self) -> bool:
        """Look for rows now. Any thread may call it."""
        self._bell.set()
        return self._state == "sending"

    def each_second(self) -> None:
        """Do nothing: the thread does it all."""

    def reload(self, settings: Settings) -> None:
        """Use these settings from now on."""
        self._settings = settings

    def close(self) -> None:
        """Finish the batch that is under way, and stop."""
        self._closing.set()
        self._bell.set()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)

    def metrics(self) -> Iterator[Family]:
        """Return the metrics. Any thread may call it."""
        counts, refused = self._counts, self._refused
        help_ = "Whether the relay can take rows out of the outbox: 1, or 0 if the database or the store fails."
        yield Family("relay_outbox_up", "gauge", help_, 0 if self._failure else 1)
        rows: Values = {("taken",): counts.taken, ("refused",): counts.refused, ("recovered",): counts.recovered}
        help_ = "Rows of the outbox, by what became of them: recovered ones were stored before a failure."
        yield Family("relay_outbox_rows_total", "counter", help_, rows, ("result",))
        yield Family("relay_outbox_row_batches_total", "counter", "Batches of rows that were taken.", counts.batches)
        help_ = "Rows that cannot be pushed, and wait in the table with an error."
        yield Family("relay_outbox_rows_refused", "gauge", help_, refused[0] if refused else 0)
        help_ = "Age of the oldest row that waits; if the database cannot be asked, with the time since it could."
        yield Family("relay_outbox_behind_seconds", "gauge", help_, self._behind())

    def facts(self) -> dict[str, Any]:
        """Return what /status.json shows."""
        counts, behind = self._counts, self._behind()
        summary = {
            "standby": "another relay takes the rows",
            "away": "the database or the store cannot be used",
            "starting": "it connects",
        }.get(self._state, f"{counts.taken} rows taken, {behind:.1f} s behind")
        return {
            "summary": summary,
            "state": self._state,
            "taken": counts.taken,
            "refused": counts.refused,
            "behind": round(behind, 3),
        }

    def _behind(self) -> float:
        counts = self._counts
        if self._state == "standby":
            return 0.0
        return counts.behind + (time.monotonic() - counts.looked if self._failure or counts.behind else 0.0)

    # On the thread.

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._connect_and_serve()
            except (DatabaseError, StoreError) as error:
                self._fail(str(error))
            except Exception as error:
                reason = f"the outbox failed ({error!r}): the relay's log has more"
                if self._failure is None or self._failure[0] != reason:
                    log.exception("the outbox failed; it continues")
                self._fail(reason)
            self._closing.wait(self._retry_seconds * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            self._retry_seconds = min(2 * self._retry_seconds, LONGEST_PAUSE)

    def _fail(self, reason: str) -> None:
        self._state = "away"
        self._failure = reason, self._failure[1] if self._failure else time.monotonic()

    def _connect_and_serve(self) -> None:
        database = Database(self._url)
        try:
            database.check()
            if self._lease(database):
                self._serve(database)
        finally:
            database.close()

    def _lease(self, database: Database) -> bool:
        """Wait until no other relay takes rows; return False if this one stops first."""
        while database.value(table.GET_LEASE) != "1":
            self._works("standby")
            if self._closing.is_set():
                return False
        return True

    def _serve(self, database: Database) -> None:
        taker = Taker(database, self._broker, lambda: self._settings, self._counts, self._pushes)
        taker.recover()
        while not self._closing.is_set():
            self._bell.clear()  # before the look, so that no ring is missed
            began = time.monotonic()
            found = self._look(taker)
            seconds = time.monotonic() - began
            more = found
            while more and not self._closing.is_set():
                more = taker.take()
                self._works("sending")
            self._works("sending")
            self._note_locked(taker.locked)
            self._count_refused(database)
            if found < BATCH_ROWS or taker.locked is not None:
                self._pause(seconds)

    def _look(self, taker: Taker) -> int:
        """Find rows. If a slow server does not find them in time, the next attempt asks for fewer."""
        try:
            found = taker.look(self._look_rows)
        except DatabaseError:
            self._look_rows = max(self._look_rows // 10, LEAST_LOOK_ROWS)
            raise
        if found < LEAST_LOOK_ROWS:
            self._look_rows = LOOK_ROWS
        return found

    def _works(self, state: str) -> None:
        self._state, self._failure, self._retry_seconds = state, None, FIRST_PAUSE

    def _pause(self, seconds: float) -> None:
        """Wait for the next look, or for a ring. `seconds` is what the last look took."""
        if seconds > SLOW_LOOK:
            self._closing.wait(min(4 * seconds, LONGEST_WAIT))
        self._bell.wait(self._settings.outbox_interval)

    def _note_locked(self, row: int | None) -> None:
        if row is None:
            self._locked = None
        elif self._locked is None:
            self._locked = row, time.monotonic()

    def _count_refused(self, database: Database) -> None:
        """Count the rows that cannot be pushed, now and then."""
        now, refused = time.monotonic(), self._counts.refused
        if now - self._counted[0] >= COUNT_EVERY or refused != self._counted[1]:
            self._counted = now, refused
            [(count, first, error)] = database.rows(table.REFUSED)
            self._refused = (int(count), int(first), str(error)) if int(count) else None
