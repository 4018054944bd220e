"""Thousands of clients that come back at once, in a process of their own: python returning_crowd.py PORT COUNT EPOCH.

Client n registers `client-n` with since = EPOCH:0. Prints one JSON object when all have their answer: the seconds that
it took, and the numbers of recovered clients, of publications, and of clients that received them out of order.
"""

import json
import re
import select
import socket
import sys
import time

from clients import UPGRADE, frame

SEEN = re.compile(rb'"id":"[0-9a-f]+:(\d+)","destination":"client-(\d+)"')


class Returning:
    """A client that sends its handshake and its registration at once. It is small, because there are thousands."""

    __slots__ = ("answer", "buffer", "number", "offsets", "socket")

    def __init__(self, port, number, since, request):
        self.number, self.offsets, self.answer, self.buffer = number, [], None, b""
        register = f'421["register",{{"id":"client-{number}","since":"{since}"}}]'
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(request + frame("40") + frame(register))
        self.socket.setblocking(False)

    def read(self):
        """Read, and return whether the answer to the registration has arrived."""
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return False
        assert data, f"the relay closed client {self.number}: {self.buffer[-200:]!r}"
        self.buffer += data
        head, found, _ = self.buffer.partition(b"431[")
        if not found or not self.buffer.endswith(b"}]"):
            return False
        self.offsets = [int(offset) for offset, number in SEEN.findall(head) if int(number) == self.number]
        self.answer = b'"recovered":true' in self.buffer
        self.buffer = b""
        return True


def main(port, count, epoch):
    epoll, request, clients = select.epoll(), UPGRADE, {}
    start, open_now, answered = time.monotonic(), 0, []
    while len(answered) < count:
        assert time.monotonic() - start < 120, f"{len(answered)} of {count} answered after 120 s"
        for _ in range(min(50, count - open_now)):
            client = Returning(port, open_now, f"{epoch}:0", request)
            clients[client.socket.fileno()] = client
            epoll.register(client.socket, select.EPOLLIN)
            open_now += 1
        for fd, _ in epoll.poll(0 if open_now < count else 1):
            if clients[fd].answer is None and clients[fd].read():
                answered.append(time.monotonic() - start)
    all_ = clients.values()
    first = list(range(1, 21))
    return {
        "seconds": answered[-1],
        "recovered": sum(client.answer for client in all_),
        "replayed": sum(len(client.offsets) for client in all_),
        "wrong": sum(client.offsets[:20] != first for client in all_),
    }


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))
