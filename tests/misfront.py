"""A small web server in front of a relay, with faults that a test chooses."""

import contextlib
import re
import socket
import threading


class Request:
    """A request that came. Faults may change it, and `to`, the port to which it is passed on."""

    def __init__(self, head, body, port):
        line, *fields = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = line.split(" ", 2)
        self.headers = [tuple(field.split(": ", 1)) for field in fields if field]
        self.body = body
        self.to = port
        self.forwards = True
        self.edit = None  # a function that changes the bytes of the answer
        self.upgrades = "upgrade" in (name.lower() for name, _ in self.headers)
        self.is_socket = "/socket.io/" in self.target

    def set(self, name, value=None):
        """Set a header, or remove it."""
        self.headers = [each for each in self.headers if each[0].lower() != name.lower()]
        if value is not None:
            self.headers.append((name, value))

    def encoded(self):
        path = re.sub("^/relay/", "/", self.target)
        head = "".join(f"{name}: {value}\r\n" for name, value in self.headers)
        return f"{self.method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + self.body


def answer(status, body="", headers=(), server="Shop/1.0", kind="text/html"):
    lines = [f"HTTP/1.1 {status}", f"Server: {server}", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    lines += [*headers, "Connection: close", "", body]
    return "\r\n".join(lines).encode()


def page(status, title):
    return answer(status, f"<html><title>{title}</title></html>")


class Misfront:
    """Passes the relay's two paths on. `fault(request)` returns the bytes of a response, b"" to hang up, or None."""

    def __init__(self, port):
        self.to = port
        self.fault = lambda request: None
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=50)
        self.port = self._listener.getsockname()[1]
        self._open = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with client, contextlib.suppress(OSError, ValueError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (data := client.recv(65536)):
                    return
                head += data
            head, _, body = head.partition(b"\r\n\r\n")
            size = int((re.search(rb"(?i)content-length: (\d+)", head) or (0, 0))[1])
            while len(body) < size:
                body += client.recv(65536)
            request = Request(head, body, self.to)
            said = self.fault(request)
            if said is None and not re.match(r"/relay/(socket\.io/|static/relay\.js$)", request.target):
                said = page("404 Not Found", "A shop")
            if said is not None:
                client.sendall(said)
                return
            if request.forwards:
                request.set("X-Forwarded-For", "192.0.2.7")
            self._pass_on(client, request)

    def _pass_on(self, client, request):
        with socket.create_connection(("127.0.0.1", request.to)) as upstream:
            self._open.append(upstream)
            upstream.sendall(request.encoded())
            if request.edit is not None:
                came = b""
                while data := upstream.recv(65536):
                    came += data
                client.sendall(request.edit(came))
                return
            threading.Thread(target=_copy, args=(client, upstream), daemon=True).start()
            _copy(upstream, client)

    def close(self):
        self._listener.close()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def _copy(source, sink):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)
