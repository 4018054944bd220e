"""The spool's folder: what is a file that waits, what is not read, and who may take files."""

import os
import stat
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT, need, wait_for

from pushrelay.errors import StoreInUse
from pushrelay.spool import folder as spool_folder
from pushrelay.spool.folder import LOCK, Folder, FolderTrouble, Unusable

NAME = "1795700568692246-7-aa-4.json"
HOLDER = """
import os, sys, time
from pushrelay.spool.folder import Folder

folder = Folder(sys.argv[1])
if len(sys.argv) > 2:
    os.setgid(4712)
    os.setuid(4711)
try:
    folder.hold(0)
    print("held", flush=True)
    time.sleep(99)
except Exception as error:
    print(error)
"""


def test_names_sort_in_the_order_in_which_the_files_were_made(path, folder):
    for name in ("3.json", "1.json", "2.json", ".4.json", ".5.json.tmp", "6.txt", "refused"):
        (path / name).write_text("x")
    assert folder.names() == ["1.json", "2.json", "3.json"]
    assert folder.waiting == 3


def test_a_listing_never_has_a_file_without_those_that_were_complete_before_it_was_begun(path, folder):
    """A folder with many files is read in pieces. A file that is added then may be missing, and a later one there."""
    ends = threading.Event()
    for number in range(1500):
        (path / f"{number:08}.json").touch()

    def write():
        number = 1500
        while not ends.is_set() and number < 1900:
            (path / ".tmp").touch()
            os.rename(path / ".tmp", path / f"{number:08}.json")
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while writer.is_alive():
            names = folder.names()
            assert int(names[-1][:8]) == len(names) - 1
    finally:
        ends.set()
        writer.join()


def test_the_first_names_are_returned_if_there_are_very_many(path, folder, monkeypatch):
    monkeypatch.setattr(spool_folder, "MOST_NAMES", 3)
    for number in range(9, 0, -1):
        (path / f"{number}.json").touch()
    assert folder.names() == ["1.json", "2.json", "3.json"] and folder.waiting == 9


def make_symlink(path):
    (path.parent / "secret").write_text("{}")
    path.symlink_to(path.parent / "secret")


def make_hard_link(path):
    (path.parent / "secret").write_text("{}")
    os.link(path.parent / "secret", path)


def make_stranger(path):
    need(os.geteuid() == 0, "the right to give files away")
    path.write_text("{}")
    os.chown(path, 4711, 4711)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (make_symlink, "not a plain file"),
        (os.mkfifo, "not a plain file"),
        (os.mkdir, "not a plain file"),
        (make_hard_link, "second name"),
        (lambda path: path.write_bytes(b"x" * 101), "it has 101 bytes, and at most 100 are allowed (setting max_body)"),
        (make_stranger, "belongs to user 4711"),
    ],
)
def test_what_is_no_file_of_a_program_that_may_push_is_not_read_and_can_be_refused(path, folder, make, words):
    make(path / NAME)
    with pytest.raises(Unusable) as refused:
        folder.read(NAME, 100)
    assert words in str(refused.value)
    folder.refuse(NAME, str(refused.value))
    assert os.path.lexists(path / "refused" / NAME) and not folder.names()
    assert words in (path / "refused" / f"{NAME}.reason").read_text()


def test_a_file_of_a_name_that_could_confuse_is_refused(path, folder):
    name = "a\nb.json"
    (path / name).write_text("{}")
    with pytest.raises(Unusable, match="its name must have letters"):
        folder.read(name, 100)
    folder.refuse(name, "…")
    assert not folder.names()


def test_files_of_the_folders_group_are_read_if_the_group_may_write_to_it(path, folder):
    need(os.geteuid() == 0, "the right to give files away")
    path.chmod(0o2770)
    os.chown(path, 4711, 4712)
    (path / NAME).write_text("{}")
    os.chown(path / NAME, 4713, 4712)
    assert folder.read(NAME, 100).body == b"{}"


def test_what_dead_programs_left_is_removed_after_an_hour(path, folder):
    for name in (".old.json.tmp", ".new.json.tmp", "waits.json", ".lock"):
        (path / name).touch()
    for name in (".old.json.tmp", "waits.json"):
        os.utime(path / name, (0, time.time() - 3700))
    assert folder.clean() == 1 and folder.clean() == 0
    assert sorted(os.listdir(path)) == [".lock", ".new.json.tmp", "waits.json"]


def test_one_relay_at_a_time_holds_a_folder_and_a_killed_one_lets_go(path):
    other = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], cwd=ROOT, stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"held\n"
    folder = Folder(str(path))
    with pytest.raises(StoreInUse, match="another relay takes the files in .*: stop it, or give each relay its own"):
        folder.hold(0)
    assert not folder.is_held
    other.kill()
    other.wait()
    other.stdout.close()
    folder.hold(5)
    assert folder.is_held and stat.S_IMODE(os.stat(path / LOCK).st_mode) == 0o644
    folder.release()


def test_a_process_that_looks_at_the_lock_for_a_moment_does_not_keep_a_relay_off(path):
    import fcntl

    with open(path / LOCK, "w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        timer = threading.Timer(0.05, lambda: fcntl.flock(file, fcntl.LOCK_UN))
        timer.start()
        folder = Folder(str(path))
        folder.hold(5)
        folder.release()
        timer.join()


def test_a_folder_keeps_its_id_and_a_copy_has_another_one(path, folder):
    first = folder.id
    folder.release()
    folder.hold(0)
    assert folder.id == first
    copy = path.parent / "copy"
    copy.mkdir(mode=0o700)
    (copy / LOCK).write_text((path / LOCK).read_text())
    other = Folder(str(copy))
    other.hold(0)
    assert other.id != first
    other.release()


def open_to_all(path):
    path.chmod(0o1777)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.rmdir(), "there is no folder .*: create it .*:  install -d -m 2770 -o PHP_USER -g"),
        (lambda path: (path.rmdir(), path.write_text("")), "is not a folder: name one in the setting spool"),
        (open_to_all, "every user of this machine may write to .*, and so could push: run:  chmod o-w"),
        (lambda path: (path / LOCK).mkdir(), "cannot be opened by user .*: remove that file"),
        (lambda path: os.mkfifo(path / LOCK), "is not a plain file: remove it"),
    ],
)
def test_a_folder_that_cannot_be_used_is_an_error_with_what_to_do(path, spoil, words):
    spoil(path)
    with pytest.raises(FolderTrouble, match=words):
        Folder(str(path)).hold(0)


def test_a_folder_of_another_user_is_an_error_that_names_both(path):
    need(os.geteuid() == 0, "the right to become another user")
    path.parent.chmod(0o711)

    def trouble():
        command = [sys.executable, "-c", HOLDER, path.name, "as another"]  # pytest's own folders are closed to others
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=path.parent, capture_output=True, text=True, env=environ).stdout

    for mode in (0o700, 0o750):
        path.chmod(mode)
        assert f"user 4711, as whom the relay runs, may not read and write {path.name}: run:  chgrp 4712" in trouble()
    os.chown(path, 4710, 4712)
    path.chmod(0o3770)
    assert "the sticky bit of" in trouble()


def test_a_relay_that_runs_as_another_user_than_before_takes_over_its_files(path):
    """systemd may give a service with DynamicUser another user at its next start."""
    need(os.geteuid() == 0, "the right to become another user")
    path.parent.chmod(0o711)
    path.chmod(0o2770)
    os.chown(path, 4713, 4712)  # PHP's user, and a group that both relays have
    folder = Folder(str(path))
    folder.hold(0)
    (path / NAME).touch()
    folder.refuse(NAME, "it is empty")
    folder.release()
    assert stat.S_IMODE((path / "refused").stat().st_mode) == 0o2770
    assert stat.S_IMODE((path / "refused" / f"{NAME}.reason").stat().st_mode) == 0o660
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLDER, path.name, "as another"]
    other = subprocess.Popen(command, cwd=path.parent, stdout=subprocess.PIPE, env=environ)
    assert other.stdout.readline() == b"held\n"
    with pytest.raises(StoreInUse):
        folder.hold(0)
    other.kill()
    other.wait()
    other.stdout.close()
    (path / LOCK).write_text("no id")
    assert (
        "cannot be written by user 4711"
        in subprocess.run(command, cwd=path.parent, capture_output=True, text=True, env=environ).stdout
    )


def test_a_folder_that_is_read_only_for_the_relay_is_an_error_with_what_to_do(disk):
    disk.chmod(0o700)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(FolderTrouble, match=f"is read-only for the relay: add ReadWritePaths={disk} to its service"):
        Folder(str(disk)).hold(0)


@pytest.mark.parametrize("replace", ["folder", "lock"])
def test_a_folder_that_was_replaced_is_noticed(path, folder, replace):
    folder.check()
    if replace == "folder":
        path.rename(path.parent / "old")
        path.mkdir(mode=0o700)
    else:
        (path / LOCK).unlink()
    with pytest.raises(FolderTrouble, match="was removed or replaced"):
        folder.check()
    folder.release()
    folder.hold(0)
    folder.check()


def test_files_are_not_kept_open(path, folder):
    before = len(os.listdir("/proc/self/fd"))
    make_symlink(path / NAME)
    (path / "b.json").write_text("{}")
    for _ in range(3):
        with pytest.raises(Unusable):
            folder.read(NAME, 100)
        folder.read("b.json", 100)
        with pytest.raises(FileNotFoundError):
            folder.read("c.json", 100)
    folder.refuse(NAME, "…")
    wait_for(lambda: len(os.listdir("/proc/self/fd")) <= before, "closed files")
