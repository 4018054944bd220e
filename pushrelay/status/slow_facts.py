"""Facts that take milliseconds or need the disk. They are collected in the background, never by a request."""

import time
from collections.abc import Callable
from typing import Protocol

from pushrelay.errors import StoreError

from . import process

EVERY = 5.0  # seconds
SURVEY_SECONDS = 0.05  # that counting what is kept may take
REST = 200  # times as long as the last survey took, until the next one


class Survey(Protocol):
    """The contents of a store: see Survey in store/publication.py."""

    @property
    def publications(self) -> int:
        """Their number."""

    @property
    def oldest(self) -> float | None:
        """When the oldest was created; None without any."""


class SlowFacts:
    """The facts as they were when they were last asked for. One thread calls refresh(); any may read.

    `survey(seconds)` counts what the store keeps, and returns None if that takes longer; it may raise StoreError.
    `path` is the store's file, if it has one.
    """

    def __init__(self, survey: Callable[[float], Survey | None], path: str | None):
        self.open_files: int | None = None
        self.disk_free: int | None = None
        self.survey: Survey | None = None
        self._survey = survey
        self._path = path
        self._next = self._next_survey = 0.0  # monotonic

    def refresh(self, is_store_well: bool) -> None:
        """Ask again for what is too old. A store that has trouble is not asked, because it might not answer."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + EVERY
        self.open_files = process.open_files()
        self.disk_free = process.disk_free(self._path) if self._path else None
        if is_store_well and now >= self._next_survey:
            self._take_survey()

    def _take_survey(self) -> None:
        began = time.monotonic()
        try:
            self.survey = self._survey(SURVEY_SECONDS)
        except StoreError:
            return  # the error is in the log
        took = time.monotonic() - began
        self._next_survey = began + max(EVERY, REST * took)
