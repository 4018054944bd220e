"""Addresses of a Redis: what they mean, what is refused, and that no password is ever shown."""

import os

import pytest
from refused_settings import refusal

from pushrelay.settings import load
from pushrelay.settings.redis_url import MOST_SENTINELS, SCHEMES, redis_url
from pushrelay.settings.values import without_password

PASSWORD = "7gqT-zLw2_xRb9Vn1"


def fields(text):
    return {name: value for name, value in vars(redis_url(text)).items() if value and name != "scheme"}


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("redis://redis", {"addresses": (("redis", 6379),)}),
        ("redis://10.0.0.7:6380/3", {"addresses": (("10.0.0.7", 6380),), "db": 3}),
        ("redis://[::1]:7/", {"addresses": (("::1", 7),)}),
        ("redis://:p%40%2F%3a%25@h", {"addresses": (("h", 6379),), "password": "p@/:%"}),
        ("redis://relay:%C3%BC@h", {"addresses": (("h", 6379),), "user": "relay", "password": "ü"}),
        ("rediss://h/1?ca=/etc/ca.pem", {"addresses": (("h", 6379),), "db": 1, "ca": "/etc/ca.pem"}),
        ("rediss://h?cert=c.pem&key=k.pem", {"addresses": (("h", 6379),), "cert": "c.pem", "key": "k.pem"}),
        ("unix:///run/redis.sock", {"path": "/run/redis.sock"}),
        ("unix://u:p@/run/a%20b?db=2", {"path": "/run/a b", "db": 2, "user": "u", "password": "p"}),
        (
            "redis+sentinel://u:p@a,[::1]:7/my.master-1/2?sentinel_user=s&sentinel_password=t%26",
            {
                "addresses": (("a", 26379), ("::1", 7)),
                "name": "my.master-1",
                "db": 2,
                "user": "u",
                "password": "p",
                "sentinel_user": "s",
                "sentinel_password": "t&",
            },
        ),
        ("rediss+sentinel://a/m?ca=ca.pem", {"addresses": (("a", 26379),), "name": "m", "ca": "ca.pem"}),
    ],
)
def test_each_part_of_an_address_has_its_meaning(text, means):
    assert fields(text) == means
    assert load({"RELAY_CONFIG": os.devnull, "RELAY_BROKER": text}).broker == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("redis:h", "two slashes"),
        ("redis://", "HOST or HOST:PORT"),
        ("redis://h:0", "the port is a number"),
        ("redis://h:65536", "the port is a number"),
        ("redis://h:x", "HOST or HOST:PORT"),
        ("redis://::1", "in brackets"),
        ("redis://a..b", "a host name or an IP"),
        ("redis://a,b", "one host"),
        ("redis://h/x", "the database is a number"),
        ("redis://h/-1", "the database is a number"),
        ("redis://h/65536", "the database is a number"),
        ("redis://h/0/1", "nothing follows"),
        ("redis://h?db=1", "no options"),
        ("redis://ü", "ASCII"),
        ("redis://p@h", ":PASSWORD@"),
        ("redis://u:@h", ":PASSWORD@"),
        ("redis://u:%zz@h", "%25 for %"),
        ("redis://u:%FF@h", "UTF-8"),
        ("rediss://h?ssl_cert_reqs=none", "known options are ca, cert, key"),
        ("rediss://h?ca=", "with a value"),
        ("rediss://h?ca=a&ca=b", "appears once"),
        ("rediss://h?key=k", "add cert=FILE"),
        ("unix:/run/redis.sock", "two slashes"),
        ("unix://run/redis.sock", "three slashes"),
        ("unix:///run/", "three slashes"),
        (f"unix:///{'x' * 107}", "at most 107 bytes"),
        ("unix:///run/redis.sock/0?db=x", "the database is a number"),
        ("redis+sentinel://a", "name that the Sentinels use"),
        ("redis+sentinel://a//0", "name that the Sentinels use"),
        ("redis+sentinel://a,a:26379/m", "each Sentinel appears once"),
        ("redis+sentinel://a/m?sentinel_user=x", "needs sentinel_password"),
        (f"redis+sentinel://{','.join(f's{n}' for n in range(MOST_SENTINELS + 1))}/m", f"at most {MOST_SENTINELS}"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused_with_what_to_write(text, words):
    said = refusal(load, {"RELAY_CONFIG": os.devnull, "RELAY_BROKER": text})
    assert words in said and "broker must be an address such as" in said


@pytest.mark.parametrize("letter", "@/:?#%")
def test_a_password_with_a_character_that_was_not_encoded_is_refused_and_not_shown(letter):
    password = f"7gqT{letter}zLw2_xRb9Vn1"
    for text in (f"redis://relay:{password}@h/0", f"rediss://:{password}@h", f"redis+sentinel://:{password}@h/m"):
        said = refusal(load, {"RELAY_CONFIG": os.devnull, "RELAY_BROKER": text})
        assert "%40 for @" in said and "7gqT" not in said and "zLw2" not in said


@pytest.mark.parametrize(
    "text",
    [
        "redis://relay:{}@h:0",
        "redis:{}@h",
        "redis:relay:{}@h",
        "redis//relay:{}@h",
        "redsi://relay:{}@h",
        "redis://:{}",
        "redis://:{}/0",
        "redis+sentinel://a?sentinel_password={}",
        "redis+sentinel://a/m?sentinel_password={}&x=1",
        "rediss://h?passwd={}",
    ],
)
def test_no_error_shows_a_password(text):
    said = refusal(load, {"RELAY_CONFIG": os.devnull, "RELAY_BROKER": text.format(PASSWORD)})
    assert PASSWORD not in said
    assert PASSWORD not in without_password(text.format(PASSWORD))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://u:{}@h", "redis://h:6379/0"),
        ("rediss://:{}@[::1]/2?ca=/etc/ca.pem", "rediss://[::1]:6379/2"),
        ("unix://:{}@/run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
        ("redis+sentinel://u:{0}@a,b:1/m?sentinel_password={0}", "redis+sentinel://a:26379,b:1/m/0"),
    ],
)
def test_an_address_is_shown_without_its_passwords(text, shown):
    url = redis_url(text.format(PASSWORD))
    assert str(url) == shown and PASSWORD not in repr(url)
    assert redis_url(shown).addresses == url.addresses, "what is shown can be copied"


def test_each_scheme_has_an_example_that_it_accepts():
    for scheme in SCHEMES:
        with pytest.raises(ValueError) as refused:
            redis_url(f"{scheme}:")
        example = str(refused.value).split()[4].removesuffix(":")
        assert redis_url(example).scheme == scheme
