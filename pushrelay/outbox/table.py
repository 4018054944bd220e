"""The table of the outbox, and every statement that the relay runs on it.

Rows are always named by their ids, and never by a condition such as `id <= 17`. A row with a lower id may belong to a
transaction that is still open: to read up to an id would miss it, and to delete up to an id would wait for it.
Statements reach the rows through JSON_TABLE and STRAIGHT_JOIN, which make the server look up one id after another. With
`id IN (…)` its optimizer may prefer to scan a small table, and a DELETE then waits for rows of open transactions that
it does not even name.
"""

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

# READ COMMITTED, because it takes no gap locks, which would block inserts. If the relay stops without a word, the
# server ends its connection after wait_timeout, and releases its locks and its lease.
SESSION = (
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION wait_timeout = 10, net_read_timeout = 10, net_write_timeout = 10, lock_wait_timeout = 2, "
    "innodb_lock_wait_timeout = 2, time_zone = '+00:00', sql_mode = 'STRICT_TRANS_TABLES'",
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
# The ids of all rows, as ranges: an id minus its place among the ids is the same for neighbors.
RANGES = (
    "SELECT MIN(id), MAX(id) FROM (SELECT id, id - ROW_NUMBER() OVER (ORDER BY id) AS island FROM "  # noqa: S608
    f"(SELECT id FROM {NAME} WHERE error IS NULL ORDER BY id LIMIT %d) AS visible) AS numbered "
    "GROUP BY island ORDER BY 1"
)
_IDS = "JSON_TABLE('%s', '$[*]' COLUMNS (id BIGINT UNSIGNED PATH '$')) AS wanted"
_ROWS = f"{_IDS} STRAIGHT_JOIN {NAME} AS o FORCE INDEX (PRIMARY) ON o.id = wanted.id"
_COLUMNS = "o.id, o.destination, o.created, IF(LENGTH(o.data) <= {most}, o.data, NULL), LENGTH(o.data)"
LOCK = (
    f"SELECT {_COLUMNS}, o.is_json, o.event, o.ttl FROM {_ROWS} "  # noqa: S608
    "WHERE o.error IS NULL FOR UPDATE SKIP LOCKED"
)
READ = f"SELECT {_COLUMNS} FROM {_ROWS}"  # noqa: S608
WAITING = f"SELECT o.id, o.destination FROM {_ROWS} WHERE o.error IS NULL"  # noqa: S608
DELETE = f"DELETE o FROM {_ROWS}"  # noqa: S608
REFUSE = f"UPDATE {_ROWS} SET o.error = {{reason}}"  # noqa: S608
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
