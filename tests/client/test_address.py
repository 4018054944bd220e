"""The address of a relay is read from what people write."""

import pytest

from pushrelay.client.address import address_of


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"),
        ("https://example.com:443/relay", "https://example.com/relay/"),
        ("https://example.com/relay/static/relay.js", "https://example.com/relay/"),
        ("http://[::1]:8080/", "http://[::1]:8080/"),
        ("unix:/run/relay.sock", "unix:/run/relay.sock"),
    ],
)
def test_an_address_is_read_and_written_in_one_form(url, normal):
    assert address_of(url).url == normal


def test_the_host_header_leaves_out_the_default_port_of_the_scheme():
    assert [address_of(url).netloc for url in ("http://a:80/", "https://a:80/", "http://[::1]/")] == [
        "a",
        "a:80",
        "[::1]",
    ]


@pytest.mark.parametrize(
    "url", ["", "relay", "ftp://a/", "http://", "http://a:0/", "http://a:x/", "http://me@a/", "http://a b/", "unix:"]
)
def test_other_texts_are_refused_with_an_example_of_an_address(url):
    with pytest.raises(ValueError, match="https://example.com/relay/") as refused:
        address_of(url)
    assert repr(url) in str(refused.value)
