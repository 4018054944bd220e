"""The file with the last hour outlives the process, and is ignored if it is not what the relay wrote."""

import os
import stat

import pytest

from pushrelay.status.kept import Before, Kept
from pushrelay.status.rings import LENGTH, Rings


def written(path, **step):
    kept, rings = Kept(str(path)), Rings()
    assert kept.open(rings) is None
    kept.write_all(rings)
    for _ in range(3):
        rings.add({"clients": 7, **step})
        kept.write_step(rings)
    kept.write_alive(rings, Before(1000.5, 7, False))
    kept.close()
    return rings


def test_the_next_process_continues_the_hour(tmp_path):
    rings, found = written(tmp_path / "hour", pushes=5), Rings()
    kept = Kept(str(tmp_path / "hour"))
    assert kept.open(found) == Before(1000.5, 7, False)
    assert (found.cells, found.next) == (rings.cells, rings.next)
    kept.close()
    assert stat.S_IMODE(os.stat(tmp_path / "hour").st_mode) == 0o600


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"",
        lambda data: b"RELAYHR0" + data[8:],
        lambda data: data[:16] + (LENGTH).to_bytes(4, "little") + data[20:],
        lambda data: bytes(len(data)),
        lambda data: data[:-400] + bytes(range(200)) * 2,
    ],
    ids=["short", "long", "empty", "other version", "no such row", "zeros", "garbage"],
)
def test_a_file_that_is_damaged_is_ignored_and_replaced(tmp_path, damage):
    path = tmp_path / "hour"
    written(path)
    path.write_bytes(damage(path.read_bytes()))
    rings, kept = Rings(), Kept(str(path))
    assert kept.open(rings) is None and rings.cells == Rings().cells
    kept.write_all(rings)
    kept.write_alive(rings, Before(1.0, 2, True))
    kept.close()
    assert Kept(str(path)).open(Rings()) == Before(1.0, 2, True)


def test_a_file_that_cannot_be_opened_changes_nothing(tmp_path):
    os.symlink(tmp_path / "elsewhere", tmp_path / "link")
    for path in (tmp_path / "link", tmp_path / "no folder" / "hour", tmp_path):
        kept, rings = Kept(str(path)), Rings()
        assert kept.open(rings) is None
        kept.write_all(rings)
        kept.write_alive(rings, Before(1.0, 0, True))
        kept.close()
    assert not (tmp_path / "elsewhere").exists()
