"""Pages of the relay's own host and of the listed origins may connect, and no others."""

import contextlib

import pytest
from clients import WebSocketClient

from pushrelay.access.callers import Access
from pushrelay.cli.exposure import warnings
from pushrelay.settings import SettingsError, load

AT = "/socket.io/?EIO=4&transport="


def settings_of(**flags):
    return load(environ={}, flags=flags)


def allows(origin, origins="same-host", host="relay.example"):
    return Access(settings_of(origins=origins)).origin_allowed(origin, {"HTTP_HOST": host})


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


def test_what_a_page_of_any_website_can_claim_is_not_allowed_by_another_name():
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


def test_over_the_wire_too_a_websockets_own_address_is_no_foreign_page(relay):
    for scheme in ("ws", "wss", "http"):
        path = f"{AT}websocket HTTP/1.1\r\nOrigin: {scheme}://test:{relay.port}\r\nX-Rest:"
        with contextlib.closing(WebSocketClient(relay.port, path)) as client:
            assert " 101 " in client.status, scheme
            assert client.receive().startswith("0{")
            client.send("40")
            assert client.receive().startswith("40"), scheme
