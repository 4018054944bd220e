"""The limit on TCP connections."""

from ipaddress import ip_network

from pushrelay.server.limiter import ConnectionLimiter


def test_an_address_has_a_limit_of_its_own_unless_it_is_a_proxys():
    limiter = ConnectionLimiter(per_address=1, uncounted=[ip_network("192.0.2.0/28")])
    assert limiter.acquire(("198.51.100.1", 1)) == b""
    rejection = limiter.acquire(("198.51.100.1", 2))
    assert rejection.startswith(b"HTTP/1.1 503 ") and b"too_many_connections" in rejection
    assert b"Retry-After: " in rejection and b"max_per_address" in rejection
    assert limiter.acquire(("2001:db8::1", 1)) == b"" and limiter.acquire(("2001:db8::2", 1)) != b"", "one network"
    assert limiter.acquire(("192.0.2.1", 1)) == limiter.acquire(("192.0.2.1", 2)) == b""
    assert limiter.count == 4


def test_the_last_connections_are_reserved_for_this_machine_and_its_proxies():
    limiter = ConnectionLimiter(connections=4, spare=4, lingering=2)
    refusals = [bool(limiter.acquire(("192.0.2.1", n))) for n in range(8)]
    assert refusals == [False] * 6 + [True] * 2
    assert [bool(limiter.acquire(("127.0.0.1", n))) for n in range(3)] == [False, False, True]
