"""A TCP proxy that misbehaves on command: it delays, stalls, cuts, swallows one direction, or refuses connections.

It has one thread, which alone touches the sockets. Any thread may give commands, which return once they are in force.
"""

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections import deque

CHUNK = 1 << 16
MOST_QUEUED = 1 << 20  # bytes in one direction before the proxy stops reading there
REFUSED = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST and not FIN
UP, DOWN = "up", "down"  # from the client to the server, and back


class _Passed(Exception):
    """As many bytes have passed as were allowed."""


class _Flow:
    """One direction of a connection."""

    def __init__(self, source, sink):
        self.source, self.sink = source, sink
        self.queue = deque()  # (when it may be sent, bytes); None instead of bytes is the end
        self.size = 0  # bytes in the queue
        self.is_swallowed = False  # everything from the source is dropped, its end included
        self.has_ended = False  # the source sends no more
        self.left = None  # bytes that still pass before the connection is cut; None: any number

    def put(self, when, data):
        self.queue.append((when, data))
        self.size += len(data or b"")

    def send(self, now):
        """Send what is due. Return the time of the next piece, or None if nothing waits for a time."""
        while self.queue:
            when, data = self.queue[0]
            if when > now:
                return when
            if data is None:
                self.queue.popleft()
                self.sink.shutdown(socket.SHUT_WR)
                continue
            if self.left == 0:
                raise _Passed
            try:
                sent = self.sink.send(data[: self.left])
            except BlockingIOError:
                return None
            self.size -= sent
            if self.left is not None:
                self.left -= sent
            if sent < len(data):
                self.queue[0] = (when, data[sent:])
            else:
                self.queue.popleft()
        return None


class _Pair:
    """A client's connection and the one to the server."""

    def __init__(self, client, server):
        self.client, self.server = client, server
        self.flows = {UP: _Flow(client, server), DOWN: _Flow(server, client)}

    def sockets(self):
        return (self.client, self.server)

    def has_ended(self):
        return all(flow.has_ended and not flow.queue for flow in self.flows.values())


class TcpProxy:
    """A proxy on a port of its own in front of `port` on 127.0.0.1. Commands:

    - `allow()`: everything passes again, except on connections that have lost bytes in a swallowed direction.
    - `delay(seconds)`: each piece of data is that much later.
    - `stall()`: nothing passes, nothing is closed; new connections are accepted and hang, too.
    - `cut(reset=…)`: end the connections, with RST or with FIN.
    - `cut_after(direction, count)`: end each connection when this number of further bytes has passed and more comes.
    - `half_open(direction)`: swallow what goes "up" to the server or "down" from it, without any FIN.
    - `refuse()`: new connections are refused.
    - `refuse_websocket()`: requests that ask for WebSocket are answered with 400, as by a proxy that does not know it.
    - `serve(path, html)`: the proxy itself answers GET requests for this path, also after `allow()`.

    `cut`, `cut_after` and `half_open` concern all open connections, or one of them chosen by `one_of`, a random.Random.
    """

    def __init__(self, port):
        self.target = port
        # It is never listened on. It keeps the port while the listener is closed.
        self._reserved = self._bound(0)
        self.port = self._reserved.getsockname()[1]
        self._listener = None
        self._pairs = []
        self._seconds = 0.0  # the delay
        self._is_stalled = False
        self._refuses_websocket = False
        self._pages = {}  # the first bytes of a request: the response that the proxy itself gives
        self._commands = deque()
        self._waker, self._wakened = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wakened, selectors.EVENT_READ)
        self._has_ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.allow()

    # Commands.

    def allow(self):
        self._do(self._allow)

    def delay(self, seconds):
        self._do(lambda: setattr(self, "_seconds", seconds))

    def stall(self):
        self._do(lambda: setattr(self, "_is_stalled", True))

    def cut(self, reset=False, one_of=None):
        self._do(lambda: [self._close(pair, reset) for pair in self._chosen(one_of)])

    def cut_after(self, direction, count, one_of=None):
        def count_down():
            for pair in self._chosen(one_of):
                pair.flows[direction].left = count

        self._do(count_down)

    def half_open(self, direction, one_of=None):
        def swallow():
            for pair in self._chosen(one_of):
                pair.flows[direction].is_swallowed = True

        self._do(swallow)

    def refuse(self):
        self._do(self._stop_listening)

    def refuse_websocket(self):
        self._do(lambda: setattr(self, "_refuses_websocket", True))

    def serve(self, path, html):
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(html.encode())}\r\n"
        self._pages[f"GET {path} ".encode()] = f"{head}Connection: close\r\n\r\n{html}".encode()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def connections(self):
        """Return the number of open connections."""
        return len(self._pairs)

    def close(self):
        self._do(self._end)
        self._thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _do(self, command):
        """Let the thread run a command, and wait for it."""
        if self._has_ended:
            return
        done = threading.Event()
        self._commands.append((command, done))
        with contextlib.suppress(OSError):  # other traffic has woken the thread, and the command was to end
            self._waker.send(b"x")
        done.wait()

    # The thread.

    def _run(self):
        wait = None
        while not self._has_ended:
            for key, events in self._selector.select(wait):
                if key.fileobj is self._wakened:
                    self._wakened.recv(CHUNK)
                elif key.fileobj is self._listener:
                    self._accept()
                elif key.data in self._pairs:
                    self._read(key.fileobj, key.data, events)
            while self._commands:
                command, done = self._commands.popleft()
                command()
                done.set()
            wait = self._pump()

    def _bound(self, port):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", port))
        return sock

    def _allow(self):
        self._seconds, self._is_stalled, self._refuses_websocket = 0.0, False, False
        if self._listener is None:
            self._listener = self._bound(self.port)
            self._listener.listen(100)
            self._listener.setblocking(False)
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _stop_listening(self):
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self):
        with contextlib.suppress(BlockingIOError):
            client, _ = self._listener.accept()
            server = socket.socket()
            server.setblocking(False)
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.setblocking(False)
            server.connect_ex(("127.0.0.1", self.target))
            pair = _Pair(client, server)
            self._pairs.append(pair)
            self._selector.register(client, selectors.EVENT_READ, pair)
            self._selector.register(server, selectors.EVENT_READ | selectors.EVENT_WRITE, pair)

    def _read(self, sock, pair, events):
        """Take what a socket has, if it may be read. (Writing is _pump's.)"""
        flow = pair.flows[UP if sock is pair.client else DOWN]
        if not events & selectors.EVENT_READ or flow.has_ended:
            return
        try:
            data = sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:  # refused, or reset
            if not flow.is_swallowed:
                self._close(pair, reset=True)
                return
            data = b""
        if answer := sock is pair.client and self._own_answer(data):
            with contextlib.suppress(OSError):  # the client has gone
                sock.send(answer)
            self._close(pair, reset=False)
            return
        flow.has_ended = not data
        if not flow.is_swallowed:
            flow.put(time.monotonic() + self._seconds if self._seconds else 0.0, data or None)

    def _own_answer(self, data):
        """Return the response to a request that is not passed on. On loopback its head arrives as one piece."""
        if self._refuses_websocket and b"\r\nupgrade: websocket\r\n" in data.lower():
            return REFUSED
        return next((page for start, page in self._pages.items() if data.startswith(start)), None)

    def _pump(self):
        """Send what may be sent. Return the seconds until there is more, None if only sockets decide."""
        now, next_time = time.monotonic(), None
        for pair in list(self._pairs):
            try:
                for flow in pair.flows.values():
                    when = None if self._is_stalled else flow.send(now)
                    if when is not None:
                        next_time = min(when, next_time or when)
            except (OSError, _Passed) as error:
                self._close(pair, reset=isinstance(error, OSError))
                continue
            if pair.has_ended():
                self._close(pair, reset=False)
            else:
                self._watch(pair, now)
        return None if next_time is None else max(next_time - now, 0.001)

    def _watch(self, pair, now):
        """Let the selector report what can go on."""
        for sock, incoming, outgoing in (
            (pair.client, pair.flows[UP], pair.flows[DOWN]),
            (pair.server, pair.flows[DOWN], pair.flows[UP]),
        ):
            reads = not (self._is_stalled or incoming.has_ended or incoming.size > MOST_QUEUED)
            writes = not self._is_stalled and outgoing.queue and outgoing.queue[0][0] <= now
            events = selectors.EVENT_READ * reads | selectors.EVENT_WRITE * bool(writes)
            registered = self._selector.get_map().get(sock)
            if not events:
                if registered:
                    self._selector.unregister(sock)
            elif not registered:
                self._selector.register(sock, events, pair)
            elif registered.events != events:
                self._selector.modify(sock, events, pair)

    def _chosen(self, one_of):
        pairs = list(self._pairs)
        return pairs if one_of is None or not pairs else [one_of.choice(pairs)]

    def _close(self, pair, reset):
        if pair not in self._pairs:
            return
        self._pairs.remove(pair)
        for sock in pair.sockets():
            if self._selector.get_map().get(sock):
                self._selector.unregister(sock)
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            sock.close()

    def _end(self):
        self._has_ended = True
        self._stop_listening()
        for pair in list(self._pairs):
            self._close(pair, reset=False)
        for each in (self._reserved, self._waker, self._wakened):
            each.close()
        self._selector.close()
