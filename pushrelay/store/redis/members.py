"""The members of destinations over all nodes. Redis decides who has come and who has left, and tells every node.

A node writes what it has: who is there, not what happened. So a write may be repeated, and after a cut everything is
written again. The members of a watched destination are read on the connection that brings the changes: what arrives
after the list is newer than the list.
"""

from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any

import hiredis

from pushrelay.errors import StoreError
from pushrelay.store.members import Found, Users

from .history import RedisHistory
from .link import PUBLIC, Link
from .nodes import COMPARE_EVERY
from .questions import Questions
from .scripts import HELD, MEMBERS, PEOPLE
from .work import Work

FLUSH_SECONDS = 0.05  # after which a change is written
AGAIN_SECONDS = 1.0  # after which a write that Redis has refused is repeated
MOST_AT_ONCE = 256  # users in one write
# After a cut, other nodes may still have to write their users. Members who are missing for this time have left.
MISSING_SECONDS = 3.0
ALL = 1 << 40  # bytes

IN, OUT, UNSURE = 1, 2, 3  # what was written last about a user; UNSURE if it may not have arrived

Key = tuple[str, str]  # destination, id


class RedisMembers:
    """The members of all nodes: see SharedMembers. `link` is the node's connection; the others ask beside it."""

    def __init__(self, link: Link, history: RedisHistory, questions: Questions):
        self._link = link
        self._history = history
        self._questions = questions
        self._users: Users | None = None
        # Changes that must be written, and whether each is news. Any thread may add some.
        self._changes: deque[tuple[Key, bool]] = deque()
        self._flush_is_due = False
        # Guarded by the lock of the link.
        self._known: dict[Key, int] = {}  # until Redis has confirmed that this node does not have the user any more
        self._news: set[Key] = set()  # users of whom news was written, until Redis has confirmed it
        self._totals: dict[str, int] = {}  # members of the destinations at which this node has users or watchers
        self._loads: deque[tuple[str, bool]] = deque()  # destinations whose members must be read, and whether for good
        self._is_loading = False
        self._beats = 0
        self._counted: int | None = None  # users that Redis must know of when the present beat arrives

    def attach(self, users: Users) -> None:
        """Have the users of this node take part."""
        self._users = users

    # Any lock may be held.

    def changed(self, destination: str, id_: str, is_news: bool) -> None:
        """Note that a user has come to this node, has changed, or has left."""
        self._changes.append(((destination, id_), is_news))
        self._flush_in(FLUSH_SECONDS)

    def total(self, destination: str) -> int:
        """Return the number of members of a destination at all nodes, as far as this node knows."""
        return self._totals.get(destination, 0)

    def _flush_in(self, seconds: float) -> None:
        if not self._flush_is_due:
            self._flush_is_due = True
            self._link.loop.call_later(seconds, self._flush)

    def forget(self, destination: str) -> None:
        """Note that nobody here watches a destination any more."""
        if self._users is not None and not self._users.is_here(destination):
            self._totals.pop(destination, None)

    # No lock is held.

    def is_member(self, destination: str, id_: str) -> bool:
        """Return whether a user is a member by some node."""
        return bool(self._questions.ask("HEXISTS", f"{self._link.keys}m:{destination}", id_))

    def destinations(self, after: str, most: int) -> list[str]:
        """Return the destinations after a name that clients of any node hold, in the order of their names."""
        return [each.decode() for each in self._history.run(HELD, after, most)]

    def read(self, destinations: Iterable[str], most_bytes: int) -> dict[str, list[Found]]:
        """Return the members of each destination, of as many of them as have this size."""
        names = list(destinations)
        answer = self._history.run(PEOPLE, most_bytes, *names)
        return {name: _found_in(each) for name, each in zip(names, answer, strict=False)}

    def load(self, destination: str) -> None:
        """Have the members of a destination that is watched now read."""
        work = Work()
        with self._link.lock:
            if self._link.is_up:
                self._write(self._take_changes())  # so that the list has the users of this node
                self._loads.appendleft((destination, True))
                self._load_next()
            else:
                self._fail(destination, work)
        work.run()

    def return_seconds(self) -> float:
        """Return the seconds within which the users of this node come back to others if it is stopped."""
        return max(1.0, self._users.return_seconds() if self._users is not None else 0.0)

    # With the lock of the link held.

    def up(self) -> None:
        """Write everything again, and read the members of what is watched again, after a new connection."""
        users = self._users
        if users is None:
            return
        self.announce_all()
        self._write(self._take_changes())
        self._reload(self._link.session, is_final=False)
        self._link.loop.call_later(MISSING_SECONDS, self._reload_for_good, self._link.session)

    def cut(self, work: Work) -> None:
        """Expect no reply any more."""
        self._known = dict.fromkeys(self._known, UNSURE)
        self._loads.clear()
        self._is_loading = False
        for each in self._users.watched() if self._users is not None else ():
            self._fail(each, work)

    def announce_all(self) -> None:
        """Have everything written again, and what else Redis may know."""
        self._known = dict.fromkeys(self._known, UNSURE)
        for key in {**self._known, **dict.fromkeys(self._users.everybody() if self._users is not None else ())}:
            self.changed(*key, is_news=False)

    def count(self) -> None:
        """Count what Redis must know, because a beat is about to be sent."""
        self._beats += 1
        known = list(self._known.values()) if self._beats % COMPARE_EVERY == 0 else [UNSURE]
        self._counted = len(known) if known.count(IN) == len(known) else None

    def compare(self, users: int) -> None:
        """Write everything again if Redis knew of another number of users when the beat arrived."""
        if self._counted is not None and users != self._counted:
            self.announce_all()

    def take(self, fields: list[Any]) -> None:
        """Take a message about changes: see _members.lua."""
        users = self._users
        if users is None or fields[0].decode() != self._link.state.epoch:
            return
        for at in range(3, len(fields), 5):
            destination, id_, info = fields[at].decode(), fields[at + 1].decode(), fields[at + 3].decode()
            if destination in self._totals:
                self._totals[destination] = fields[at + 4]
            users.arrived(destination, id_, info or None, float(fields[at + 2]))

    # Writing.

    def _flush(self) -> None:
        with self._link.lock:
            self._flush_is_due = False
            if self._link.is_up:  # otherwise everything is written again when it is
                self._write(self._take_changes())

    def _take_changes(self) -> dict[Key, bool]:
        due: dict[Key, bool] = {}
        for _ in range(len(self._changes)):
            key, is_news = self._changes.popleft()
            due[key] = due.get(key, False) or is_news
        return due

    def _write(self, due: dict[Key, bool]) -> None:
        """Write the users whose presence differs from what Redis knows."""
        writes: list[tuple[Key, int]] = []
        args: list[str] = []
        for key, is_news in due.items():
            user, known = self._users.present(*key) if self._users is not None else None, self._known.get(key)
            if user is not None and (is_news or known != IN):
                writes.append((key, IN))
                if is_news or known is None:
                    self._news.add(key)
                args += (*key, f"{user.since:.3f}", user.info_json, "+" if key in self._news else "=")
            elif user is None and known in (IN, UNSURE):
                writes.append((key, OUT))
                self._news.discard(key)
                args += (*key, "", "", "-")
        self._known.update(writes)
        for start in range(0, len(writes), MOST_AT_ONCE):
            part = writes[start : start + MOST_AT_ONCE]
            given = args[5 * start : 5 * (start + MOST_AT_ONCE)]
            self._link.run_script(MEMBERS, (self._link.node, *given), partial(self._written, part))

    def _written(self, writes: list[tuple[Key, int]], reply: Any, work: Work) -> None:
        failed = isinstance(reply, hiredis.ReplyError)
        for number, (key, state) in enumerate(writes):
            if not failed and state == IN:
                self._totals[key[0]] = reply[number]
            if self._known.get(key) != state:
                continue  # it was written again since
            if failed:
                self._known[key] = UNSURE
                self._changes.append((key, False))
            elif state == IN:
                self._news.discard(key)
            elif state == OUT:
                del self._known[key]
                if self._users is not None and key[0] not in self._users.watched():
                    self.forget(key[0])
        if failed:
            self._flush_in(AGAIN_SECONDS)

    # Reading.

    def _reload_for_good(self, session: int) -> None:
        with self._link.lock:
            if self._link.is_up and self._link.session == session:
                self._reload(session, is_final=True)

    def _reload(self, session: int, is_final: bool) -> None:
        if self._users is not None:
            self._loads.extend((each, is_final) for each in self._users.watched())
            self._load_next()

    def _load_next(self) -> None:
        """Read the members of one destination: one after another, because a subscriber may get too much at once."""
        if self._is_loading or not self._loads:
            return
        self._is_loading = True
        destination, is_final = self._loads.popleft()
        self._link.run_script(PEOPLE, (ALL, destination), partial(self._loaded, destination, is_final))

    def _loaded(self, destination: str, is_final: bool, reply: Any, work: Work) -> None:
        self._is_loading = False
        users = self._users
        if users is not None and isinstance(reply, hiredis.ReplyError):
            work.call(partial(users.failed, destination, self._link.place.explained(reply)))
        elif users is not None:
            members = _found_in(reply[0])
            self._totals[destination] = len(members)
            users.loaded(destination, members, is_final)
            work.call(partial(users.answer, destination))
        self._load_next()

    def _fail(self, destination: str, work: Work) -> None:
        if self._users is not None:
            work.call(partial(self._users.failed, destination, StoreError(self._link.trouble, PUBLIC)))


def _found_in(reply: list[bytes]) -> list[Found]:
    """Return the members in a list of people.lua."""
    parts = [each.decode() for each in reply]
    return list(map(Found, parts[::3], parts[2::3], map(float, parts[1::3])))
