"""File descriptors: how many the process may open, and how they are distributed.

`resource` exists on Unix only, so modules that must load elsewhere import this one inside a function.
"""

import contextlib
import resource
from typing import NamedTuple

# Linux's own bound for a process without a limit (fs.nr_open).
UNLIMITED_FILES = 1 << 20
# Descriptors that no ordinary connection gets: see Files and files_for. `OTHERS` are for the store and its readers, the
# logs, and requests to the site.
REFUSED, SPARE, OTHERS = 32, 128, 96


class Files(NamedTuple):
    """How the file descriptors of the process are distributed among connections."""

    connections: int  # served without restriction
    spare: int  # in addition: served for one request each, so that pushes continue when clients hold the rest
    refused: int  # in addition to both: rejected connections, until they have read the reason


def files_for(limit: int, threads: int) -> Files:
    """Distribute `limit` file descriptors in a process with `threads` threads."""
    refused, spare = min(REFUSED, limit // 16), min(SPARE, limit // 8)
    return Files(limit - refused - spare - min(OTHERS + 4 * threads, limit // 3), spare, refused)


def files_needed(clients: int, threads: int) -> int:
    """Return how many file descriptors are enough for `clients` clients."""
    return clients + REFUSED + SPARE + OTHERS + 4 * threads


def file_limit() -> int:
    """Return how many file descriptors the process may have after `raise_file_limit`."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return UNLIMITED_FILES if hard == resource.RLIM_INFINITY else hard


def raise_file_limit() -> None:
    """Raise the soft limit on file descriptors to the hard one, because each client takes one."""
    with contextlib.suppress(OSError, ValueError):  # without a hard limit, the kernel's own may be lower than ours
        resource.setrlimit(resource.RLIMIT_NOFILE, (file_limit(), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
