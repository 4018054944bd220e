"""A blocking connection to Redis over a socket that redis-py has opened: commands, and their replies in order."""

import socket
import time
from collections.abc import Sequence
from typing import Any

import hiredis

Command = Sequence[str | int | float | bytes]

READ_BYTES = 65536
_pack: Any = hiredis.pack_command  # Any: its annotation allows only one word
INCOMPLETE = object()  # what `reader.gets()` returns if a reply is not complete: False is a reply in RESP3


class Wire:
    """One connection. Only one thread at a time may use it. `pushes` gets the messages of a subscriber."""

    def __init__(self, sock: socket.socket, pushes: list[Any] | None = None):
        self.sock = sock
        self.pushes = pushes
        self.reader = hiredis.Reader(notEnoughData=INCOMPLETE)

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
        self.sock.sendall(b"".join(packed(*each) for each in commands))
        return [self._reply(deadline) for _ in commands]

    def tell(self, deadline: float, *command: str | int | float | bytes) -> None:
        """Send a command that has no reply, such as SUBSCRIBE. Raises OSError."""
        self._set_timeout(deadline)
        self.sock.sendall(packed(*command))

    def is_quiet(self) -> bool:
        """Return whether the connection is open and nothing has come since the last reply. Never waits."""
        if self.reader.has_data():
            return False
        self.sock.setblocking(False)
        try:
            self.reader.feed(self.sock.recv(1))
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
            reply = self.reader.gets()
            if isinstance(reply, hiredis.PushNotification):
                if self.pushes is not None:
                    self.pushes.append(reply)
                continue
            if reply is not INCOMPLETE:
                return reply
            self._set_timeout(deadline)
            data = self.sock.recv(READ_BYTES)
            if not data:
                raise ConnectionAbortedError("the connection was closed")
            self.reader.feed(data)

    def _set_timeout(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.sock.settimeout(left)


def packed(*parts: Any) -> bytes:
    """Return a command as it is sent; the parts are texts, bytes and numbers."""
    data: bytes = _pack(parts)
    return data


def is_want_read(error: OSError) -> bool:
    """Return whether a non-blocking TLS socket only has nothing to read yet."""
    return type(error).__name__ == "SSLWantReadError"  # by name: without TLS, `ssl` need not be imported
