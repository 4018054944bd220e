"""A web server for one request, whose answer is given as bytes."""

import contextlib
import re
import socket
import threading
import time
from urllib.parse import urlsplit

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Word: yes\r\n\r\n"


@contextlib.contextmanager
def answering(*pieces, pause=0.0, hold=False):
    """A server that reads one request and sends these pieces; yields its URL and what it read."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as kept:
        received = []

        def serve():
            sock, _ = listener.accept()
            received.append(_request(sock))
            with contextlib.suppress(OSError):
                for piece in pieces:
                    sock.sendall(piece)
                    time.sleep(pause)
            if hold:
                kept.callback(sock.close)
            else:
                sock.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield urlsplit(f"http://127.0.0.1:{listener.getsockname()[1]}/ask?a=1"), received
        thread.join(10)


def _request(sock):
    """Read a request and its whole body: if a server closes with some of it unread, its client gets a reset."""
    request = b""
    while piece := sock.recv(65536):
        request += piece
        head, end, body = request.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if end and len(body) >= (int(length[1]) if length else 0):
            break
    return request
