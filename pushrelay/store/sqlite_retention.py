"""Retention of an SQLite store: dropping expired and surplus publications, destinations without history, and old keys.

It works in steps of a millisecond, on behalf of the pushes and once a second. A destination is checked when it is
`due`: by then something of it has expired, or it has had no history for as long as it takes to be forgotten. This time
is seldom written; an index over all expiries would cost as much again as a push. If all publications together take too
much space, counted in pages of the file, the destination with the oldest history loses some first.

A destination is forgotten after a day without history. The highest offset ever forgotten is kept (`floor`), and new
destinations continue counting from there, so no position is used twice. After more than a day away from a forgotten
destination, a client may get `lost` although nothing was; never the reverse.
"""

from .sqlite_rows import Cursor, seconds, text, whole
from .sqlite_writer import GRAIN, Writer
from .store import Deadline, HistoryLimits

EVICT = 16  # publications that one destination loses at a time when all together take too much space
EXPIRE = 256  # the oldest publications of a destination that are checked together; later ones that expired can wait

_Row = tuple[int, bool, float]  # offset, own, expires


class Retention:
    """Drops what the limits no longer allow, inside the writer's transaction. Its methods raise ERRORS."""

    def __init__(self, writer: Writer, limits: HistoryLimits):
        self._writer = writer
        self._limits = limits
        # Until then no key is forgotten, in seconds since 1970: the files in the spool are older than this process, and
        # the previous one may have stored the same pushes.
        self._keys_until: float | None = None

    def run(self, now: float) -> bool:
        """Drop a little; return whether there is more to drop."""
        writer = self._writer
        writer.must_commit = writer.must_commit or not writer.uncommitted
        writer.write_rows()
        deadline = Deadline(self._limits)
        while self._look_at_next(now) or self._forget_keys(now):
            if deadline.is_over(self._is_crowded):
                return True
        return False

    def _look_at_next(self, now: float) -> bool:
        """Look at the destination that is due next, or at the one with the oldest history if there is too much.

        Returns False if no destination needs a look.
        """
        is_crowded = self._is_crowded()
        connection = self._writer.connection
        first = connection.execute("SELECT name, due, quiet FROM destinations ORDER BY due LIMIT 1").fetchone()
        if first is None or (seconds(first[1]) > now and not is_crowded):
            return self._look_at_future(now)
        name, due, quiet = text(first[0]), first[1], first[2]
        cursor = self._writer.cursor(name, now)
        oldest = "SELECT offset, own, expires FROM publications WHERE destination = ? ORDER BY offset LIMIT ?"
        found = connection.execute(oldest, (cursor.id, EVICT if is_crowded else EXPIRE)).fetchall()
        rows = [(whole(offset), bool(own), seconds(expires)) for offset, own, expires in found]
        gone = [row for row in rows if row[2] <= now]
        if is_crowded and not gone and not self._due_of(cursor.id, now) > due:
            gone = [(offset, False, expires) for offset, _, expires in rows]
            if not gone:
                quiet = cursor.offset  # only its name is left, and even that takes too much space
        self._drop(name, cursor, gone, quiet, now)
        return True

    def _is_crowded(self) -> bool:
        connection, most = self._writer.connection, self._writer.max_pages
        count = whole(connection.execute("PRAGMA page_count").fetchone()[0])
        return count > most and count - whole(connection.execute("PRAGMA freelist_count").fetchone()[0]) > most

    def _due_of(self, id_: int, now: float) -> float:
        """Return when a destination's oldest publication expires, plus GRAIN; 0 if it has no history.

        A clock that was set back leaves expiries in the distant future: check again after one history_ttl at the
        latest.
        """
        first = "SELECT expires FROM publications WHERE destination = ? ORDER BY offset LIMIT 1"
        found = self._writer.connection.execute(first, (id_,)).fetchone()
        return min(seconds(found[0]), now + self._limits.history_ttl) + GRAIN if found else 0.0

    def _drop(self, name: str, cursor: Cursor, gone: list[_Row], quiet: int | None, now: float) -> None:
        """Drop publications of a destination, and set when to look at it again; forget it if it had none.

        It is forgotten if a whole `forget_after` lies between two checks and nothing was pushed in between.
        """
        connection = self._writer.connection
        rows = [(cursor.id, offset) for offset, _, _ in gone]
        connection.executemany("DELETE FROM publications WHERE destination = ? AND offset = ?", rows)
        trimmed = max([cursor.trimmed, *(offset for offset, own, _ in gone if not own)])
        due = self._due_of(cursor.id, now)
        if not due and not gone and quiet == cursor.offset:
            self._forget(name, cursor)
            return
        quiet, due = (None, due) if due else (cursor.offset, now + self._limits.forget_after)
        connection.execute(
            "UPDATE destinations SET offset = ?, trimmed = ?, due = ?, quiet = ? WHERE id = ?",
            (cursor.offset, trimmed, due, quiet, cursor.id),
        )
        self._writer.staged[name] = cursor._replace(trimmed=trimmed, due=due)

    def _forget(self, name: str, cursor: Cursor) -> None:
        """Forget a destination. Destinations that are created later continue from its offset: no position repeats."""
        writer = self._writer
        writer.must_commit = True  # clients may learn of this floor, so it must not be lost with this process
        writer.floor = max(writer.floor, cursor.offset)
        writer.connection.execute("UPDATE meta SET value = ? WHERE name = 'floor'", (writer.floor,))
        writer.connection.execute("DELETE FROM destinations WHERE id = ?", (cursor.id,))
        writer.staged.pop(name, None)
        writer.cursors.pop(name, None)
        writer.lost_cursors.pop(name, None)

    def _look_at_future(self, now: float) -> bool:
        """Move forward a destination that is due in the distant future because the clock was set back."""
        horizon = now + self._limits.forget_after + self._limits.history_ttl + GRAIN
        last = self._writer.connection.execute(
            "SELECT id, name, due FROM destinations ORDER BY due DESC LIMIT 1"
        ).fetchone()
        if last is None or seconds(last[2]) <= horizon:
            return False
        cursor = self._writer.cursor(text(last[1]), now)
        self._writer.staged[last[1]] = cursor._replace(due=self._writer.due_by(cursor.id, cursor.due, now))
        return True

    def _forget_keys(self, now: float) -> bool:
        """Forget some of the oldest keys; return whether there were any to forget."""
        connection = self._writer.connection
        ends = connection.execute("SELECT (SELECT min(id) FROM keys), (SELECT max(id) FROM keys)").fetchone()
        if ends[0] is None:
            return False
        is_crowded = whole(ends[1]) - whole(ends[0]) >= self._limits.max_keys
        if self._keys_until is None:
            self._keys_until = now + self._limits.key_ttl
        if now < self._keys_until and not is_crowded:
            return False
        delete = "DELETE FROM keys WHERE id < ? AND (created <= ? OR ?)"
        arguments = (ends[0] + 64, now - self._limits.key_ttl, is_crowded)
        return connection.execute(delete, arguments).rowcount > 0
