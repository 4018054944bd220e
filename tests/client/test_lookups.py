"""Lookups of host names end by a deadline, and a name server that does not answer holds one thread for each name."""

import socket
import threading
import time

import pytest

from pushrelay.client.lookups import LOOKUPS, Lookups


def soon():
    return time.monotonic() + 20


def test_a_name_is_looked_up():
    assert set(LOOKUPS.addresses("localhost", 80, soon())) & {"127.0.0.1", "::1"}


def test_an_address_is_not_looked_up():
    def fails(host, port):
        raise AssertionError

    assert Lookups(fails).addresses("::1", 80, soon()) == ["::1"]


def test_a_name_that_nobody_has_is_an_os_error():
    def fails(host, port):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(OSError, match="not known"):
        Lookups(fails).addresses("no-such-host.invalid", 80, soon())


def test_what_cannot_be_a_name_is_a_value_error():
    with pytest.raises(ValueError, match="too long"):
        LOOKUPS.addresses("a" * 64 + ".test", 80, soon())


def test_a_lookup_that_hangs_ends_at_the_deadline_and_holds_one_thread():
    end, calls = threading.Event(), []

    def hangs(host, port):
        calls.append(host)
        end.wait(20)
        return ["127.0.0.1"]

    lookups = Lookups(hangs)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            lookups.addresses("shop.test", 80, time.monotonic() + 0.01)
    assert calls == ["shop.test"]
    end.set()
    assert lookups.addresses("shop.test", 80, soon()) == ["127.0.0.1"]
