"""Fixtures for tests of the settings."""

import pytest

from pushrelay.settings import load


@pytest.fixture
def ini(tmp_path):
    """Read a file with this text, or these bytes, as --config does: ini("[relay]\\nport = 1")."""

    def read(text, environ=None):
        file = tmp_path / "my.ini"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load(environ or {}, {"config": str(file)})

    return read
