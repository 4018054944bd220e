"""A command finds the relay's address, a key and a token in the settings."""

import time

import jwt
import pytest

from pushrelay.cli.connecting import dialer_of, key_header, signed
from pushrelay.settings import SettingsError, load

SECRET = "k7fG2-pQ9_rT4wXz8LmN6vBc3hJd5sYa"


@pytest.mark.parametrize("key", ["a\r\nX: y", "ключ"])
def test_a_key_that_no_header_can_carry_is_refused(key):
    with pytest.raises(SettingsError, match="--key has a character"):
        key_header(load({}, {}), key)


def test_the_address_is_that_of_the_settings_or_the_given_one():
    assert dialer_of(load({}, {"port": "81", "base_path": "/r"})).address.url == "http://127.0.0.1:81/r/"
    assert dialer_of(load({}, {"host": "unix:/run/a.sock", "base_path": "/r"})).address.path == "/r/"
    assert dialer_of(load({}, {}), "https://example.com/relay").address.url == "https://example.com/relay/"
    with pytest.raises(SettingsError, match="port = 0.*--url"):
        dialer_of(load({}, {"port": "0"}))


def test_a_token_is_signed_with_the_first_secret_and_ends():
    settings = load({}, {"secret": f"{SECRET}, {SECRET[::-1]}"})
    claims = jwt.decode(signed(settings, ["42"], 60, push=["news"]), SECRET, algorithms=["HS256"])
    assert (claims["ids"], claims["push"]) == (["42"], ["news"]) and 0 < claims["exp"] - time.time() <= 61
