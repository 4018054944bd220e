"""Taking files from the spool: each is published once, in the order of the names, whenever the relay is killed.

The files of a batch are published in one transaction, together with a mark that has their names and the times at which
they were written, and then removed. So files that the mark names are stored: after a kill between the two steps, the
next relay removes them first. A file that has such a name but was written at another time is a later one, such as a
refused one that was corrected. The mark needs no time limit, unlike idempotency keys. These only recognize a push that
Relay.php had sent over HTTP before, without getting an answer.
"""

import logging
import re
from collections.abc import Callable
from time import monotonic, time

from pushrelay.counters import Counters
from pushrelay.errors import Refused
from pushrelay.push.counts import SPOOL, PushCounts
from pushrelay.push.publisher import REUSED
from pushrelay.settings import Settings
from pushrelay.store import Broker
from pushrelay.store.publication import Mark

from .content import Content, content_of
from .folder import MOST_NAMES, Folder, FolderTrouble, Unusable
from .refused_files import Stuck

log = logging.getLogger(__name__)

MOST_AT_ONCE = 256  # publications in one transaction, so that other pushes do not wait for long
MOST_BYTES_AT_ONCE = 1 << 20  # of data
MOST_LEFT = 256  # published files that cannot be removed: the mark has their names
MOST_ATTEMPTS = 10  # to store a file that fails alone while the store works
STUCK_SECONDS = 60.0  # after which it is tried again to move files that could not be moved
_STORED = re.compile(r"^(\S+) ([0-9]+)$", re.MULTILINE)  # a line of the mark
TAKEN, REFUSED = "taken", "refused"


class Taking:
    """Publishes the files of a folder that is held. One thread calls its methods.

    `warn(sentence)` is called for each file that is refused. `is_over()` returns whether the relay is about to end.
    """

    def __init__(
        self,
        folder: Folder,
        broker: Broker,
        counts: PushCounts,
        warn: Callable[[str], None],
        is_over: Callable[[], bool],
    ):
        self.files = Counters((TAKEN, REFUSED))
        self.oldest: float | None = None  # when the first file that waits was written, in seconds since 1970
        self.waited = 0.0  # seconds for which the first file of the last take() had waited
        self._folder = folder
        self._broker = broker
        self._counts = counts
        self._warn = warn
        self._is_over = is_over
        self._mark: str | None = None  # as the store has it; None if that is not known
        self._left: dict[str, int] = {}  # files that are published but could not be removed, with their stamps
        self._stuck: dict[str, str] = {}  # files that were refused but cannot be moved, with the reason
        self._stuck_until = 0.0  # when they are tried again (monotonic)
        self._failed: tuple[str, int] = "", 0  # the file that fails alone, and how often it did

    def begin(self) -> None:
        """Forget what is known of the store and the folder: somebody else may have worked with both."""
        self._mark, self._left, self._stuck = None, {}, {}

    @property
    def trouble(self) -> str | None:
        """Why a refused file is still in the way, and what to do; None if none is."""
        if not (stuck := dict(self._stuck)):  # another thread may call this
            return None
        name = min(stuck)
        path = f"{self._folder.path}/{name}"
        return f"{path!r:.200} was refused and cannot be moved away: remove it, or what is in the way ({stuck[name]})"

    def take(self, settings: Settings) -> int:
        """Publish what waits; return the number of files that do not wait any more.

        Raises StoreError, FolderTrouble, and OSError. Files that were not published wait on.
        """
        if self._mark is None:
            self._remove_stored()
        found = self._folder.names()
        if self._stuck:
            self._forget_stuck(set(found))
        names = [name for name in found if name not in self._left and name not in self._stuck]
        self.oldest = self._folder.written(names[0]) if names else None
        self.waited = 0.0 if self.oldest is None else time() - self.oldest
        done, batch = 0, _Batch()
        for name in names:
            if self._is_over():
                break
            content = self._content(name, settings)
            if content is not None:
                if batch.contents and (self._failed[0] or not batch.has_room(content)):
                    self._publish(batch)
                    batch = _Batch()
                batch.add(content)
            done += 1
        if batch.contents:
            self._publish(batch)
        if done == len(names) < MOST_NAMES:
            self.oldest = None
        return done

    def _forget_stuck(self, found: set[str]) -> None:
        """Forget files that somebody has removed, and all of them now and then, so that they are tried again."""
        is_time = monotonic() > self._stuck_until
        self._stuck = {name: why for name, why in self._stuck.items() if name in found and not is_time}

    def _remove_stored(self) -> None:
        """Remove the files that the previous relay, or an earlier attempt, published and did not remove any more."""
        mark = self._broker.mark(self._mark_name())
        stored = {name: int(stamp) for name, stamp in _STORED.findall(mark)}
        stamps = {name: stamp for name, stamp in stored.items() if self._folder.is_written(name, stamp)}
        self._left = {name: stamps[name] for name in self._folder.remove(list(stamps))}
        self._mark = mark

    def _mark_name(self) -> str:
        return f"spool:{self._folder.id}"

    def _content(self, name: str, settings: Settings) -> Content | None:
        """Return what a file asks for; None if it was refused or is gone."""
        try:
            return content_of(self._folder.read(name, settings.max_body), settings)
        except FileNotFoundError:
            return None
        except Unusable as error:
            reason = str(error)
        except Refused as error:
            reason = f"{error.error}: {error.message}"
        except OSError:
            raise
        except Exception as error:
            log.exception("the file %s of the spool could not be read", name)
            reason = f"the relay failed ({error!r}): its log has more"
        self._refuse(name, reason)
        return None

    def _publish(self, batch: "_Batch") -> None:
        """Publish the files of a batch, and remove them."""
        self._put_rests_away(batch)
        if not batch.contents:
            return
        stamps = {content.name: content.stamp for content in batch.contents}
        names = list(stamps)
        if len(self._left) > MOST_LEFT:
            raise FolderTrouble(f"files in {self._folder.path} cannot be removed, such as {next(iter(self._left))}")
        after = "\n".join(f"{name} {stamp}" for name, stamp in {**self._left, **stamps}.items())
        items = [item for content in batch.contents for item in content.items]
        had_trouble = self._broker.trouble is not None
        try:
            self._broker.publish_pending_marked(items, Mark(self._mark_name(), self._mark or "", after))
        except Exception as error:
            self._mark = None  # the store knows whether they were published
            self._note_failure(names, had_trouble, str(error) or repr(error))
            raise
        self._mark, self._failed = after, ("", 0)
        for content in batch.contents:
            if any(item.is_reused for item in content.items):
                self._refuse(content.name, f"{REUSED.error}: {REUSED.message}")
                names.remove(content.name)
        self.files.add(TAKEN, len(names))
        self._counts.taken(SPOOL, len(names), items)
        self._left |= {name: stamps[name] for name in self._folder.remove(names)}

    def _put_rests_away(self, batch: "_Batch") -> None:
        """Put the pushes of a file that are refused to the refused files. If that is not possible, the file waits.

        This comes before the others are published, so that these are not lost if the relay is killed before the end.
        """
        for content in list(batch.contents):
            if content.refused and not self._refuse(content.name, content.refused, content.rest):
                batch.contents.remove(content)

    def _note_failure(self, names: list[str], had_trouble: bool, reason: str) -> None:
        """Refuse a file that the store rejects again and again although it stores others."""
        name, times = self._failed
        if name != names[0]:
            self._failed = names[0], 0  # from now on files are published one by one
        elif len(names) == 1 and not had_trouble:
            self._failed = name, times + 1
            if times + 1 >= MOST_ATTEMPTS:
                self._failed = "", 0
                self._remove_stored()
                if name not in self._left:
                    self._refuse(name, f"the store rejects it: {reason}")

    def _refuse(self, name: str, reason: str, rest: bytes | None = None) -> bool:
        """Move a file, or `rest` of it, to the refused ones. Return False if it is still in the way."""
        shown, *more = reason.splitlines()
        shown += f" (and {len(more)} more)" if more else ""
        try:
            kept = self._folder.refuse(name, reason, rest)
        except FileNotFoundError:
            return rest is None  # somebody removed the file
        except Stuck as error:
            self._stuck[name] = f"{shown}; {self._folder.path}/refused: {error}"
            self._stuck_until = monotonic() + STUCK_SECONDS
            return False
        self.files.add(REFUSED)
        self._warn(f"{self._folder.path}/refused/{kept}: {shown}")
        return True


class _Batch:
    """Files that are published in one transaction."""

    def __init__(self) -> None:
        self.contents: list[Content] = []
        self._items = self._bytes = 0

    def has_room(self, content: Content) -> bool:
        items, size = self._items + len(content.items), self._bytes + content.size
        return items <= MOST_AT_ONCE and size <= MOST_BYTES_AT_ONCE and len(self.contents) < MOST_AT_ONCE

    def add(self, content: Content) -> None:
        self.contents.append(content)
        self._items += len(content.items)
        self._bytes += content.size
