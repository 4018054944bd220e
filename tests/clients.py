"""Clients for the tests:

- `conftest.Client`, by the fixture `connect`: python-socketio's own client, for messages as any program sees them.
- `WebSocketClient`: raw. It does nothing on its own, and shows every frame.
- `Wire`: a Socket.IO client that answers pings and returns messages in their order. `Follower` is one that reconnects
  and registers again automatically.
- `crowd.crowd`: thousands of clients in asyncio.
- `OfficialClient`, by the fixture `official`: socket.io-client in Node.

The second to the fourth speak the protocols without any code of the relay. They share the functions at the beginning of
this file, for frames, handshakes and reading.
"""

import contextlib
import http.client
import json
import shutil
import socket
import subprocess
import threading
import time

from conftest import DEADLINE, ROOT, need, wait_for

TESTS = ROOT / "tests"

# RFC 6455, 11.8.
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
NO_MASK = b"\0\0\0\0"  # under it the payload stays as it is
PATH = "/socket.io/?EIO=4&transport="


def frame(data, opcode=TEXT, final=True, mask=NO_MASK):
    """Return a client's frame (RFC 6455, 5.2)."""
    payload = data.encode() if isinstance(data, str) else data
    size = len(payload)
    if size < 126:
        length = bytes((0x80 | size,))
    elif size < 65536:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    if mask != NO_MASK:
        key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
        payload = (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")
    return bytes(((0x80 if final else 0) | opcode,)) + length + mask + payload


def masked(opcode, payload, final=True, mask=b"\x12\x34\x56\x78"):
    """Return the same frame with a mask that changes the payload, as browsers send it."""
    return frame(payload, opcode, final, mask)


def handshake(path=PATH + "websocket", host="127.0.0.1"):
    """Return the request that opens a WebSocket (RFC 6455, 4.1); its key is the RFC's example."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


UPGRADE = handshake()


def event(name, message, number=""):
    """Return a Socket.IO event; with a number it asks for an acknowledgement."""
    return f"42{number}" + json.dumps([name, message])


def read_frame(file):
    """Return (opcode, payload) of the next frame from a server; (None, b"") if the connection has ended."""
    try:
        head = file.read(2)
        if len(head) < 2:
            return None, b""
        size = head[1]
        if size > 125:
            size = int.from_bytes(file.read(2 if size == 126 else 8), "big")
        payload = file.read(size)
    except ConnectionResetError:
        return None, b""
    return (head[0] & 0x0F, payload) if len(payload) == size else (None, b"")


def read_all(sock):
    """Return all bytes until the other side closes."""
    pieces = []
    while piece := sock.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def open_websocket(port, *ids, buffer=0, before=None):
    """Return a plain socket after the handshake and the registration of these ids. It has read the answers."""
    sock = socket.socket()
    sock.settimeout(DEADLINE)
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    if before is not None:
        before(sock)
    sock.connect(("127.0.0.1", port))
    sock.sendall(UPGRADE + frame("40") + frame(event("register", {"id": list(ids)}, 1)))
    got = b""
    while b'"ok":true' not in got:
        piece = sock.recv(65536)
        assert piece, f"the relay closed: {got!r}"
        got += piece
    return sock


class WebSocketClient:
    """A WebSocket that does nothing on its own."""

    def __init__(self, port, path=PATH + "websocket"):
        self.sock = socket.create_connection(("127.0.0.1", port), DEADLINE)
        self.sock.sendall(handshake(path, "test"))
        self.file = self.sock.makefile("rb")
        self.status = self.file.readline().decode().strip()
        self.headers = [line for line in iter(self.file.readline, b"\r\n")]

    def send(self, data):
        self.sock.sendall(masked(TEXT if isinstance(data, str) else BINARY, data))

    def frame(self):
        """Return the next frame: (opcode, payload); (None, b"") if the connection has ended."""
        return read_frame(self.file)

    def receive(self):
        """Return the next message that is not a ping; None if the WebSocket was closed."""
        while True:
            opcode, payload = self.frame()
            if opcode == TEXT and payload != b"2":
                return payload.decode()
            if opcode == BINARY:
                return payload
            if opcode in (None, CLOSE):
                return None

    def close(self):
        self.file.close()
        self.sock.close()


def enter(relay, *ids):
    """Return a raw client that is in the namespace "/" and has registered these ids."""
    client = WebSocketClient(relay.port)
    assert " 101 " in client.status, client.status
    client.receive()
    client.send("40")
    assert client.receive().startswith("40")
    if ids:
        client.send(event("register", {"id": list(ids)}, 1))
        assert '"ok":true' in client.receive()
    return client


class Wire:
    """A Socket.IO client on a plain socket, which reads only when the test calls it."""

    def __init__(self, port, deadline=DEADLINE, buffer=0, path="/socket.io/"):
        self.socket = socket.socket()
        if buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(deadline)
        try:
            self.socket.connect(("127.0.0.1", port))
            self._file = self.socket.makefile("rb")
            self.socket.sendall(handshake(f"{path}?EIO=4&transport=websocket", f"127.0.0.1:{port}"))
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
        """Return the next packet after answering pings. Raises OSError if the connection ends or is silent."""
        while True:
            opcode, payload = read_frame(self._file)
            if opcode is None:
                raise ConnectionError("the connection ended")
            if opcode == CLOSE:
                raise ConnectionError("closed by the relay")
            if payload != b"2":
                return payload.decode()
            self.send("3")

    def until_answer(self, number=1):
        """Return the messages of the events before an acknowledgement, in order, and the acknowledgement."""
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
        """Return the messages of the next events."""
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
    """A client that stays registered for one id: it reconnects automatically, with the last id it saw as `since`.

    `messages` is everything that it received, in order; `answers` are the answers to its registrations.
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
                if not answer["ok"]:  # the store may be unavailable: send the register again on a new connection
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


class OfficialClient:
    """socket.io-client in Node; `lines` grows by an object for each thing that happens there.

    `script` is the program, with its own arguments after the URL.
    """

    def __init__(self, url, *arguments, script="official_client.js"):
        need(shutil.which("node"), "Node (apt-get install nodejs npm)")
        need((TESTS / "node_modules/socket.io-client").exists(), "socket.io-client (cd tests && npm install)")
        command = ["node", str(TESTS / script), url, *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=TESTS)
        self.lines = []
        threading.Thread(target=self._read, daemon=True).start()
        self.wait("registered")

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def of(self, kind):
        return [line for line in self.lines if kind in line]

    def wait(self, kind, count=1):
        wait_for(lambda: len(self.of(kind)) >= count, f"{kind} {count} times in {self.lines}")
        return self.of(kind)

    def close(self):
        self.process.kill()
        self.process.wait(DEADLINE)


class ServedClient:
    """A client of a server inside this process. The fixture `serve` returns it."""

    def __init__(self, server):
        self.server = server
        self.port = server.port
        self._open = contextlib.ExitStack()

    def request(self, method, path, body=None, headers=None):
        """Send one request on its own connection; return (status, headers, body)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def raw(self, data, shut=False):
        """Send bytes as they are, and return all bytes until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), DEADLINE) as sock:
            sock.sendall(data)
            if shut:
                sock.shutdown(socket.SHUT_WR)
            return read_all(sock)

    def connect(self):
        sock = socket.create_connection(("127.0.0.1", self.port), DEADLINE)
        self._open.callback(sock.close)
        return sock

    def websocket(self, path):
        client = WebSocketClient(self.port, path)
        self._open.callback(client.close)
        return client

    def close(self):
        self._open.close()
