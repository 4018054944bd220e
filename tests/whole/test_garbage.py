"""Refusals leave nothing to the garbage collector, which runs so rarely that memory would grow in between."""

import contextlib
import gc
import time

import pytest

import relay as relay_app
from pushrelay.errors import StoreError
from pushrelay.push.batching import Batcher
from pushrelay.rooms.packet import Packet
from pushrelay.server.known_headers import KnownHeaders
from pushrelay.server.request import Limits, Parser
from pushrelay.server.request_error import RequestError
from pushrelay.store.group_commit import GroupCommit
from pushrelay.store.local_broker import LocalBroker
from pushrelay.store.stripe import Pending


def garbage_of(action, seconds=10.0):
    """Return how many objects of an action only the garbage collector can free.

    An action that leaves cycles leaves them every time, so the smallest of several counts is right: the others include
    objects that fill a cache once, or that threads of earlier tests leave as they end.
    """
    end = time.monotonic() + seconds
    gc.disable()
    try:
        least = count_after(action)
        while least and time.monotonic() < end:
            least = min(least, count_after(action))
        return least
    finally:
        gc.enable()


def count_after(action):
    gc.collect()
    action()
    return gc.collect()


class Locked:
    """A broker whose store is never available."""

    def __init__(self):
        self._group_commit = GroupCommit(self._transact)

    def _transact(self, jobs):
        raise StoreError("another program holds a lock on it")

    def store(self, items):
        self._group_commit.run(lambda: items)

    store_soon = LocalBroker.store_soon


class Now:
    """A poller without other work."""

    polled = 0.0

    def call_afterwards(self, callback, *args):
        callback(*args)


def test_a_reference_cycle_is_counted():
    def leave_a_cycle():
        cycle = []
        cycle.append(cycle)

    assert garbage_of(leave_a_cycle, 0.1) > 0


def test_a_push_that_the_store_rejects_leaves_no_cycle():
    told, batcher, poller = [], Batcher(Locked()), Now()
    assert garbage_of(lambda: batcher.add([Pending("42", "x")], lambda error: told.append(str(error)), poller)) == 0
    assert set(told) == {"another program holds a lock on it"}


@pytest.mark.parametrize("packet", ['2["x",', '21["push", 7]'])
def test_an_event_that_is_refused_leaves_no_cycle(monkeypatch, packet):
    monkeypatch.setattr(relay_app.socketio.server, "get_environ", lambda sid: {})

    def handle():
        read = Packet(encoded_packet=packet)
        return read.refusal[0] if read.refusal else relay_app.on_push("sid", *read.data[1:])["error"]

    assert handle().startswith("invalid_")
    assert garbage_of(handle) == 0


@pytest.mark.parametrize("data", [b"\x00\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 9000 + b"\r\n\r\n"])
def test_a_request_that_is_rejected_leaves_no_cycle(data):
    def ask():
        parser = Parser({}, {}, Limits(max_header=2000), KnownHeaders())
        with contextlib.suppress(RequestError):
            parser.feed(data)
            pytest.fail("it was taken")
        parser.close()

    assert garbage_of(ask) == 0
