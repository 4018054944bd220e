"""IP addresses and host names."""

import pytest

from pushrelay.addresses import counted, hops_of, ip_of, is_loopback, is_upstream, names_this_machine


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("192.0.2.01", "None"),
        ("example.com", "None"),
        ("", "None"),
        ("fe80::1%" + "x" * 100, "None"),
    ],
)
def test_an_address_is_read_without_its_zone(text, expected):
    assert str(ip_of(text)) == expected


def test_only_names_of_this_machine_are_loopback():
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1")))
    assert not any(map(is_loopback, ("localhost.example.com", "192.0.2.1", "0.0.0.0", "")))


def test_ipv6_addresses_count_by_their_network_and_this_machines_not_at_all():
    assert counted("2001:db8::1") == counted("2001:db8::ffff") == "2001:db8::/64"
    assert counted("192.0.2.1") == "192.0.2.1"
    assert counted("127.0.0.1") is counted("::1") is counted("not an address") is None


def test_a_foreign_name_never_means_this_machine():
    assert all(map(names_this_machine, ("localhost:8080", "127.0.0.1", "[::1]:8080", "a.localhost", "192.0.2.1", "")))
    assert not any(map(names_this_machine, ("evil.example", "localhost.evil.example:8080", "127.0.0.1.evil.example")))
    assert not any(map(names_this_machine, ("a b", "localhost:x", "[::1", "evil.example.")))


def test_a_name_without_dots_may_be_a_proxys_name_for_the_relay():
    assert all(map(is_upstream, ("relay", "relay:8080", "127.0.0.1:8080", "[::1]:8080")))
    assert not is_upstream("example.com")


def test_hops_are_read_from_the_last_to_the_first_that_is_unreadable():
    assert [str(ip) for ip in hops_of("192.0.2.1, 198.51.100.2:443, [2001:db8::1]:80")] == [
        "2001:db8::1",
        "198.51.100.2",
        "192.0.2.1",
    ]
    assert [str(ip) for ip in hops_of("192.0.2.1, unknown, 198.51.100.2")] == ["198.51.100.2", "None"]
