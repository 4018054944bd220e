"""The members of one destination as its watchers know them: a list, and numbered events since.

The list that a watcher gets and the events after it never have a gap. Everything that is sent to watchers of a
destination is sent with its `sending` lock held; so an answer goes out before the first event that follows it.
"""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from pushrelay.json_text import quote
from pushrelay.rooms.answering import Reply
from pushrelay.rooms.rooms import Rooms, watch_room

from .person import member_text

# Bytes of events in one packet, before the last one. A burst of joins must not look like a client that reads slowly.
PACKET_BYTES = 65_536
MOST_OF_MEMBER = 2048  # bytes in an answer; a member's info has 1,024 at most, and its id 128 characters


class Ask(NamedTuple):
    """A question for the members of a destination that waits until they are known here."""

    sid: str
    enter: Callable[[], None]  # puts the socket into the room of the watchers; raises Refused
    reply: Reply
    charge: Callable[[int], None]  # takes the size of the answer
    expires: float | None = None  # when the right to watch ends, in seconds since 1970


class View:
    """The members of a destination that is watched here. The lock of Views guards all fields but `sending`."""

    __slots__ = (
        "answering",
        "asks",
        "destination",
        "is_loaded",
        "is_timed",
        "members",
        "pending",
        "sending",
        "starting",
        "version",
        "watchers",
    )

    def __init__(self, destination: str):
        self.destination = destination
        self.sending = threading.Lock()  # taken before the lock of Views, and before that of the rooms
        self.is_loaded = False
        self.asks: list[Ask] = []  # that wait until it is
        self.is_timed = False  # whether they are tried again soon
        self.answering = 0  # questions that are being answered: until then it is kept
        self.members: dict[str, tuple[str, str]] = {}  # by id: info, and the whole object that clients get, as JSON
        self.version = 0  # number of the last event
        self.pending: list[str] = []  # the last events, as JSON, which have not been sent yet
        self.starting: dict[str, int] = {}  # by sid of a newcomer: the number of pending events that its list includes
        self.watchers: set[str] = set()  # sids

    @property
    def size(self) -> int:
        """The bytes of the answer to a question, at most."""
        return len(self.members) * MOST_OF_MEMBER

    def apply(self, id_: str, info: str | None, since: float) -> bool:
        """Note that a member has come or changed, or has left (None). Return whether there is an event to send.

        Nodes may disagree on `since` by a little, so this alone does not count.
        """
        before = self.members.get(id_)
        if info == (None if before is None else before[0]):
            return False
        if info is None:
            del self.members[id_]
            event = f'{{"leave":{quote(id_)}}}'
        else:
            text = member_text(id_, info, since)
            self.members[id_] = info, text
            event = f'{{"join":{text}}}'
        self.version += 1
        if self.watchers:
            self.pending.append(event)
        return bool(self.watchers)

    def listing(self, expires: float | None) -> str:
        """Return the answer to a question, as JSON. `expires` is when the right to it ends, in seconds since 1970."""
        members, more = ",".join([text for _, text in self.members.values()]), ""
        if expires is not None:
            more += f',"expires_in":{max(0, int(expires - time.time()))}'
        return f'{{"ok":true,"id":{quote(self.destination)},"members":[{members}],"version":{self.version}{more}}}'

    def take(self) -> tuple[list[str], int, dict[str, int]]:
        """Return the pending events, the version of the first, and the newcomers; and forget them."""
        events, starting = self.pending, self.starting
        self.pending, self.starting = [], {}
        return events, self.version - len(events) + 1, starting

    def send(self, rooms: Rooms, events: list[str], first: int, starting: dict[str, int]) -> None:
        """Send what take() returned. Its `sending` lock is held, the lock of Views is not."""
        skipped = list(starting)
        for text in self._packets(events, first):
            rooms.deliver_text(lambda text=text: text, watch_room(self.destination), skipped)  # type: ignore[misc]
        for sid, known in starting.items():
            for text in self._packets(events[known:], first + known):
                rooms.send_text(text, sid)

    def _packets(self, events: list[str], first: int) -> list[str]:
        """Return the texts of Socket.IO events that carry these events."""
        packets, at = [], 0
        while at < len(events):
            end, size = at, 0
            while end < len(events) and size < PACKET_BYTES:
                size += len(events[end])
                end += 1
            packets.append(
                f'["relay_presence",{{"destination":{quote(self.destination)},"version":{first + at},'
                f'"events":[{",".join(events[at:end])}]}}]'
            )
            at = end
        return packets
