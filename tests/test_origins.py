"""Pages of the relay's own host and of the listed origins may connect, and no others."""

import contextlib

import pytest
from clients import WebSocketClient

from pushrelay.access.callers import Access
from pushrelay.access.exposure import warnings
from pushrelay.settings import SettingsError, load

AT = "/socket.io/?EIO=4&transport="


def settings_of(**flags):
    return load(environ={}, flags=flags)


def allows(origin, origins="same-host", host="relay.example"):
    return Access(settings_of(origins=origins)).origin_allowed(origin, {"HTTP_HOST": host})


LISTED = "https://example.com, https://*.shop.example, http://plain.example:8000, http://[::1]:81"
EXTENSION = "chrome-extension://abcdefghijklmnopabcdefghijklmnop"


@pytest.mark.parametrize("scheme", ["ws", "wss", "WSS", "http", "https"])
def test_a_client_whose_origin_is_the_relays_own_websocket_address_connects(scheme):
    assert allows(f"{scheme}://relay.example") and allows(f"{scheme}://Relay.Example:21000")
    assert not allows(f"{scheme}://evil.example") and not allows(f"{scheme}://relay.example@evil.example")
    assert allows(f"{scheme}://127.0.0.1:21000", host="localhost:21000")


def test_a_listed_origin_may_have_websockets_scheme_on_either_side():
    for listed in ("https://example.com", "wss://example.com", "https://example.com:443/", "WSS://EXAMPLE.com"):
        assert allows("wss://example.com", listed) and allows("https://example.com:443", listed)
        assert not allows("ws://example.com", listed) and not allows("wss://example.com:444", listed)
    assert allows("wss://a.example.com", "https://*.example.com")
    assert allows("ws://example.com:80", "http://example.com") and not allows(
        "ws://example.com:443", "http://example.com"
    )


@pytest.mark.parametrize(
    "origin",
    [
        "capacitor://localhost",
        "ionic://localhost",
        "tauri://localhost",
        "http://tauri.localhost",
        EXTENSION,
        "moz-extension://5f2c9ad4-9c5e-4f0e-8a55-2f6f2c0f6a11",
        "app://obsidian.md",
        "app://-",
        "app://.",
        "file://",
        "vscode-webview://1a2b3c:8",
        "null",
    ],
)
def test_a_page_of_an_app_or_an_extension_connects_if_its_origin_is_listed(origin):
    assert allows(origin, f"same-host, {origin}") and allows(origin.upper() if "://" in origin else origin, origin)
    if origin not in ("null", "file://"):
        assert allows(origin, f"{origin}/")
    assert not allows(origin) and not allows(origin, "https://example.com")
    assert not allows(f"{origin}.evil.example", origin) and not allows("https://localhost", origin)
    assert not allows("capacitor://evil", origin)


def test_a_scheme_whose_hosts_are_made_up_is_listed_as_a_whole():
    assert allows("moz-extension://5f2c9ad4-9c5e-4f0e-8a55-2f6f2c0f6a11", "moz-extension://*")
    assert allows("vscode-webview://1a2b3c", "same-host, vscode-webview://*")
    assert not allows(EXTENSION, "moz-extension://*") and not allows("moz-extension://*", "moz-extension://*")


def test_an_origin_that_any_website_can_claim_is_not_allowed_by_another_name():
    for listed in ("file://", "capacitor://localhost", "https://example.com", "moz-extension://*"):
        assert not allows("null", listed) and not allows("*", listed)
    for cookies in ({"id_cookie": "PHPSESSID"}, {"auth_url": "http://127.0.0.1/ids.php"}):
        with pytest.raises(SettingsError, match="cannot be together"):
            settings_of(origins="same-host, null", **cookies)
        assert settings_of(origins="same-host, capacitor://localhost, file://", **cookies)
    assert any("null" in line for line in warnings(settings_of(origins="null")))


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("https://example.com/app", "https://example.com"),
        ("example.com", "https://example.com"),
        ("*.example.com", "https://*.example.com"),
        ("example.com:8080", "https://example.com:8080"),
        ("https://m\xfcnchen.example", "https://xn--mnchen-3ya.example"),
        ("https://user@example.com", "or * alone"),
        ("https://example.com:99999", "or * alone"),
        ("https://*", "or * alone"),
        ("capacitor:localhost", "or * alone"),
    ],
)
def test_an_origin_that_is_written_wrong_stops_the_start_with_the_right_one(written, right):
    with pytest.raises(SettingsError) as stopped:
        settings_of(origins=f"same-host, {written}")
    assert right in str(stopped.value) and "origins" in str(stopped.value)


def test_a_websocket_clients_own_address_is_not_a_foreign_origin_on_the_wire_either(relay):
    for scheme in ("ws", "wss", "http"):
        path = f"{AT}websocket HTTP/1.1\r\nOrigin: {scheme}://test:{relay.port}\r\nX-Rest:"
        with contextlib.closing(WebSocketClient(relay.port, path)) as client:
            assert " 101 " in client.status, scheme
            assert client.receive().startswith("0{")
            client.send("40")
            assert client.receive().startswith("40"), scheme


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://example.com", True),
        ("https://example.com:443", True),
        ("HTTPS://Example.COM", True),
        ("https://example.com.", True),
        ("http://plain.example:8000", True),
        ("https://a.shop.example", True),
        ("https://a.b.shop.example:443", True),
        ("http://[::1]:81", True),
        ("http://[0:0::1]:81", True),
        (None, True),
        ("http://example.com", False),
        ("https://example.com:8443", False),
        ("https://example.com:44300000", False),
        ("https://example.com:", False),
        ("https://shop.example", False),
        ("https://a.shop.example:8443", False),
        ("http://a.shop.example", False),
        ("https://evil-shop.example", False),
        ("https://.shop.example", False),
        ("https://*.shop.example", False),
        ("https://a.shop.example.evil.example", False),
        ("https://example.com.evil.example", False),
        ("https://example.com@evil.example", False),
        ("https://user@example.com", False),
        ("https://user:x@example.com", False),
        ("https://example.com/", False),
        ("https://example.com..", False),
        ("https://example.com\\.evil.example", False),
        ("https://example.com evil", False),
        ("https://example.com,https://evil.example", False),
        ("https://ex\xe4mple.com", False),
        ("https://xn--exmple-cua.com", False),
        ("https://\uff45xample.com", False),
        ("https://evil.example#.shop.example", False),
        ("http://plain.example", False),
        ("http://relay.example", False),
        ("file://", False),
        ("null", False),
        ("", False),
        ("*", False),
    ],
)
def test_listed_origins_are_those_and_no_others(origin, allowed):
    assert allows(origin, LISTED) == allowed


def test_the_kinds_of_origins_do_what_they_say():
    assert allows("http://relay.example:81", "same-host") and not allows("https://example.com", "same-host")
    assert allows("http://relay.example:81", "same-host, " + LISTED) and allows(
        "https://example.com", "same-host, " + LISTED
    )
    assert not allows("null", "same-host, " + LISTED)
    assert all(allows(origin, "*") for origin in ("null", "https://anything.example", None))
    with pytest.raises(SettingsError, match="origins"):
        settings_of(origins="https://ex\xe4mple.com")


@pytest.mark.parametrize(
    "origins",
    [
        "*, https://a.example",
        "https://a.example *",
        "same-host, *",
        "*,*",
        "* *",
        "http://*",
        "https://*",
        "**",
        "*:80",
    ],
)
def test_a_star_among_other_origins_is_refused(origins):
    """It would allow all websites, and bypass the check below, which looks for a star alone."""
    with pytest.raises(SettingsError, match="or \\* alone"):
        settings_of(origins=origins)


@pytest.mark.parametrize("setting", [{"id_cookie": "PHPSESSID"}, {"auth_url": "http://127.0.0.1/ids.php"}])
def test_all_websites_may_not_connect_if_cookies_identify_visitors(setting):
    (name,) = setting
    for origins in ("*", " * ", "*,"):
        with pytest.raises(SettingsError, match=rf"{name} cannot be together"):
            settings_of(origins=origins, **setting)
    assert settings_of(origins="https://a.example", **setting).origins == ("https://a.example",)
    assert settings_of(**setting) and settings_of(origins="*")
