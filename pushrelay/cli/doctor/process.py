"""The process that listens at the relay's address, as Linux shows it in /proc."""

import contextlib
import os
import pathlib
import re
import time
from collections.abc import Mapping
from typing import NamedTuple

from pushrelay.settings import Settings

PROC = pathlib.Path("/proc")
LISTENING, ESTABLISHED = "0A", "01"  # states in /proc/net/tcp
CONNECTED_UNIX = "03"  # a state in /proc/net/unix


class Process(NamedTuple):
    """A process, as far as this user may see it."""

    pid: int  # 0: it belongs to another user, and nothing else is known
    file_limit: int | None  # maximum number of open files; None: unlimited, or unknown
    folder: pathlib.Path | None  # its working folder
    unit: str  # its unit of systemd; empty if systemd did not start it
    config: str  # the value of its `--config`, or empty
    command: tuple[str, ...] = ()
    environ: Mapping[str, str] | None = None  # None: unknown
    started: float = 0.0  # seconds since 1970; 0: unknown


HIDDEN = Process(0, None, None, "", "")


def listener(settings: Settings) -> Process | None:
    """Return the process that listens at the relay's address; None if there is none. Raises OSError without /proc."""
    inodes = _unix_inodes(settings.host[5:]) if settings.host.startswith("unix:") else _tcp_inodes(settings.port)
    if not inodes:
        return None
    sockets = {f"socket:[{inode}]" for inode in inodes}
    for folder in PROC.iterdir():
        # Process 1 has the socket too if systemd passed it to the relay.
        if folder.name.isdigit() and folder.name != "1" and sockets & _open_files(folder):
            return _process_in(folder)
    return HIDDEN


def commands() -> list[tuple[str, ...]]:
    """Return the command lines of all processes, each once."""
    found = (_text(folder / "cmdline").rstrip("\0") for folder in PROC.iterdir() if folder.name.isdigit())
    return [tuple(each.split("\0")) for each in dict.fromkeys(found) if each]


def started_from(script: pathlib.Path) -> list[tuple[pathlib.Path, tuple[str, ...]]]:
    """Return the working folder and the arguments of each other process that runs this script.

    Processes that this user may not see are left out.
    """
    found = []
    for folder in PROC.iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        words = _text(folder / "cmdline").rstrip("\0").split("\0")
        place = next((n for n, word in enumerate(words[:4]) if word.endswith(script.name)), None)
        if place is None:
            continue
        try:
            where = pathlib.Path(os.readlink(folder / "cwd"))
        except OSError:  # it belongs to another user, or has just ended
            where = pathlib.Path("/")
        if (where / words[place]).resolve() == script:
            found.append((where, tuple(words[place + 1 :])))
    return found


def connected_to(settings: Settings) -> int:
    """Return the number of connections to the relay's address. Raises OSError without /proc."""
    if settings.host.startswith("unix:"):
        lines = [line.split() for line in (PROC / "net/unix").read_text().splitlines()]
        return sum(words[5] == CONNECTED_UNIX for words in lines if words[7:] == [settings.host[5:]])
    return len(_tcp_inodes(settings.port, ESTABLISHED))


def _tcp_inodes(port: int, state: str = LISTENING) -> set[str]:
    found = set()
    for name in ("tcp", "tcp6"):
        path = PROC / "net" / name
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            words = line.split()
            if words[3] == state and int(words[1].rpartition(":")[2], 16) == port:
                found.add(words[9])
    return found


def _unix_inodes(path: str) -> set[str]:
    lines = [line.split() for line in (PROC / "net/unix").read_text().splitlines()]
    return {words[6] for words in lines if words[7:] == [path]}


def _open_files(folder: pathlib.Path) -> set[str]:
    """Return the targets of a process's descriptors; none if it belongs to another user, or has just ended."""
    found = set()
    with contextlib.suppress(OSError):
        for each in (folder / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # the process has just closed it
                found.add(os.readlink(each))
    return found


def _process_in(folder: pathlib.Path) -> Process:
    limit = re.search(r"^Max open files\s+(\d+)", _text(folder / "limits"), re.MULTILINE)
    unit = re.search(r"/([\w@.-]+\.service)$", _text(folder / "cgroup"), re.MULTILINE)
    command = _text(folder / "cmdline")
    config = re.search(r"\0--config[=\0]([^\0]+)", command)
    return Process(
        pid=int(folder.name),
        file_limit=int(limit[1]) if limit else None,
        folder=_working_folder(folder),
        unit=unit[1] if unit else "",
        config=config[1] if config else "",
        command=tuple(command.rstrip("\0").split("\0")),
        environ=_environ(folder),
        started=_start_time(folder),
    )


def _working_folder(folder: pathlib.Path) -> pathlib.Path | None:
    try:
        return pathlib.Path(os.readlink(folder / "cwd"))
    except OSError:
        return None


def _environ(folder: pathlib.Path) -> Mapping[str, str] | None:
    try:
        pairs = (folder / "environ").read_bytes().decode("utf-8", "surrogateescape").split("\0")
    except OSError:  # it belongs to another user
        return None
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def _start_time(folder: pathlib.Path) -> float:
    """Return when a process was started, in seconds since 1970 by this machine's clock; 0 if it is unknown."""
    words = _text(folder / "stat").rpartition(")")[2].split()
    uptime = _text(PROC / "uptime").split()
    if len(words) < 20 or not uptime:
        return 0.0
    return time.time() - float(uptime[0]) + int(words[19]) / os.sysconf("SC_CLK_TCK")


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
