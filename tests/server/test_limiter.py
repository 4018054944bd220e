"""The limit on TCP connections."""

import contextlib
from ipaddress import ip_network
from types import SimpleNamespace

from conftest import wait_for

from pushrelay.server.limiter import ConnectionLimiter


def acquire(limiter, peer):
    return limiter.acquire(peer, limiter.counted_address(peer))


def test_an_address_has_a_limit_of_its_own_unless_it_is_a_proxys():
    limiter = ConnectionLimiter(per_address=1, uncounted=[ip_network("192.0.2.0/28")])
    assert acquire(limiter, ("198.51.100.1", 1)) == b""
    rejection = acquire(limiter, ("198.51.100.1", 2))
    assert rejection.startswith(b"HTTP/1.1 503 ") and b"too_many_connections" in rejection
    assert b"Retry-After: " in rejection and b"max_per_address" in rejection
    assert acquire(limiter, ("2001:db8::1", 1)) == b"" and acquire(limiter, ("2001:db8::2", 1)) != b"", "one network"
    assert acquire(limiter, ("192.0.2.1", 1)) == acquire(limiter, ("192.0.2.1", 2)) == b""
    assert limiter.count == 4


def test_the_last_connections_are_reserved_for_this_machine_and_its_proxies():
    limiter = ConnectionLimiter(connections=4, spare=4, lingering=2)
    refusals = [bool(acquire(limiter, ("192.0.2.1", n))) for n in range(8)]
    assert refusals == [False] * 6 + [True] * 2
    assert [bool(acquire(limiter, ("127.0.0.1", n))) for n in range(3)] == [False, False, True]


def test_a_connection_releases_the_slot_that_it_took_though_the_proxies_have_changed():
    limiter, peer, proxies = ConnectionLimiter(per_address=1), ("192.0.2.1", 1), [ip_network("192.0.2.0/28")]
    for uncounted in (proxies, [], proxies):
        taken = SimpleNamespace(counted_as=limiter.counted_address(peer))
        assert limiter.acquire(peer, taken.counted_as) == b""
        limiter.reload(1, uncounted)
        limiter.release(taken)
    limiter.reload(1, [])
    assert limiter.count == 0 and acquire(limiter, peer) == b"" and acquire(limiter, peer) != b""


def test_a_rejected_connection_releases_its_slot(serve):
    limiter = ConnectionLimiter(connections=1, spare=0, lingering=2)
    client = serve(lambda environ, start_response: [], limiter=limiter)
    taken = client.connect()
    wait_for(lambda: limiter.count == 1, "the slot to be used")
    for _ in range(5):  # more than may linger at a time
        refused = client.connect()
        with contextlib.suppress(ConnectionError):
            assert b" 503 " in refused.recv(1000)
        refused.close()
        wait_for(lambda: limiter._lingering.used == 0, "the slot of a rejected connection")
    taken.close()
