"""A network between the relay and its clients that tests switch off and on."""

import contextlib
import socket
import threading
import time


class Network:
    """A TCP proxy that can go dead: nothing passes, nothing is closed, and new connections get no answer.

    If `resume` is true, the connections from before go on when the network comes back, with the bytes that were under
    way, as TCP does after a short failure. If not, they stay dead, as behind a router that has forgotten them.
    """

    def __init__(self, port):
        self._port = port
        self._dead = threading.Event()
        self._lock = threading.Lock()
        self._epoch = 0  # the number of times that connections were forgotten
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._sockets = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                upstream = socket.create_connection(("127.0.0.1", self._port))
                self._sockets += [client, upstream]
                for pair in ((client, upstream), (upstream, client)):
                    threading.Thread(target=self._pass, args=(*pair, self._epoch), daemon=True).start()

    def _pass(self, source, sink, epoch):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                while self._dead.is_set():
                    time.sleep(0.01)
                if epoch != self._epoch:
                    return  # forgotten: neither end is ever informed
                sink.sendall(data)
            while self._dead.is_set():
                time.sleep(0.01)
            if epoch == self._epoch:
                sink.shutdown(socket.SHUT_WR)

    def drop(self):
        self._dead.set()

    def come_back(self, resume):
        if not resume:
            self._epoch += 1
        self._dead.clear()

    def close(self):
        self._epoch += 1
        self._dead.clear()
        self._listener.close()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
