"""The report at the start: what is open to whom, and which settings are risky."""

import os

import pytest

from pushrelay.access.exposure import on_command_line, open_to, warnings
from pushrelay.settings import load

WEB, SHOP = "the-key-of-the-website", "the-key-of-the-web-shop"
KEYS = f"web:{WEB}, shop:{SHOP}"
LONG = "k7fG2-pQ9_rT4wXz8LmN6vBc3hJd5sYa"


def settings_of(**settings):
    return load({"RELAY_CONFIG": os.devnull}, settings)


def said(**settings):
    lines = open_to(settings_of(**settings))
    assert len(lines) == 5
    return "\n".join(lines)


def test_a_spool_is_a_way_to_push():
    (line,) = [line for line in open_to(settings_of(spool="/var/spool/relay")) if "by file" in line]
    assert line == "push by file      users of this machine who may write to /var/spool/relay (setting spool)"
    assert "by file" not in said()


def test_the_five_lines_are_true_of_every_setting():
    usual = said()
    assert "not through a proxy" in usual and "key" not in usual and "nobody (setting socket_push)" in usual
    assert "any id" in usual and "own, on any port" in usual and "127.0.0.1: this machine" in usual
    keyed = said(push_keys=KEYS, push_rate="7")
    assert "web, shop, 7 a second" in keyed and WEB not in keyed and SHOP not in keyed
    assert "10.0.0.0/8, ::1" in said(trusted_proxies="10.0.0.0/8, ::1")
    assert "any page" in said(socket_push="yes", secret="x" * 40)
    token = said(secret="x" * 40)
    assert "pages whose token says to which" in token and "any id" not in token and "xxx" not in token
    assert "PHPSESSID" in said(id_cookie="PHPSESSID")
    asked = said(auth_url="http://127.0.0.1/ids.php?key=hidden", secret="x" * 40)
    assert "http://127.0.0.1/ids.php" in asked and "hidden" not in asked
    assert "pages whose token or answer of auth_url says to which" in asked
    assert "pages of https://a.example" in said(origins="https://a.example")
    assert "own, on any port; pages of https://a.example" in said(origins="same-host, https://a.example")
    assert "any website" in said(origins="*")
    assert "for everybody" in said(demo="yes") and "demo page is for this machine" in usual
    assert "other machines" in said(host="0.0.0.0") and "not push" in said(host="::")
    assert "push with a key" in said(host="0.0.0.0", push_keys=KEYS)
    assert "this file" in said(host="unix:/run/relay.sock")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"host": "0.0.0.0"}, ["register any id", "set secret, id_cookie or auth_url"]),
        ({"host": "0.0.0.0", "socket_push": "yes", "secret": LONG}, ["socket_push"]),
        ({"secret": "x" * 31}, ["31 bytes", "7518"]),
        ({"secret": "x" * 40 + ", " + "y" * 8}, ["8 bytes"]),
        ({"push_keys": "long:" + "x" * 20 + ", web:" + "y" * 19}, ["make web in push_keys"]),
        ({"origins": "*"}, ["origins = *"]),
        ({"trusted_proxies": "127.0.0.1"}, ["register any id", "set secret, id_cookie or auth_url"]),
        ({"trusted_proxies": "0.0.0.0/1, 128.0.0.0/1", "secret": LONG}, ["trusted_proxies"]),
        ({"trusted_proxies": "::/0", "secret": LONG}, ["trusted_proxies"]),
        ({"auth_url": "http://php.example/ids"}, ["auth_url", "https://"]),
        ({"request_url": "http://php.example/ask", "webhook_secret": LONG}, ["set request_url", "https://"]),
        ({"webhook_secret": "x" * 31}, ["a webhook_secret of 31 bytes"]),
    ],
)
def test_a_risky_setting_is_reported_with_what_to_do(settings, words):
    (line,) = warnings(settings_of(**settings))
    assert line.startswith("warning: ") and all(word in line for word in words)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"host": "unix:/run/relay.sock", "socket_push": "yes"},
        {"host": "0.0.0.0", "id_cookie": "PHPSESSID", "push_keys": KEYS, "trusted_proxies": "10.0.0.0/8"},
        {"host": "0.0.0.0", "auth_url": "http://127.0.0.1/ids"},
        {"host": "::", "secret": "äöüß€ÄÖÜéèêñõçåø", "auth_url": "https://php.example/ids"},
    ],
)
def test_nobody_is_warned_for_nothing(settings):
    assert warnings(settings_of(**settings)) == []


def test_a_password_in_a_url_on_the_command_line_is_warned_of():
    url = f"http://staging:{LONG}@127.0.0.1/ids.php"
    flags = {"auth_url": url, "webhook_url": f"http://127.0.0.1/a ids=a@b, {url}", "port": "80"}
    (line,) = on_command_line(load({"RELAY_CONFIG": os.devnull, "RELAY_WEBHOOK_SECRET": LONG}, flags))
    assert "--auth-url and --webhook-url in" in line and LONG not in line
    for harmless in ({"auth_url": "http://127.0.0.1/ids.php"}, {"webhook_url": "http://127.0.0.1/a ids=a@b"}, {}):
        environ = {"RELAY_CONFIG": os.devnull, "RELAY_SECRET": LONG, "RELAY_WEBHOOK_SECRET": LONG}
        assert on_command_line(load(environ, harmless)) == []


def test_open_registration_is_warned_of_if_any_setting_shows_that_visitors_come_from_elsewhere():
    for given in (
        {"base_path": "/relay"},
        {"origins": "same-host, https://www.example.com"},
        {"trusted_proxies": "127.0.0.1"},
        {"host": "0.0.0.0"},
    ):
        (line,) = warnings(load({"RELAY_CONFIG": os.devnull}, given))
        assert "register any id" in line and "set secret, id_cookie or auth_url" in line
        assert warnings(load({"RELAY_CONFIG": os.devnull}, {**given, "secret": LONG})) == []
    assert warnings(load({"RELAY_CONFIG": os.devnull}, {"origins": "same-host, http://localhost:8000"})) == []
