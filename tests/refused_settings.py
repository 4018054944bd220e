"""Settings that are refused, and the sentence with which they are."""

import re

import pytest

from pushrelay.settings import SettingsError

SECRET = "af779e2c5b1d4038a6f0e2d4c8b19357"
KEY = "2bd806c97f0e00af1a1fc332"


def refusal(read, *given):
    """Return the sentence with which read(*given) refuses settings. It never contains the secret."""
    with pytest.raises(SettingsError) as refused:
        read(*given)
    said = str(refused.value)
    assert SECRET[:16] not in said and KEY not in said and "\n" not in said
    assert not re.search(r"Error|File contains|<string>|nan|e\+", said), said
    return said
