"""Checks of this machine: Python, the packages, the clock, open files, and the folder of the store."""

import importlib.metadata
import os
import pathlib
import re
import shlex
import shutil
import stat
import sys
import time

from pushrelay.packages import install_command, other_python
from pushrelay.places import HOME, PROGRAM
from pushrelay.settings import NAMES, Settings
from pushrelay.settings.values import is_redis
from pushrelay.store.open import file_of

from .process import Process
from .redis_store import redis_store
from .report import Advice, Report

OLDEST_PYTHON = (3, 11)
LITTLE_SPACE = 64 << 20  # bytes
ENOUGH_CLIENTS = 10_000  # while max_connections has its default, which is only an upper bound


def versions(report: Report) -> None:
    """Check the versions of Python and of the packages in requirements.txt."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST_PYTHON:
        advice = Advice("Install a newer one (python3 of Debian 12, for example), and make a new venv with it.")
        report.fail("Python", f"{found}, and the relay needs 3.11", advice)
    else:
        report.ok("Python", f"{found}, {sys.executable}")
    wrong = [each for each in _requirements() if not _is_met(*each)]
    if not wrong:
        report.ok("packages", "all packages in requirements.txt are installed, in the versions that it asks for")
        return
    listed = ", ".join(f"{name} is {_version(name) or 'missing'}, and {asked} is needed" for name, asked in wrong)
    if python := other_python():
        advice = Advice("Use the Python of the virtual environment:", (f"{python} {PROGRAM} doctor",))
    else:
        advice = Advice("Run:", (install_command("requirements.txt"),))
    report.fail("packages", listed, advice)


def _requirements() -> list[tuple[str, str]]:
    """Return the packages in requirements.txt and the versions that it asks for, such as >=3.0,<4."""
    lines = (HOME / "requirements.txt").read_text("utf-8").splitlines()
    found = (re.match(r"([\w.-]+)(?:\[[^\]]*\])?\s*([<>=!~][^;#]*)?", line) for line in lines)
    return [(each[1], (each[2] or "").strip()) for each in found if each]


def _is_met(name: str, asked: str) -> bool:
    """Return whether a package is installed in a version that `asked` allows. Our file uses only `>=` and `<`."""
    version = _numbers(_version(name))
    bounds = re.findall(r"(>=|<)\s*([\d.]+)", asked)
    return bool(version) and all(
        version >= _numbers(bound) if sign == ">=" else version < _numbers(bound) for sign, bound in bounds
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", re.split(r"[a-z+-]", version)[0])))


def clock(report: Report, settings: Settings) -> None:
    """Check that the clock is not far off: it decides when tokens and publications expire."""
    behind = PROGRAM.stat().st_mtime - time.time()
    if behind > 86400:
        found = f"it is {time.strftime('%Y-%m-%d %H:%M')} here, which is before these files were written"
        advice = Advice("Set it, and keep it right:", ("timedatectl set-ntp true",))
        (report.fail if settings.secret else report.warn)("clock", found, advice)
    elif settings.secret:
        report.ok("clock", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))


def files(report: Report, settings: Settings, process: Process | None) -> None:
    """Check the limit on open files, of which each client needs one. The relay raises its own to the hard limit."""
    try:
        import resource

        from pushrelay.server.open_files import (  # here, because it needs packages that may be missing
            files_for,
            files_needed,
        )
    except ModuleNotFoundError as missing:
        if missing.name != "resource":
            raise
        return  # a system without such limits, which has no epoll either

    if process and not process.pid:
        report.warn("open files", "the relay is another user's process: run the doctor as root to see its limit")
        return
    limit = process.file_limit if process else resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    whose = f"of the relay (process {process.pid})" if process else "here"
    wanted = settings.max_connections
    if limit is None or limit == resource.RLIM_INFINITY:
        report.ok("open files", f"no limit, enough for {wanted} clients")
        return
    most = files_for(limit, settings.threads).connections
    is_default = wanted == NAMES["max_connections"].default
    if most >= (min(wanted, ENOUGH_CLIENTS) if is_default else wanted):
        report.ok("open files", f"{limit} {whose}, enough for {min(most, wanted)} clients")
        return
    found = f"the limit {whose} is {limit}, too low for the {wanted} clients of max_connections"
    advice = _about_limit(files_needed(wanted, settings.threads), most)
    (report.fail if most < wanted / 2 else report.warn)("open files", found, *advice)


def _about_limit(needed: int, most: int) -> list[Advice]:
    """Return how to raise the limit to `needed` open files, or to lower max_connections to `most`."""
    return [
        Advice("If systemd starts it, write into its [Service] (systemctl edit relay):", (f"LimitNOFILE={needed}",)),
        Advice("If you start it by hand, run this first, as root and in the same shell:", (f"ulimit -n {needed}",)),
        Advice("Or allow fewer clients, in [relay]:", (f"max_connections = {max(most, 1)}",)),
    ]


def store(report: Report, settings: Settings, process: Process | None) -> None:
    """Check the store: the Redis, or the folder of the file and the free space there."""
    if is_redis(settings.broker):
        redis_store(report, settings)
        return
    name = file_of(settings.broker)
    if name is None:
        report.warn("store", "in memory: what pages have missed is lost when the relay stops", _KEEP)
    if name is None or (process and not process.pid):
        return  # the folder of another user's process is unknown; the relay reports below whether its store works
    # The path is relative to the folder in which the relay was started.
    file = ((process and process.folder) or pathlib.Path.cwd()) / name
    folder = file.parent
    if not folder.is_dir():
        advice = Advice("Make it:", (f"mkdir -p {shlex.quote(str(folder))}",))
        report.fail("store", f"there is no folder {folder}", advice)
        return
    closed = next((each for each in (folder, file) if each.exists() and not os.access(each, os.W_OK)), None)
    if closed and process is None:  # a running relay may be another user's, and reports below whether its store works
        report.fail("store", f"{closed} cannot be written by this user", *_about_closed(closed))
        return
    _check_space(report, settings, file)


def _about_closed(closed: pathlib.Path) -> list[Advice]:
    """Return what to do about a file or a folder of the store that this user cannot write."""
    command = f"chown USER {shlex.quote(str(closed))}"
    return [
        Advice("Run the doctor as the relay's user, and in the folder in which the relay is started."),
        Advice("If you did, give this to the relay's user:", (command,)),
    ]


def _check_space(report: Report, settings: Settings, file: pathlib.Path) -> None:
    free = shutil.disk_usage(file.parent).free
    found = f"{file}, {free >> 20} MiB free, durability {settings.durability}"
    if free < LITTLE_SPACE:
        report.fail("store", f"{found}: the disk is nearly full", Advice("Free some space, or pushes will be refused."))
    elif free < settings.history_bytes + LITTLE_SPACE:
        bound = f"history_bytes = {max(1 << 20, (free - LITTLE_SPACE) // 2)}"
        found += f", and history_bytes is {settings.history_bytes >> 20} MiB"
        report.warn("store", found, Advice("Lower it:", (bound,)))
    else:
        report.ok("store", found)


_KEEP = Advice("To keep it, in [relay]:", ("broker = sqlite:relay.db",))


def closed_to_others(file: pathlib.Path) -> pathlib.Path | None:
    """Return what keeps other users from reading a file: the outermost closed folder, or the file; None if they can."""
    for each in reversed(file.parents):
        if not each.stat().st_mode & stat.S_IXOTH:
            return each
    return None if file.stat().st_mode & stat.S_IROTH else file
