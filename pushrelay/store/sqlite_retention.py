"""What an SQLite store drops, and when: what expired, what takes too much room, destinations without history, old keys.

It is done in steps of a millisecond, on behalf of the pushes and once a second. A destination is looked at when it is
`due`: by then something of it expired, or it had no history for as long as it takes to be forgotten.
"""

import time
from typing import Any

from .sqlite_reading import Reading
from .sqlite_rows import Cursor, seconds, text, whole

GRAIN = 60.0  # seconds that what expired may lie on the disk: sweeping looks at a destination no more often
EVICT = 16  # publications that one destination loses at a time where all take too much room
EXPIRE = 256  # the oldest of a destination that are looked at together; what expired behind them can wait


class Retention(Reading):
    """The part of SQLiteBroker that sweeps; what it works on is declared there."""

    _writer: Any
    _pages: int
    _is_file_commit: bool
    _uncommitted: int
    _staged: dict[str, Cursor]

    def _sweep(self) -> bool:
        self._is_file_commit = self._is_file_commit or not self._uncommitted
        self._write_rows()
        end, now, looks = time.monotonic() + self.SWEEP_SECONDS, self._clock(), 0
        while self._sweep_destination(now) or self._sweep_keys(now):
            looks += 1
            if time.monotonic() > end and (looks >= self.SWEEP_LEAST or not self._is_over()):
                return True
        return False

    def _sweep_destination(self, now: float) -> bool:
        """Look at the destination that is due next, or whose history is the oldest where all take too much room."""
        over = self._is_over()
        first = self._writer.execute("SELECT name, due, quiet FROM destinations ORDER BY due LIMIT 1").fetchone()
        if first is None or (seconds(first[1]) > now and not over):
            return self._sweep_future(now)
        name, due, quiet = text(first[0]), *first[1:]
        cursor = self._cursor(name, now)
        oldest = "SELECT offset, own, expires FROM publications WHERE destination = ? ORDER BY offset LIMIT ?"
        found = self._writer.execute(oldest, (cursor.id, EVICT if over else EXPIRE)).fetchall()
        rows = [(whole(offset), bool(own), seconds(expires)) for offset, own, expires in found]
        gone = [row for row in rows if row[2] <= now]
        if over and not gone and not self._due_of(cursor.id, now) > due:
            gone = [(offset, False, expires) for offset, _, expires in rows]
            if not gone:
                quiet = cursor.offset  # there is nothing but its name, and no room for that
        self._drop(name, cursor, gone, quiet, now)
        return True

    def _is_over(self) -> bool:
        (count,) = self._writer.execute("PRAGMA page_count").fetchone()
        if count <= self._pages:
            return False
        return count - self._writer.execute("PRAGMA freelist_count").fetchone()[0] > self._pages

    def _due_of(self, id_: int, now: float) -> float:
        """When a destination's oldest publication expires, and GRAIN; 0 where it has no history.

        A clock that was set back leaves expiries in a far future: look again after one history_ttl all the same.
        """
        first = "SELECT expires FROM publications WHERE destination = ? ORDER BY offset LIMIT 1"
        found = self._writer.execute(first, (id_,)).fetchone()
        return min(seconds(found[0]), now + self.history_ttl) + GRAIN if found else 0.0

    def _drop(
        self, name: str, cursor: Cursor, gone: list[tuple[int, bool, float]], quiet: int | None, now: float
    ) -> None:
        """Drop publications of a destination, and see when to look at it again. Where it had none: forget it.

        It is forgotten where a whole FORGET_AFTER lies between two looks, and nothing was pushed between them.
        """
        rows = [(cursor.id, offset) for offset, _, _ in gone]
        self._writer.executemany("DELETE FROM publications WHERE destination = ? AND offset = ?", rows)
        trimmed = max([cursor.trimmed, *(offset for offset, own, _ in gone if not own)])
        due = self._due_of(cursor.id, now)
        if not due and not gone and quiet == cursor.offset:
            self._forget(name, cursor)
            return
        quiet, due = (None, due) if due else (cursor.offset, now + self.FORGET_AFTER)
        self._writer.execute(
            "UPDATE destinations SET offset = ?, trimmed = ?, due = ?, quiet = ? WHERE id = ?",
            (cursor.offset, trimmed, due, quiet, cursor.id),
        )
        self._staged[name] = cursor._replace(trimmed=trimmed, due=due)

    def _forget(self, name: str, cursor: Cursor) -> None:
        """Forget a destination. Those that are made later count on from its offset, so no position comes twice."""
        self._is_file_commit = True  # a floor that somebody was told of must not be lost with this process
        self._floor = max(self._floor, cursor.offset)
        self._writer.execute("UPDATE meta SET value = ? WHERE name = 'floor'", (self._floor,))
        self._writer.execute("DELETE FROM destinations WHERE id = ?", (cursor.id,))
        self._staged.pop(name, None)
        self._cursors.pop(name, None)
        self._lost_cursors.pop(name, None)

    def _sweep_future(self, now: float) -> bool:
        """Make a destination due that a clock since set back made due in a far future."""
        horizon = now + self.FORGET_AFTER + self.history_ttl + GRAIN
        last = self._writer.execute("SELECT id, name, due FROM destinations ORDER BY due DESC LIMIT 1").fetchone()
        if last is None or seconds(last[2]) <= horizon:
            return False
        cursor = self._cursor(text(last[1]), now)
        self._staged[last[1]] = cursor._replace(due=self._due_by(cursor.id, cursor.due, now))
        return True

    def _sweep_keys(self, now: float) -> bool:
        """Forget some of the oldest keys."""
        ends = self._writer.execute("SELECT (SELECT min(id) FROM keys), (SELECT max(id) FROM keys)").fetchone()
        if ends[0] is None:
            return False
        crowded = whole(ends[1]) - whole(ends[0]) >= self.MAX_KEYS
        delete = "DELETE FROM keys WHERE id < ? AND (created <= ? OR ?)"
        return self._writer.execute(delete, (ends[0] + 64, now - self.KEY_TTL, crowded)).rowcount > 0
