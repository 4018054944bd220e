"""The table `meta`: which relay uses the file, so that the next one notices whether anything is missing.

A relay that opens the file records the boot of the machine, a random word for this opening (`token`), and with each
commit its number (`generation`). The journal next to the file has the same word and number. So the next opening knows
whether both files are as the last relay left them. If one is missing, truncated, damaged or an older copy, offsets that
clients have seen would be used again. A new epoch begins then, and clients learn that they lost something.
"""

import pathlib
import secrets
import sqlite3
import time
from typing import NamedTuple

from .journal import Contents
from .sqlite_file import Damaged
from .sqlite_rows import seconds, text, whole

COMMITTED = "UPDATE meta SET value = ? WHERE name = 'generation'"


class Meta(NamedTuple):
    """The rows of the table: how the last relay left the file."""

    epoch: str
    boot: str = ""  # of the machine, if a power failure before the store is closed loses something
    token: str = ""  # "" in a file that no relay has opened yet
    is_open: bool = False  # the store was not closed
    generation: int = 0  # number of the last commit
    lost_at: float = 0.0  # when something was last lost, in seconds since 1970
    copied_at: float = 0.0  # when this copy was made, unless a relay has opened it since; 0 in a store


def read(connection: sqlite3.Connection) -> Meta:
    """Read the table. Raises Damaged, sqlite3.Error."""
    meta = dict(connection.execute("SELECT name, value FROM meta").fetchall())
    epoch = text(meta.get("epoch"))
    if not (epoch.isascii() and epoch.isalnum() and len(epoch) <= 20):
        raise Damaged("its epoch was not written by the relay")
    boot, token = text(meta.get("open", "")), text(meta.get("token", ""))
    is_open = bool(whole(meta.get("working", 0))) or boot != ""
    times = (seconds(meta.get(name, 0.0)) for name in ("lost_at", "copied_at"))
    return Meta(epoch, boot, token, is_open, whole(meta.get("generation", 0)), *times)


def find_loss(meta: Meta, left: Contents | None, journal: str) -> str | None:
    """Return a sentence about what may be lost since the last opening, and why; None if nothing is.

    `left` is what the file `journal` holds; None if the file does not exist.
    """
    if meta.copied_at:
        return f"this is a backup of {date_of(meta.copied_at)}, and what came after it is not in it"
    if meta.boot not in ("", this_boot()):
        return "the machine went down while the relay was running, and the last seconds of pushes may be lost"
    if left is None:
        missing = f"{journal} is missing, and with it the last pushes that were accepted before the relay was killed"
        return missing if meta.is_open else None
    if left.fault is not None:
        return f"{journal} is damaged ({left.fault}), and accepted pushes are missing from it"
    if left.token != meta.token or left.epoch != meta.epoch:
        return f"{journal} belongs to another database, or the database is an older copy of itself"
    if left.generation > meta.generation:
        return f"the database is older than {journal}: it is an older copy, or its -wal is missing or damaged"
    if meta.boot and left.generation < meta.generation - 1:
        return f"{journal} is older than the database: it is an older copy"
    return None


def mark_open(connection: sqlite3.Connection, meta: Meta) -> None:
    """Record that a relay uses the file. The caller's transaction syncs it to the disk."""
    rows = {"epoch": meta.epoch, "open": meta.boot, "token": meta.token, "working": 1, "generation": meta.generation}
    connection.executemany("REPLACE INTO meta VALUES (?, ?)", list(rows.items()))


def mark_closed(connection: sqlite3.Connection) -> None:
    """Record that the store is closed. Closing the connection then writes everything to the disk."""
    connection.execute(
        "UPDATE meta SET value = CASE name WHEN 'open' THEN '' ELSE 0 END WHERE name IN ('open', 'working')"
    )


def declare_loss(connection: sqlite3.Connection, now: float) -> None:
    """Mark the newest publication of every destination as lost, so that no client recovers past what is missing.

    Positions of the earlier epoch no longer count, but acknowledgements do, and nothing is known about what came after
    that. So each destination has lost its newest publication, and nobody has acknowledged that one.
    """
    newest = "(SELECT max(p.offset) FROM publications p WHERE p.destination = destinations.id)"
    connection.execute(f"UPDATE destinations SET offset = max(offset, coalesce({newest}, 0))")  # noqa: S608
    connection.execute("UPDATE destinations SET trimmed = offset, acked = min(acked, offset - 1)")
    connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'floor'")
    connection.execute("REPLACE INTO meta VALUES ('lost_at', ?)", (now,))
    connection.execute("DELETE FROM meta WHERE name = 'copied_at'")


def mark_copied(connection: sqlite3.Connection, now: float) -> None:
    """Record that this is a copy of a store, so that the relay that opens it begins a new epoch.

    To relays that do not know this mark it looks like a store that was in use and lost its journal: they do the same.
    """
    rows = {"copied_at": now, "token": new_token(), "open": "", "working": 1}
    connection.executemany("REPLACE INTO meta VALUES (?, ?)", list(rows.items()))


def date_of(when: float) -> str:
    """Return a time in seconds since 1970 as people read it, in the time zone of this machine."""
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(when))


def new_token() -> str:
    """Return a random word for one opening."""
    return secrets.token_hex(8)


def this_boot() -> str:
    """Return a word that changes each time the machine starts; always the same word on systems without one."""
    try:
        return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"
