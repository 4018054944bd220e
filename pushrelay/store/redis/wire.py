"""A blocking connection to Redis over a socket that redis-py has opened: commands, and their replies in order."""

import socket
import time
from collections.abc import Sequence
from typing import Any

import hiredis

Command = Sequence[str | int | float | bytes]

READ_BYTES = 65536
_pack: Any = hiredis.pack_command  # Any: its annotation allows only one word
_INCOMPLETE = object()  # False is a reply in RESP3


class Wire:
    """One connection. Only one thread at a time may use it."""

    def __init__(self, sock: socket.socket):
        self.sock = sock
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)

    def ask(self, deadline: float, *command: str | int | float | bytes) -> Any:
        """Return the reply to a command: see `ask_all`."""
        return self.ask_all(deadline, [command])[0]

    def ask_all(self, deadline: float, commands: Sequence[Command]) -> list[Any]:
        """Send commands at once, and return their replies in order.

        Texts are bytes, and an error reply is a hiredis.ReplyError in its place. `deadline` is a time of
        time.monotonic(). Raises TimeoutError after it, another OSError if the connection ends, and
        hiredis.ProtocolError if the server does not speak Redis's protocol. After any of these the connection cannot
        be used any more, and it is not known whether Redis has carried out the commands.
        """
        self._set_timeout(deadline)
        self.sock.sendall(b"".join(_pack(tuple(each)) for each in commands))
        return [self._reply(deadline) for _ in commands]

    def is_quiet(self) -> bool:
        """Return whether the connection is open and nothing has come since the last reply. Never waits."""
        if self._reader.has_data():
            return False
        self.sock.setblocking(False)
        try:
            self._reader.feed(self.sock.recv(1))
        except BlockingIOError:
            return True
        except OSError as error:
            return is_want_read(error)
        return False

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()

    def _reply(self, deadline: float) -> Any:
        while True:
            reply = self._reader.gets()
            if isinstance(reply, hiredis.PushNotification):  # only subscribers should get these
                continue
            if reply is not _INCOMPLETE:
                return reply
            self._set_timeout(deadline)
            data = self.sock.recv(READ_BYTES)
            if not data:
                raise ConnectionAbortedError("the connection was closed")
            self._reader.feed(data)

    def _set_timeout(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.sock.settimeout(left)


def is_want_read(error: OSError) -> bool:
    """Return whether a non-blocking TLS socket only has nothing to read yet."""
    return type(error).__name__ == "SSLWantReadError"  # by name: without TLS, `ssl` need not be imported
