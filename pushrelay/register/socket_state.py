"""The state of one socket: since when it has received everything in a room, and how long it may stay there."""

from pushrelay.access.auth_requests import AuthRequest
from pushrelay.access.tokens import Rights

_NO_FIRST: dict[str, int] = {}  # the value for most sockets; never modified
_NO_EXPIRY: dict[str, float] = {}  # likewise

STATE_KEY = "relay.socket_state"  # of the SocketState in the environ of a socket's handshake


class SocketState:
    """The state of one socket, apart from the rooms that it is in.

    A socket in a room has been sent all publications after an offset, its `first`, up to the one that
    Broker.delivered() returns. The exceptions are pushes with `except` that name this socket, and pushes with `ttl=0`
    during its replay if it was not in the room before. Leaving the room ends `first`.
    """

    __slots__ = ("_epoch", "_first", "_others", "_room", "auth_request", "expiry", "next_expiry", "rights", "sid")

    def __init__(self, sid: str):
        self.sid = sid
        # `first` by room, in the store of one epoch. Most sockets have one room, for which a dict would be too large.
        self._epoch = ""
        self._room: str | None = None
        self._first = 0
        self._others: dict[str, int] = _NO_FIRST
        self.auth_request: AuthRequest | None = None  # the request to auth_url that the socket waits for
        # Only Expiries changes these; every thread reads them.
        self.rights: Rights | None = None  # what the socket may push to, as it was last granted
        self.expiry: dict[str, float] = _NO_EXPIRY  # by room: when the socket must leave it, in seconds since 1970
        self.next_expiry: float | None = None  # when Expiries looks at this socket next

    def entered(self, room: str, epoch: str, first: int) -> None:
        """Note that the socket is in a room and has been sent all publications after the offset `first`."""
        if epoch != self._epoch:
            self._epoch, self._room, self._others = epoch, None, _NO_FIRST
        if room in self._others:  # not in `_room` as well: left() would keep this entry
            self._others[room] = first
        elif self._room is None or self._room == room:
            self._room, self._first = room, first
        elif self._others:
            self._others[room] = first
        else:
            self._others = {room: first}

    def delivered_since(self, room: str, epoch: str) -> int | None:
        """Return the offset since which the socket has been sent everything; None if that is of another epoch."""
        if epoch != self._epoch:
            return None
        return self._first if room == self._room else self._others.get(room)

    def left(self, room: str) -> None:
        """Note that the socket has left a room."""
        if room == self._room:
            self._room = None
        else:
            self._others.pop(room, None)


def state_of(sid: str, environ: dict[str, object]) -> SocketState:
    """Return the state of a socket from the environ of its handshake.

    A client that left the namespace and came back on the same connection is another socket.
    """
    state = environ.get(STATE_KEY)
    if not isinstance(state, SocketState) or state.sid != sid:
        state = environ[STATE_KEY] = SocketState(sid)
    return state
