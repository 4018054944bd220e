"""A phone gets a QR code only if it can open the demo page, and the code has the address that works there."""

import re

import pytest
from conftest import own_only

from pushrelay.addresses import is_loopback, own_address
from pushrelay.pages.phone import options_for_phones, phone_url, qr_svg
from pushrelay.settings import load

SECRET = "the-first-secret-of-this-relay-0123456789"


def url(asked, id_="demo", environ=None, **settings):
    return phone_url(load({}, {"demo": "yes", **settings}), {"HTTP_HOST": asked, **(environ or {})}, id_)


def test_the_address_is_the_one_that_the_page_was_asked_with():
    assert url("192.168.1.5:8080") == "http://192.168.1.5:8080/?id=demo"
    assert url("[2001:db8::1]:8080", "a b&ü") == "http://[2001:db8::1]:8080/?id=a%20b%26%C3%BC"
    https = {"HTTP_X_FORWARDED_PROTO": "https"}
    assert url("shop.example", environ=https, base_path="/relay") == "https://shop.example/relay/?id=demo"


def test_a_page_that_is_open_on_the_relays_machine_shows_the_address_for_others():
    for host in ("localhost", "127.0.0.1"):
        found = url(f"{host}:8080", host="0.0.0.0")
        assert found == ("" if is_loopback(own_address()) else f"http://{own_address()}:8080/?id=demo")
        assert url(f"{host}:8080") == ""  # it listens on 127.0.0.1 only


@pytest.mark.parametrize(
    "settings", [{"demo": "no"}, {"secret": SECRET}, {"id_cookie": "SID"}, {"auth_url": "http://127.0.0.1/"}]
)
def test_there_is_no_code_for_a_phone_that_could_not_open_the_page_or_register(settings):
    assert url("192.168.1.5:8080", **settings) == ""


@pytest.mark.parametrize("host", ["", "evil.example/x?", "a b", "x" * 300, "[::1", "localhost:8080"])
def test_no_other_text_of_the_header_gets_into_the_address(host):
    assert url(host) == ""
    assert url("192.168.1.5", "x" * 257) == ""


def test_there_is_no_code_for_an_address_that_is_too_long_for_one():
    assert url("192.168.1.5", "x" * 256) and qr_svg(url("192.168.1.5", "\U0001f600" * 40))
    assert url("192.168.1.5", "\U0001f600" * 256) == ""


def test_the_page_names_the_options_that_are_missing():
    assert options_for_phones(load({}, {})) == "--host 0.0.0.0 --demo yes"
    assert options_for_phones(load({}, {"host": "0.0.0.0"})) == "--demo yes"
    assert options_for_phones(load({}, {"demo": "yes"})) == "--host 0.0.0.0 --demo yes"
    for host in ("unix:/run/relay.sock", "0.0.0.0"):
        assert options_for_phones(load({}, {"host": host, "demo": "yes"})) == ""


def test_the_code_is_a_picture_without_scripts_that_is_black_on_white():
    svg = qr_svg("http://192.168.1.5:8080/?id=demo").decode()
    assert re.match(r"<svg [^>]*viewBox", svg) and 'fill="#fff"' in svg and 'stroke="#000"' in svg
    assert "<script" not in svg and qr_svg("http://192.168.1.5:8080/?id=other").decode() != svg


@own_only
def test_the_relay_serves_the_code_to_those_who_may_see_the_page(start_relay):
    relay = start_relay(demo="yes")
    status, headers, body = relay.request("GET", "/qr.svg?id=x", headers={"Host": "192.168.1.5:8080"})
    assert (status, headers["Content-Type"], headers["Cache-Control"]) == (200, "image/svg+xml", "no-store")
    assert body == qr_svg("http://192.168.1.5:8080/?id=x")
    assert relay.request("GET", "/qr.svg?id=x")[0] == 404  # 127.0.0.1
    relay.stop()
    del relay.settings["demo"]
    relay.start()
    assert relay.request("GET", "/qr.svg?id=x", headers={"Host": "shop.example"})[0] == 403
