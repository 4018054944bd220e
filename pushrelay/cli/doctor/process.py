"""The process that listens at the relay's address, as Linux's /proc tells of it."""

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
    """What can be seen of it."""

    pid: int  # 0: it is another user's, and nothing of it can be seen
    file_limit: int | None  # of open files; None: there is none
    folder: pathlib.Path | None  # where it was started
    unit: str  # of systemd, empty where it did not start it
    config: str  # the file that `--config` named, empty where there was none
    command: tuple[str, ...] = ()
    environ: Mapping[str, str] | None = None  # None: it cannot be seen
    started: float = 0.0  # seconds since 1970; 0: unknown


HIDDEN = Process(0, None, None, "", "")


def listener(settings: Settings) -> Process | None:
    """The process that listens there; None where there is none. Raises OSError where there is no /proc."""
    inodes = _unix_inodes(settings.host[5:]) if settings.host.startswith("unix:") else _tcp_inodes(settings.port)
    if not inodes:
        return None
    sockets = {f"socket:[{inode}]" for inode in inodes}
    for folder in PROC.iterdir():
        # Process 1 has it as well, where systemd has passed it on.
        if folder.name.isdigit() and folder.name != "1" and sockets & _open_files(folder):
            return _seen(folder)
    return HIDDEN


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
    try:
        return {os.readlink(each) for each in (folder / "fd").iterdir()}
    except OSError:  # another user's, or just ended
        return set()


def _seen(folder: pathlib.Path) -> Process:
    limit = re.search(r"^Max open files\s+(\d+)", _text(folder / "limits"), re.MULTILINE)
    unit = re.search(r"/([\w@.-]+\.service)$", _text(folder / "cgroup"), re.MULTILINE)
    try:
        started = pathlib.Path(os.readlink(folder / "cwd"))
    except OSError:
        started = None
    command = _text(folder / "cmdline")
    config = re.search(r"\0--config[=\0]([^\0]+)", command)
    found = (unit[1] if unit else "", config[1] if config else "")
    more = (tuple(command.rstrip("\0").split("\0")), _environ(folder), _started(folder))
    return Process(int(folder.name), int(limit[1]) if limit else None, started, *found, *more)


def commands() -> list[tuple[str, ...]]:
    """Return the command lines of all processes, each once."""
    found = (_text(folder / "cmdline").rstrip("\0") for folder in PROC.iterdir() if folder.name.isdigit())
    return [tuple(each.split("\0")) for each in dict.fromkeys(found) if each]


def started_from(script: pathlib.Path) -> list[tuple[pathlib.Path, tuple[str, ...]]]:
    """Return folder and arguments of each other process that runs this script, as far as this user sees them."""
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
        except OSError:  # another user's, or just ended
            where = pathlib.Path("/")
        if (where / words[place]).resolve() == script:
            found.append((where, tuple(words[place + 1 :])))
    return found


def connected_to(settings: Settings) -> int:
    """Return how many connections there are to the relay's address. Raises OSError if there is no /proc."""
    if settings.host.startswith("unix:"):
        lines = [line.split() for line in (PROC / "net/unix").read_text().splitlines()]
        return sum(words[5] == CONNECTED_UNIX for words in lines if words[7:] == [settings.host[5:]])
    return len(_tcp_inodes(settings.port, ESTABLISHED))


def _environ(folder: pathlib.Path) -> Mapping[str, str] | None:
    try:
        pairs = (folder / "environ").read_bytes().decode("utf-8", "surrogateescape").split("\0")
    except OSError:  # another user's
        return None
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def _started(folder: pathlib.Path) -> float:
    """When a process was started, by this machine's clock."""
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
