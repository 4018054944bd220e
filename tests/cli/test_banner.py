"""The relay prints an address that works, and how to try it."""

import pytest

from pushrelay.cli.banner import banner
from pushrelay.settings import load


@pytest.mark.parametrize(
    ("host", "settings", "expected"),
    [
        ("127.0.0.1", {}, ["Open http://127.0.0.1:81/?id=demo", "ssh -L 81:127.0.0.1:81 "]),
        ("0.0.0.0", {}, ["Open http://127.0.0.1:81/?id=demo", "ssh -L 81:127.0.0.1:81 "]),
        ("::", {"base_path": "/r"}, ["Open http://[::1]:81/r/?id=demo", "ssh -L 81:[::1]:81 "]),
        ("0.0.0.0", {"demo": "yes"}, ["Open http://127.0.0.1:81/?id=demo", "On another machine: http://"]),
        ("127.0.0.1", {"id_cookie": "PHPSESSID"}, ["Open http://127.0.0.1:81/?id=me", "destination=SESSION-ID"]),
        ("192.0.2.7", {}, ["Set demo = yes", "http://192.0.2.7:81/?id=demo", "set push_keys", "Bearer KEY"]),
        ("unix:/run/relay.sock", {}, ["curl --unix-socket /run/relay.sock ", "need a web server in front"]),
    ],
)
def test_the_start_prints_an_address_that_works(host, settings, expected):
    printed = banner(load({}, {"host": host, "broker": "memory:", **settings}), 81)
    assert all(each in printed for each in (*expected, "Ctrl+C")), printed
