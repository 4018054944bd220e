"""Checks what holds threads of `tests/busy_relay.py`, and that a push is still answered: no clock decides that."""

import glob
import http.client
import pathlib

from conftest import DEADLINE, wait_for

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Gate:
    """The gate at which a relay's handlers hold their threads until it opens."""

    def __init__(self, relay):
        self._path = f"{relay.settings['broker'].partition(':')[2]}.gate"

    def held(self):
        """Return how many handlers have come to the gate so far."""
        return len(glob.glob(f"{self._path}-*"))

    def wait(self, count):
        """Wait until that many handlers have come."""
        wait_for(lambda: self.held() >= count, f"handlers at the gate, {count} of them", 2 * DEADLINE)

    def open(self):
        """Let all handlers go on, those at the gate and those to come."""
        pathlib.Path(self._path).touch()


def push_often(relay, times=20):
    """Push that often on one connection. It fails if an answer takes DEADLINE."""
    connection = http.client.HTTPConnection("127.0.0.1", relay.port, timeout=DEADLINE)
    for _ in range(times):
        connection.request("POST", "/push", "destination=other&data=x", FORM)
        answer = connection.getresponse()
        assert answer.status == 200 and answer.read()
    connection.close()
