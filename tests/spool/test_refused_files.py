"""Files that were refused never hold up others, whatever their names are and whatever is in their way."""

import os

import pytest
from conftest import need

from pushrelay.spool import refused_files
from pushrelay.spool.refused_files import Stuck, count_refused


def test_the_oldest_refused_files_are_removed(path, folder, monkeypatch):
    monkeypatch.setattr(refused_files, "MOST_REFUSED", 3)
    for number in range(6):
        (path / f"{number}.json").touch()
        folder.refuse(f"{number}.json", "no push")
    assert sorted(os.listdir(path / "refused")) == [f"{n}.json{end}" for n in (3, 4, 5) for end in ("", ".reason")]


def test_a_name_that_leaves_no_room_for_a_reason_is_shortened(path, folder):
    name = "ß" * 120 + ".json"
    (path / name).write_text("x")
    kept = folder.refuse(name, "the reason")
    assert not folder.names() and len(os.fsencode(kept)) < 150
    assert (path / "refused" / kept).read_text() == "x"
    assert (path / "refused" / f"{kept}.reason").read_text() == "the reason\n"


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("second", [True, False])
def test_a_second_one_of_the_same_name_fits_too(path, folder, first, second):
    """Each is a folder with something in it, or a file."""
    for is_folder in (first, second):
        (path / "a.json").mkdir() if is_folder else (path / "a.json").touch()
        if is_folder:
            (path / "a.json" / "inside").touch()
        folder.refuse("a.json", "no push")
    assert not folder.names()
    assert count_refused(str(path)) == (2 if first or second else 1)


def test_what_may_not_be_moved_is_an_error_of_its_own(path, folder):
    need(os.geteuid() == 0, "the right to become another user")
    os.chown(path, 4711, 4711)
    (path / "a.json").mkdir(mode=0o755)
    os.seteuid(4711)
    try:
        with pytest.raises(Stuck):
            folder.refuse("a.json", "no push")
    finally:
        os.seteuid(0)
    assert folder.names() == ["a.json"] and not os.listdir(path / "refused")


def test_something_else_in_the_place_of_the_subfolder_is_an_error_of_its_own(path, folder):
    (path / "a.json").write_text("x")
    for rest in (None, b"[]"):
        (path / "refused").write_text("a note of the operator")
        with pytest.raises(Stuck, match="Not a directory"):
            folder.refuse("a.json", "no push", rest)
        (path / "refused").unlink()
    (path / "refused").symlink_to(path)
    with pytest.raises(Stuck):
        folder.refuse("a.json", "no push")
    with pytest.raises(FileNotFoundError):
        folder.refuse("b.json", "no push")
    assert folder.names() == ["a.json"]
