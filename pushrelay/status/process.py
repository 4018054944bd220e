"""Memory, CPU and file descriptors that this process uses. A figure is None on systems that do not provide it."""

import contextlib
import os
import time

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def memory() -> int | None:
    """Return the bytes of memory that the process occupies."""
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * _PAGE
    return None


def cpu() -> float:
    """Return the seconds of CPU that the process has used."""
    return time.process_time()


def open_files() -> int | None:
    """Return the number of open file descriptors. It takes some milliseconds if there are thousands."""
    with contextlib.suppress(OSError):
        return len(os.listdir("/proc/self/fd")) - 1  # without the one that reads the folder
    return None


def files_limit() -> int | None:
    """Return how many file descriptors the process may have open."""
    try:
        import resource
    except ImportError:  # not on Unix
        return None
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def disk_free(path: str) -> int | None:
    """Return the bytes that are free on the disk of a file."""
    with contextlib.suppress(OSError, AttributeError):
        found = os.statvfs(os.path.dirname(path) or ".")
        return found.f_bavail * found.f_frsize
    return None


def passing_time() -> float:
    """Return seconds that also pass while the machine is suspended, from any starting point."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)  # of Linux
    return time.monotonic() if boot is None else time.clock_gettime(boot)
