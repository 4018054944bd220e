"""Relays for the doctor, which reads the command line and the environment of a relay's process."""

import pytest
import starter


@pytest.fixture(scope="module", autouse=True)
def relays_are_programs():
    """Start each relay as a program of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(starter, "FORKS", False)
        yield


@pytest.fixture(scope="module")
def relay(relay_with):
    """One relay for the tests of a file that leave it as it is."""
    return relay_with()
