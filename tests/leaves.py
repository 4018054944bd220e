"""A check for leftovers of actions: entries in tables, slots, threads and files.

    with leaves_nothing(engine, manager):
        ...

fails unless every table of these objects, and of everything that they hold, is as empty afterwards as before.
counted_relay.py makes the same check possible for a running relay.
"""

import collections
import contextlib
import json
import os
import queue

from conftest import wait_for

PACKAGES = ("pushrelay.", "socketio.", "engineio.")
# Attributes that count something in use.
NUMBERS = {
    "_count",
    "used",
    "count",
    "uncommitted",
    "_busy",
    "_owed",
    "_bytes",
    "size",
}
# Bounded caches of headers, paths, offsets and answers, and threads that wait for work.
CACHES = {
    "Poller._workers",
    "Poller._idle",
    "Parser._remembered",
    "KnownHeaders.by_bytes",
    "KnownHeader.environ",
    "Server._known",
    "PathTimes._quick",
    "PathTimes._slow",
    "Readers._idle",
    "Writer.cursors",
    "Writer.staged",
    "Writer.all_cursors",
    "Writer.lost_cursors",
    "Writer.recent",
    "Writer.uncommitted",
    "SQLiteStore._appended",
    "SQLiteStore._entries",
    "MemoryStore._destinations",
    "AuthBackend._requests",
    "Expiries._heap",
    "LogLimiter._silences",
    "Problems._problems",
    "ProxiesSeen._counts",
    "TopNames._counts",
    "TopNames._former",
}
CONTAINERS = (dict, list, set, collections.deque)


def census(*roots, without=()):
    """Return how many entries each table of these objects holds, by class and attribute: {"Waiters._count": 2}."""
    counts, seen = collections.Counter(), set()
    waiting = list(roots)
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        for name, value in attributes(thing):
            path = f"{type(thing).__name__}.{name}"
            if path in CACHES or path in without:
                continue
            if path == "Poller._timers":  # a canceled timer holds nothing, and is removed when it is due
                counts[path] += sum(timer._callback is not None for _, _, timer in list(value))
            elif isinstance(value, CONTAINERS):
                counts[path] += len(value)
                waiting += things_in(value)
            elif isinstance(value, queue.SimpleQueue):
                counts[path] += value.qsize()
            elif name in NUMBERS and isinstance(value, int):
                counts[path] += value
            elif is_ours(value):
                waiting.append(value)
    return {path: count for path, count in counts.items() if count}


def attributes(thing):
    for cls in type(thing).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            name = f"_{cls.__name__.lstrip('_')}{name}" if name.startswith("__") else name
            with contextlib.suppress(AttributeError):
                yield name, getattr(thing, name)
    yield from list(getattr(thing, "__dict__", {}).items())


def things_in(container):
    """Return our own objects among those that a container holds, also within other containers."""
    found = []
    values = list(container.values()) if isinstance(container, dict) else list(container)
    for value in values:
        if isinstance(value, CONTAINERS):
            found += things_in(value)
        elif is_ours(value):
            found.append(value)
    return found


def is_ours(value):
    module = getattr(type(value), "__module__", "") or ""
    return module.startswith(PACKAGES) and not isinstance(value, type)


def open_files():
    """Return how many files this process has open, without those of the store, which opens more for its readers."""
    targets = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            targets.append(os.readlink(f"/proc/self/fd/{fd}"))
    return {"files": sum(".db" not in target for target in targets)}


@contextlib.contextmanager
def leaves_nothing(*parts, without=(), count=None, deadline=20.0):
    """Fail unless the tables of these objects are, in the end, no fuller than before.

    `count()` replaces the count of these tables and of this process's open files.
    """
    count = count or (lambda: census(*parts, without=without) | open_files())
    before = count()
    yield
    try:
        wait_for(lambda: not more(before, count()), "the end of what was left behind", deadline)
    except AssertionError:
        raise AssertionError(f"left behind: {more(before, count())}") from None


def more(before, now):
    return {path: (before.get(path, 0), held) for path, held in now.items() if held > before.get(path, 0)}


def counts_of(relay):
    """Return the counts of a relay that was started with program="tests/counted_relay.py"."""
    return json.loads(relay.request("GET", "/counts")[2])
