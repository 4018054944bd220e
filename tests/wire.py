"""Clients that show every byte, for tests of the server and the engine inside this process."""

import contextlib
import http.client
import json
import os
import socket

from conftest import DEADLINE

from pushrelay import websocket as ws

HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def masked(opcode, payload, final=True, mask=b"\x12\x34\x56\x78"):
    """A client's frame."""
    if len(payload) < 126:
        length = bytes([0x80 | len(payload)])
    elif len(payload) < 65536:
        length = b"\xfe" + len(payload).to_bytes(2, "big")
    else:
        length = b"\xff" + len(payload).to_bytes(8, "big")
    return bytes([(0x80 if final else 0) | opcode]) + length + mask + ws.unmask(payload, mask)


class WebSocketClient:
    """A WebSocket that does nothing by itself."""

    def __init__(self, port, path):
        self.sock = socket.create_connection(("127.0.0.1", port), DEADLINE)
        self.sock.sendall(HANDSHAKE.format(path=path).encode())
        self.file = self.sock.makefile("rb")
        self.status = self.file.readline().decode().strip()
        self.headers = [line for line in iter(self.file.readline, b"\r\n")]

    def send(self, data):
        opcode = ws.TEXT if isinstance(data, str) else ws.BINARY
        self.sock.sendall(masked(opcode, data.encode() if isinstance(data, str) else data))

    def frame(self):
        """The next frame: (opcode, payload); (None, b"") where the connection has ended."""
        try:
            head = self.file.read(2)
        except ConnectionResetError:
            head = b""
        if len(head) < 2:
            return None, b""
        length = head[1]
        if length > 125:
            length = int.from_bytes(self.file.read({126: 2, 127: 8}[length]), "big")
        return head[0] & 0x0F, self.file.read(length)

    def receive(self):
        """The next message but pings; None where the WebSocket was closed."""
        while True:
            opcode, payload = self.frame()
            if opcode == ws.TEXT and payload != b"2":
                return payload.decode()
            if opcode == ws.BINARY:
                return payload
            if opcode in (None, ws.CLOSE):
                return None

    def close(self):
        self.file.close()
        self.sock.close()


class Client:
    """Speaks to one server."""

    def __init__(self, server):
        self.server = server
        self.port = server.port
        self._open = contextlib.ExitStack()

    def request(self, method, path, body=None, headers=None):
        """One request on a connection of its own: (status, headers, body)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def raw(self, data, shut=False):
        """Send bytes as they are and read until the server closes."""
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


def read_all(sock):
    pieces = []
    while piece := sock.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def error_of(body):
    return json.loads(body)["error"]


def open_fds():
    return len(os.listdir("/proc/self/fd"))
