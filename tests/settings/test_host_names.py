"""Host names and IP addresses in settings."""

import pytest

from pushrelay.settings.host_names import is_host, is_host_or_ip, is_ip


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
