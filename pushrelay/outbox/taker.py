"""Takes rows out of the table, batch after batch, and publishes them: each of them once, in their order.

A batch locks its rows, publishes them together with a mark that names them, deletes them, and commits. If anything
fails in between, the next taker reads the mark first, and deletes the rows that it names: they are stored. The mark
is also the fence between relays that share a store. A taker that was overtaken cannot publish, because the mark is
not the one that it knows.

The order: a look finds the ids of all rows that are visible, and they are taken in the order of their ids before the
next look. So a transaction with many rows is not mixed with another one that commits later and has ids in between.
Rows that somebody else has locked wait, and so do the later rows of their destinations.
"""

import contextlib
import time
from collections.abc import Callable

from pushrelay.push.counts import OUTBOX, REFUSED, PushCounts
from pushrelay.settings import Settings
from pushrelay.store import Broker
from pushrelay.store.publication import Mark

from . import mark, table
from .database import Database, Row
from .ids import Ids, Range
from .rows import Sorted, sort_rows

BATCH_ROWS = 256  # the pushes of others wait while the store writes them
BATCH_BYTES = 2 << 20  # of data, before the last row
LOOK_ROWS = 1_000_000  # that one look finds at most, which takes about a second


class Counts:
    """The work of all takers, for the metrics. One thread at a time changes it."""

    def __init__(self) -> None:
        self.taken = 0  # rows that were published and deleted
        self.refused = 0  # rows that cannot be pushed
        self.recovered = 0  # rows that were stored before a failure, and deleted after it
        self.batches = 0
        self.behind = 0.0  # age of the oldest row at the last look, in seconds
        self.looked = time.monotonic()  # when that was


class Taker:
    """Takes rows through one connection. Its methods raise DatabaseError and StoreError; it is not used afterwards."""

    def __init__(
        self, database: Database, broker: Broker, settings: Callable[[], Settings], counts: Counts, pushes: PushCounts
    ):
        self._database = database
        self._broker = broker
        self._settings = settings
        self._counts = counts
        self._pushes = pushes
        self._mark = ""  # the text of the mark, as this taker knows it
        self._ids = Ids()  # to be taken before the next look
        self._skipped = Ids()  # lower ids that the last look found, and that wait for a row that somebody has locked
        self._most = BATCH_ROWS  # rows of the next batch; fewer if they are large, because the server sends them all
        self._blocked: set[str] = set()  # destinations with a row that somebody has locked, until the next look
        self.locked: int | None = None  # the first such row

    def recover(self) -> None:
        """Delete the rows that are stored, and find out which ones are next."""
        self._mark = self._broker.mark(mark.NAME)
        noted = mark.read(self._mark)
        self._ids = Ids(noted.left)
        if not noted.stored:
            return
        rows = self._database.rows(table.read(noted.stored))
        # One by one, which waits for nobody but those that have locked just this row, such as the last connection.
        for row in rows:
            if row[3] is not None and mark.fingerprint(row[1], row[2], row[3]) == noted.stored[int(row[0])]:
                self._counts.recovered += self._database.run(table.DELETE_ONE % int(row[0]))

    def look(self, most: int = LOOK_ROWS) -> int:
        """Find the first `most` rows that are visible, unless some are left from the last look; return how many."""
        self._blocked.clear()
        self.locked = None
        if self._ids:
            return len(self._ids)
        self._skipped = Ids()
        first = self._database.rows(table.FIRST % BATCH_ROWS)
        self._counts.looked = time.monotonic()
        self._counts.behind = max(float(first[0][1] or 0) / 1e6, 0.0) if first else 0.0
        if len(first) < BATCH_ROWS:
            self._ids = Ids.of(int(id_) for id_, _ in first)
        else:
            ranges = self._database.rows(table.RANGES % most)
            self._ids = Ids((int(low), int(high)) for low, high in ranges)
        return len(self._ids)

    def take(self) -> bool:
        """Publish and delete a batch of what the last look found; return whether there is more."""
        ids = self._ids.take(self._most)
        self._database.run("BEGIN")
        rows, locked = self._lock(ids)
        self._skipped.add(sorted([*locked, *(int(row[0]) for row in rows if row[1] in self._blocked)]))
        found = sort_rows([row for row in rows if row[1] not in self._blocked], self._settings())
        if found.items:
            after = mark.write(mark.Noted(found.stored, self._left()))
            self._broker.publish_pending_marked(found.items, Mark(mark.NAME, self._mark, after))
            self._mark = after
            self._pushes.taken(OUTBOX, len(found.items), found.items)
        self._delete(found)
        self._database.run("COMMIT")
        self._counts.taken += len(found.items)
        refused = sum(map(len, found.refused.values()))
        self._counts.refused += refused
        self._pushes.add(OUTBOX, REFUSED, refused)
        self._counts.batches += 1
        return bool(self._ids)

    def _left(self) -> list[Range]:
        """Return what is next for another taker, which must not overtake the rows that were skipped either."""
        skipped = self._skipped.first_ranges(mark.MOST_RANGES)
        return skipped + self._ids.first_ranges(mark.MOST_RANGES - len(skipped))

    def _lock(self, ids: list[int]) -> tuple[list[Row], list[int]]:
        """Lock and return rows, at most about BATCH_BYTES, and the ids before the last one that somebody has locked."""
        rows: list[Row] = []
        size = 0
        with contextlib.closing(self._database.stream(table.lock(ids, self._settings().max_body))) as stream:
            for row in stream:
                rows.append(row)
                size += 0 if row[3] is None else int(row[4])
                if size >= BATCH_BYTES:
                    break
        rows.sort(key=lambda row: int(row[0]))  # as they are anyway, with the plans of today's optimizers
        if size >= BATCH_BYTES:
            last = int(rows[-1][0])
            self._ids.put_back([each for each in ids if each > last])
            ids = [each for each in ids if each <= last]
        self._most = min(BATCH_ROWS, 2 * (len(ids) if size >= BATCH_BYTES else self._most))
        return rows, self._find_locked(sorted(set(ids) - {int(row[0]) for row in rows})) if len(rows) < len(ids) else []

    def _find_locked(self, ids: list[int]) -> list[int]:
        """Return which of these rows are still there, though they could not be locked. Note their destinations."""
        found: list[int] = []
        for id_, destination in self._database.rows(table.waiting(ids)):
            self._blocked.add(destination)
            found.append(int(id_))
            if self.locked is None:
                self.locked = int(id_)
        return found

    def _delete(self, found: Sorted) -> None:
        if found.stored:
            self._database.run(table.delete(found.stored))
        for reason, ids in found.refused.items():
            self._database.run(table.refuse(ids, self._database.quoted(reason)))
