"""Clients that are written for one purpose: to tell exactly what came over the wire, in which order, and how often.

python-socketio's client handles each event in a thread of its own, so it cannot tell an order.
"""

import base64
import contextlib
import json
import os
import socket
import threading
import time

from conftest import DEADLINE, wait_for


def frame(text, opcode=1):
    """A client's WebSocket frame, with a mask of zeros, under which the text stays as it is."""
    payload = text.encode()
    size = len(payload)
    if size < 126:
        length = bytes((0x80 | size,))
    else:
        length = b"\xfe" + size.to_bytes(2, "big") if size < 65536 else b"\xff" + size.to_bytes(8, "big")
    return bytes((0x80 | opcode,)) + length + b"\0\0\0\0" + payload


def upgrade(port, path="/socket.io/"):
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET {path}?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


class Wire:
    """A Socket.IO client on a plain socket, which reads only when it is told to."""

    def __init__(self, port, deadline=DEADLINE, buffer=0, path="/socket.io/"):
        self.socket = socket.socket()
        if buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(deadline)
        try:
            self.socket.connect(("127.0.0.1", port))
            self._file = self.socket.makefile("rb")
            self.socket.sendall(upgrade(port, path))
            head = self._file.readline()
            assert b" 101 " in head, head
            while self._file.readline() not in (b"\r\n", b""):
                pass
            self.hello = json.loads(self.packet()[1:])
            self.send("40")
            while not (packet := self.packet()).startswith("40"):
                pass
            self.sid = json.loads(packet[2:])["sid"]
        except BaseException:
            self.close()
            raise

    def send(self, text):
        self.socket.sendall(frame(text))

    def emit(self, event, message, number=1):
        self.send(f"42{number}" + json.dumps([event, message]))

    def packet(self):
        """The next packet but pings, which are answered. Raises OSError where the connection ended or says nothing."""
        while True:
            head = self._read(2)
            size = head[1]
            if size > 125:
                size = int.from_bytes(self._read(2 if size == 126 else 8), "big")
            payload = self._read(size)
            if head[0] & 0x0F == 8:
                raise ConnectionError("closed by the relay")
            if payload != b"2":
                return payload.decode()
            self.send("3")

    def _read(self, size):
        got = self._file.read(size)
        if len(got) < size:
            raise ConnectionError("the connection ended")
        return got

    def until_answer(self, number=1):
        """The messages of the events that come before an acknowledgement, in order, and what that says."""
        events = []
        while not (packet := self.packet()).startswith(f"43{number}["):
            if packet.startswith("42"):
                events.append(json.loads(packet[2:])[1])
        return events, json.loads(packet[3:])[0]

    def call(self, event, message):
        """Emit, and return (what came before the acknowledgement, the acknowledgement)."""
        self.emit(event, message)
        return self.until_answer()

    def events(self, count):
        """The messages of the next events."""
        events = []
        while len(events) < count:
            if (packet := self.packet()).startswith("42"):
                events.append(json.loads(packet[2:])[1])
        return events

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(AttributeError):
            self._file.close()
        self.socket.close()


class Follower:
    """Stays registered for one id whatever happens: connects again by itself, with `since` the id it saw last.

    `messages` is all that it was sent, as it came, with nothing left out; `answers` are those to its registrations.
    """

    def __init__(self, port, id_, path="/socket.io/"):
        self.port, self.id, self.path = port, id_, path
        self.messages, self.answers = [], []
        self.last = None
        self._ended = False
        self._wire = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        wait_for(lambda: self.answers, "the first registration")

    def _run(self):
        while not self._ended:
            with contextlib.suppress(OSError, AssertionError, ValueError):
                self._stay()
            if self._wire is not None:
                self._wire.close()
            time.sleep(0.05)

    def _stay(self):
        self._wire = wire = Wire(self.port, deadline=5, path=self.path)
        wire.socket.settimeout((wire.hello["pingInterval"] + wire.hello["pingTimeout"]) / 1000)
        wire.emit("register", {"id": self.id, "since": self.last})
        while not self._ended:
            packet = wire.packet()
            if packet.startswith('42["relay_drain",'):
                raise ConnectionError("the relay goes down")
            if packet.startswith("42"):
                message = json.loads(packet[2:])[1]
                self.messages.append(message)
                self.last = message["id"]
            elif packet.startswith("431"):
                answer = json.loads(packet[3:])[0]
                if not answer["ok"]:  # the store may be away: the register is sent again on a new connection
                    raise ConnectionError(answer)
                self.answers.append(answer["ids"][self.id])
                self.last = self.last or answer["ids"][self.id]["position"]

    def ids(self):
        return [message["id"] for message in self.messages]

    def data(self):
        return [message["data"] for message in self.messages]

    def close(self):
        self._ended = True
        if self._wire is not None:
            self._wire.close()
        self._thread.join(DEADLINE)
