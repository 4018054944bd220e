"""The origins whose pages may connect."""

import pytest

from pushrelay.origins import Origins, is_same_host, read_origins

HERE = {"HTTP_HOST": "relay.example:8080"}


def allowed(listed, *origins):
    """Return which of these origins a setting allows."""
    setting = Origins(read_origins(listed.split()))
    return [origin for origin in origins if setting.allow(origin, HERE)]


def test_a_listed_origin_needs_its_scheme_and_its_port():
    origins = "https://a.example", "http://a.example", "https://a.example:8443", "https://b.a.example"
    assert allowed("https://a.example", *origins) == ["https://a.example"]
    assert allowed("https://a.example:8443", *origins) == ["https://a.example:8443"]


def test_a_star_stands_for_subdomains_and_not_for_the_domain():
    origins = "https://b.a.example", "https://c.b.a.example", "https://a.example", "https://ba.example"
    assert allowed("https://*.a.example", *origins) == ["https://b.a.example", "https://c.b.a.example"]


def test_same_host_compares_names_only():
    assert is_same_host("https://relay.example", HERE) and is_same_host("http://RELAY.example.:81", HERE)
    assert not any(
        is_same_host(each, HERE) for each in ("https://example", "null", "file://", "https://a@relay.example")
    )
    assert is_same_host("http://localhost", {"HTTP_HOST": "127.0.0.1:8080"})


def test_null_is_allowed_only_if_it_is_listed():
    assert allowed("https://a.example", "null") == [] and allowed("null", "null") == allowed("*", "null") == ["null"]


@pytest.mark.parametrize(
    ("listed", "advice"),
    [
        ("https://a.example/path", "https://a.example"),
        ("a.example", "https://a.example"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("* https://a.example", r"\* alone"),
        ("", "same-host"),
    ],
)
def test_a_wrong_origin_is_refused_with_what_to_write(listed, advice):
    with pytest.raises(ValueError, match=advice):
        read_origins(listed.split())
