"""Host names and IP addresses in settings."""

import pytest

from pushrelay.settings.host_names import is_host, is_host_or_ip, is_ip, percent_decoded, split_address


@pytest.mark.parametrize(
    "text", ["localhost", "a.example.", "bücher.example", "my_host", "::1", "10.0.0.1", "fe80::1%lo"]
)
def test_names_and_addresses_that_can_be_looked_up_are_accepted(text):
    assert is_host_or_ip(text)


@pytest.mark.parametrize("text", ["", "a..b", "-x", "x:1", "a/b", "a b", "x" * 64 + ".example", "::g"])
def test_other_texts_are_not(text):
    assert not is_host_or_ip(text) and not is_ip(text)


def test_a_label_that_is_too_long_is_no_host():
    assert is_host("x" * 63) and not is_host("x" * 64)


def test_an_address_is_split_into_host_and_port():
    assert split_address("db", 3306) == ("db", 3306) and split_address("[::1]:7", 3306) == ("::1", 7)
    for text, message in (("::1", r"in brackets: \[::1\]:3306"), ("a..b", "host name"), ("a:0", "from 1 to 65535")):
        with pytest.raises(ValueError, match=message):
            split_address(text, 3306)


def test_percent_encoding_is_decoded_strictly():
    assert percent_decoded("a%40b%C3%A9") == "a@bé"
    for text, message in (("50%", "write %40 for @"), ("%FF", "UTF-8")):
        with pytest.raises(ValueError, match=message):
            percent_decoded(text)
