"""`python relay.py backup` and `restore`: a backup of the store, and a store from a backup."""

import argparse
import contextlib
import os
import signal
from collections.abc import Mapping
from types import FrameType
from typing import NoReturn

from pushrelay.errors import StoreError
from pushrelay.settings import load

from .output import fail, print_data, print_status

_IN_MEMORY = "broker = memory: keeps publications in the relay's memory only: there is nothing to back up or restore"
_IN_REDIS = (
    "Redis keeps the publications, and makes the backup: run  redis-cli --rdb FILE  while it runs. docs/operations.md "
    "has the steps, also those to restore it"
)
_ELSEWHERE = (
    "there is no store. A path in the setting broker is relative to the folder in which the relay is started: run this "
    "in that folder, with the relay's --config"
)


def backup(given: argparse.Namespace, flags: Mapping[str, str]) -> int:
    """Write a backup, print what it holds, and return the exit code. Raises SettingsError."""
    from pushrelay.store import backups  # here: not every Python has sqlite3

    path, reason = _store(flags)
    if reason or not _may_exist(path):
        return fail(reason or f"{path}: {_ELSEWHERE}")
    _prepare()
    try:
        copied = backups.backup(path, given.file, given.overwrite)
    except StoreError as error:
        return fail(str(error))
    if copied.damaged:
        print_status(f"relay: warning: {path}: {copied.damaged} damaged publications were left out; check the disk")
    print_data(f"{given.file}: {copied.publications} publications to {copied.destinations} destinations")
    return 0


def restore(given: argparse.Namespace, flags: Mapping[str, str]) -> int:
    """Restore a backup, print what the store holds now, and return the exit code. Raises SettingsError."""
    from pushrelay.store import backups
    from pushrelay.store.sqlite_meta import date_of

    path, reason = _store(flags)
    if reason:
        return fail(reason)
    _prepare()
    try:
        done = backups.restore(given.file, path)
    except StoreError as error:
        return fail(str(error))
    held = f"{done.copied.publications} publications to {done.copied.destinations} destinations"
    print_data(f"{path}: {held}, from the backup of {date_of(done.made_at)}")
    if done.kept:
        print_data(f"The previous store is {done.kept}; delete it, and the files beside it, when all is well.")
    print_data("Now start the relay. Clients that come back get the status lost.")
    return 0


def _store(flags: Mapping[str, str]) -> tuple[str, str]:
    """Return the path of the store, and why it has no file that could be copied; "" if it has one."""
    kind, _, path = load(flags=flags).broker.partition(":")
    if kind == "memory":
        return "", _IN_MEMORY
    return (os.path.abspath(path), "") if kind == "sqlite" else ("", _IN_REDIS)


def _may_exist(path: str) -> bool:
    """Return False if there is no such file. A user who may not see its folder learns that later."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    except OSError:
        pass
    return True


def _prepare() -> None:
    """Leave the processor to the relay. At SIGTERM, end with an exception, which removes the file that is written."""
    signal.signal(signal.SIGTERM, _end)
    with contextlib.suppress(OSError):
        os.nice(10)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # a second one would end what removes the file
    raise SystemExit(128 + number)
