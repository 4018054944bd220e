"""A folder of a spool, which this process holds."""

import pytest

from pushrelay.spool.folder import Folder


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "spool"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def folder(path):
    folder = Folder(str(path))
    folder.hold(0)
    yield folder
    folder.release()
