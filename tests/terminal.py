"""Runs of `python relay.py push`, `listen` and `token`, and a proxy without WebSockets."""

import contextlib
import json
import os
import socket
import sys
import threading

import starter
from conftest import DEADLINE, ROOT, clean_environ, wait_for


def run(*arguments, text=None, env=None):
    command = [sys.executable, str(ROOT / "relay.py"), *map(str, arguments)]
    environ = {**clean_environ(), **(env or {})}
    ran = starter.run(command, environ, text=text, seconds=DEADLINE)
    assert "Traceback" not in ran.stderr, ran.stderr
    return ran


class Listening:
    """`python relay.py listen` in its own process."""

    def __init__(self, folder, *arguments):
        self._out, self._err = folder / "printed", folder / "said"
        command = [sys.executable, str(ROOT / "relay.py"), "listen", *map(str, arguments)]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = starter.of_this_process().start(command[1:], out, clean_environ(), os.getcwd(), err)
        self.until("online")

    def until(self, word, times=1):
        """Wait until this word is in its standard error output `times` times."""
        wait_for(lambda: self.said().count(word) >= times or self.process.poll() is not None, f"{word}: {self.said()}")
        assert word in self.said(), self.said()

    def said(self):
        return self._err.read_text()

    def lines(self, count):
        """Wait until it has printed `count` lines, and return all lines."""
        wait_for(lambda: self._out.read_text().count("\n") >= count, f"line {count}")
        return self._out.read_text().splitlines()

    def pushes(self, count):
        return [json.loads(line) for line in self.lines(count)]


class Upgradeless:
    """A proxy without WebSockets: it changes the word Upgrade in the requests that it forwards."""

    def __init__(self, port):
        self._port = port
        self._server = socket.create_server(("127.0.0.1", 0))

    def __enter__(self):
        threading.Thread(target=self._run, daemon=True).start()
        return self._server.getsockname()[1]

    def __exit__(self, *_):
        self._server.close()

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                threading.Thread(target=self._pass_on, args=(near, far, b"Upgrade"), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(far, near, b"\0"), daemon=True).start()

    def _pass_on(self, source, target, word):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data.replace(word, b"X-" + word[2:]))
            target.shutdown(socket.SHUT_WR)
