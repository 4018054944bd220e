"""A storm of connections, in its own process: python storm.py PORT COUNT.

It opens as many as it can at a time. Every other one sends a handshake, the rest send nothing or half a request.
Prints one JSON object: the numbers of WebSockets accepted, refused with 503 and Retry-After, and that
had no answer.
"""

import collections
import contextlib
import json
import resource
import select
import socket
import sys

from clients import UPGRADE


def main(port, count):
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, soft))
    poll, waiting, kept = select.poll(), {}, []
    seen = collections.Counter()
    for number in range(count):
        sock = socket.create_connection(("127.0.0.1", port), 20)
        if number % 2:
            with contextlib.suppress(ConnectionError):
                sock.sendall(UPGRADE)
            waiting[sock.fileno()] = sock
            poll.register(sock)
            poll.modify(sock, select.POLLIN)
        elif number % 4:
            sock.sendall(b"GET / HT")
            kept.append(sock)
        else:
            sock.close()
    while waiting:
        for fd, _ in poll.poll(20_000) or sys.exit("nobody answers"):
            poll.unregister(fd)
            sock = waiting.pop(fd)
            kept.append(sock)
            answer = b""
            with contextlib.suppress(ConnectionError):
                answer = sock.recv(65536)
            if answer.startswith(b"HTTP/1.1 101 "):
                seen["let in"] += 1
            elif answer.startswith(b"HTTP/1.1 503 ") and b"\r\nRetry-After: " in answer:
                seen["refused"] += 1
            else:
                seen["nothing"] += 1
    print(json.dumps(seen))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
