"""The process that listens at the relay's address, as Linux's /proc tells of it."""

import os
import pathlib
import re
from typing import NamedTuple

from ..settings import Settings

PROC = pathlib.Path("/proc")
LISTENING = "0A"  # the state in /proc/net/tcp


class Process(NamedTuple):
    """What can be seen of it."""

    pid: int  # 0: it is another user's, and nothing of it can be seen
    file_limit: int | None  # of open files; None: there is none
    folder: pathlib.Path | None  # where it was started
    unit: str  # of systemd, empty where it did not start it
    config: str  # the file that `--config` named, empty where there was none


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


def _tcp_inodes(port: int) -> set[str]:
    found = set()
    for name in ("tcp", "tcp6"):
        path = PROC / "net" / name
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            words = line.split()
            if words[3] == LISTENING and int(words[1].rpartition(":")[2], 16) == port:
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
    config = re.search(r"\0--config[=\0]([^\0]+)", _text(folder / "cmdline"))
    found = (unit[1] if unit else "", config[1] if config else "")
    return Process(int(folder.name), int(limit[1]) if limit else None, started, *found)


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
