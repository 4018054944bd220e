"""The table of the outbox, and every statement that the relay runs on it.

Rows are always named by their ids, and never by a condition such as `id <= 17`. A row with a lower id may belong to a
transaction that is still open: to read up to an id would miss it, and to delete up to an id would wait for it.
Statements join a list of ids with the table by STRAIGHT_JOIN, so that the server looks up one id after another. With
`id IN (…)` its optimizer may prefer to scan a small table, and a DELETE then waits for rows of open transactions that
it does not even name.
"""

from collections.abc import Iterable

NAME = "relay_outbox"
MOST_REASON = 500  # characters of the column `error`

CREATE = f"""\
CREATE TABLE IF NOT EXISTS {NAME} (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  destination VARCHAR(1000) NOT NULL,
  data MEDIUMTEXT NOT NULL,
  is_json BOOLEAN NOT NULL DEFAULT FALSE COMMENT 'whether data is JSON, and not text that pages get as a string',
  event VARCHAR(100) NULL COMMENT 'NULL: push',
  ttl DOUBLE NULL COMMENT 'seconds in the history, NULL: as long as other pushes',
  error VARCHAR({MOST_REASON}) NULL COMMENT 'why the relay cannot push this row, set it to NULL to try again',
  created TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)
) ENGINE=InnoDB DEFAULT CHARACTER SET=utf8mb4"""

# No strict mode: the reason why a row cannot be pushed may be too long for the column of somebody's own table.
# READ COMMITTED, because it takes no gap locks, which would block inserts. If the relay stops without a word, the
# server ends its connection after wait_timeout, and releases its locks and its lease.
SESSION = (
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION wait_timeout = 10, net_read_timeout = 10, net_write_timeout = 10, lock_wait_timeout = 2, "
    "innodb_lock_wait_timeout = 2, time_zone = '+00:00', sql_mode = ''",
)
VERSION = "SELECT VERSION()"
ENGINE = f"SELECT engine FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = '{NAME}'"  # noqa: S608
# Names of locks are shared by all databases of a server, and have at most 64 characters.
LEASE = "CONCAT('relay_outbox:', MD5(DATABASE()))"
GET_LEASE = f"SELECT GET_LOCK({LEASE}, 1)"
LEASE_HOLDER = f"SELECT IS_USED_LOCK({LEASE})"

# The first rows, and how many microseconds ago each was inserted.
FIRST = (
    f"SELECT id, TIMESTAMPDIFF(MICROSECOND, created, NOW(6)) FROM {NAME} "  # noqa: S608
    "WHERE error IS NULL ORDER BY id LIMIT %d"
)
# The ids of all rows, as ranges: an id minus its place among the ids is the same for neighbors. If that was an
# unsigned integer, a row with the id 0 would be out of its range.
RANGES = (
    "SELECT MIN(id), MAX(id) FROM (SELECT id, CAST(id AS DECIMAL(21)) - ROW_NUMBER() OVER (ORDER BY id) "  # noqa: S608
    f"AS island FROM (SELECT id FROM {NAME} WHERE error IS NULL ORDER BY id LIMIT %d) AS visible) AS numbered "
    "GROUP BY island ORDER BY 1"
)
DELETE_ONE = f"DELETE FROM {NAME} WHERE id = %d"  # noqa: S608
REFUSED = (
    "SELECT COUNT(*), MIN(id), "  # noqa: S608
    f"(SELECT error FROM {NAME} WHERE error IS NOT NULL ORDER BY id LIMIT 1) FROM {NAME} WHERE error IS NOT NULL"
)
COUNT = f"SELECT COUNT(*), TIMESTAMPDIFF(MICROSECOND, MIN(created), NOW(6)) FROM {NAME} WHERE error IS NULL"  # noqa: S608
# They change nothing, and fail if the user may not do what the relay does.
TRIES = (
    f"SELECT id, destination, data, is_json, event, ttl, error, created FROM {NAME} LIMIT 0",  # noqa: S608
    f"SELECT id FROM {NAME} WHERE FALSE FOR UPDATE SKIP LOCKED",  # noqa: S608
    f"UPDATE {NAME} SET error = NULL WHERE FALSE",  # noqa: S608
    f"DELETE FROM {NAME} WHERE FALSE",  # noqa: S608
)


# Statements on the rows with these ids, of which there is at least one.


def lock(ids: Iterable[int], most: int) -> str:
    """Return a statement that locks and finds rows, except those that are locked. Longer data than `most` is NULL."""
    return (
        f"SELECT {_columns(most)}, IF(o.is_json, 1, 0), o.event, o.ttl FROM {_rows(ids)} "  # noqa: S608
        "WHERE o.error IS NULL FOR UPDATE SKIP LOCKED"
    )


def read(ids: Iterable[int]) -> str:
    """Return a statement that finds rows, locked or not, with the first columns of lock()."""
    return f"SELECT {_columns(_ANY_LENGTH)} FROM {_rows(ids)}"  # noqa: S608


def waiting(ids: Iterable[int]) -> str:
    """Return a statement that finds the ids and destinations of those rows that are there and not refused."""
    return f"SELECT o.id, o.destination FROM {_rows(ids)} WHERE o.error IS NULL"  # noqa: S608


def delete(ids: Iterable[int]) -> str:
    """Return a statement that deletes rows."""
    return f"DELETE o FROM {_rows(ids)}"  # noqa: S608


def refuse(ids: Iterable[int], reason: str) -> str:
    """Return a statement that notes why rows cannot be pushed. `reason` is a literal of SQL."""
    return f"UPDATE {_rows(ids)} SET o.error = {reason}"  # noqa: S608


_ANY_LENGTH = 1 << 31


def _columns(most: int) -> str:
    return f"o.id, o.destination, o.created, IF(LENGTH(o.data) <= {most}, o.data, NULL), LENGTH(o.data)"


def _rows(ids: Iterable[int]) -> str:
    first, *others = ids
    wanted = f"SELECT {first} AS id" + "".join(f" UNION ALL SELECT {each}" for each in others)  # noqa: S608
    return f"({wanted}) AS wanted STRAIGHT_JOIN {NAME} AS o FORCE INDEX (PRIMARY) ON o.id = wanted.id"
