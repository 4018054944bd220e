"""The differences between the running settings and those that a reload has read."""

import dataclasses
from typing import NamedTuple

from .table import TABLE, Settings
from .values import SettingsError


class Changes(NamedTuple):
    """The result of reading the sources again."""

    settings: Settings  # the ones to use: the new values of reloadable settings, and the running values of the others
    changed: list[str]  # the names of reloadable settings that have a new value
    waiting: list[str]  # the names of the others: their new values apply at the next start


def read_changes(running: Settings) -> Changes:
    """Read the sources of `running` again.

    Raises SettingsError if they cannot be used, also because a new value contradicts one that needs a restart.
    """
    if running.read_again is None:
        raise SettingsError("these settings were not read from a file, the environment or flags")
    read = running.read_again()
    if read.file is None and running.file is not None:  # all its settings would get their defaults, and open the relay
        raise SettingsError(f"{running.file} does not exist any more; put it back")
    differing = [row for row in TABLE if getattr(read, row.name) != getattr(running, row.name)]
    waiting = [row.name for row in differing if not row.reloadable]
    kept = {row.name: getattr(running, row.name) for row in TABLE if not row.reloadable}
    try:
        merged = dataclasses.replace(read, imported=running.imported, **kept)
    except SettingsError as error:
        names = ", ".join(waiting)
        raise SettingsError(f"until a restart applies {names}: {error}" if waiting else str(error)) from None
    return Changes(merged, [row.name for row in differing if row.reloadable], waiting)
