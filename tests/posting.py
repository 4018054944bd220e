"""Requests as programs send them, raw clients, and the parts of positions."""

import contextlib
import json
import threading

from clients import Wire
from conftest import DEADLINE


@contextlib.contextmanager
def wires():
    """Yield a function that connects raw clients, which end with the context: connect(relay.port)."""
    with contextlib.ExitStack() as opened:
        yield lambda port, **options: opened.enter_context(contextlib.closing(Wire(port, **options)))


def post(relay, value, kind="application/json", path="/push", **headers):
    """POST JSON, or text as it is. Return the status and the decoded answer."""
    body = value.encode() if isinstance(value, str) else json.dumps(value).encode()
    headers = {name.replace("_", "-"): text for name, text in headers.items()}
    status, _, answer = relay.request("POST", path, body, {"Content-Type": kind, **headers})
    return status, json.loads(answer)


def get(relay, path, **headers):
    """GET a path. Return the status and the decoded answer."""
    status, _, answer = relay.request("GET", path, None, {n.replace("_", "-"): text for n, text in headers.items()})
    return status, json.loads(answer)


def pushed(relay, destination, count, **fields):
    """Push 0, 1, 2 and so on. Return their ids."""
    return [relay.push(destination, number, **fields)["id"] for number in range(count)]


def epoch_of(position):
    """Return the epoch of a position."""
    return position.rpartition(":")[0]


def later(position, by=1):
    """Return the position that comes `by` publications later."""
    epoch, _, offset = position.rpartition(":")
    return f"{epoch}:{int(offset) + by}"


def in_thread(function, *args):
    """Run a function in its own thread. Return a function that waits for the result."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function(*args)), daemon=True)
    thread.start()

    def result():
        thread.join(DEADLINE)
        assert results, "it did not return"
        return results[0]

    return result
