"""A backup is complete or not there, and a restored store never claims to have what it does not have."""

import contextlib
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile

import pytest
from conftest import DEADLINE, ROOT, need
from stores import data, push, recover

from pushrelay.errors import StoreError, StoreInUse
from pushrelay.store import Draft
from pushrelay.store.backups import backup, restore
from pushrelay.store.publication import Mark


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "relay.db")


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "backups"
    folder.mkdir()
    return str(folder / "monday.db")


@pytest.fixture
def backed_up(path, target, open_at):
    """A closed store with one publication more than its backup; the position of that one."""
    broker = open_at(path)
    push(broker, *range(50))
    backup(path, target)
    after = push(broker, "after")[0].position
    broker.close()
    return after


def names(folder):
    return sorted(os.listdir(folder))


def test_a_backup_is_for_its_owner_alone_whatever_the_umask_is(path, target, open_at):
    push(open_at(path), "private")
    before = os.umask(0)
    try:
        assert backup(path, target).publications == 1
    finally:
        os.umask(before)
    assert os.stat(target).st_mode & 0o777 == 0o600
    assert names(os.path.dirname(target)) == ["monday.db"]


def test_a_backup_replaces_a_file_only_if_it_may(path, target, open_at):
    broker = open_at(path)
    with open(target, "w") as file:
        file.write("precious")
    with pytest.raises(StoreError, match="--overwrite"):
        backup(path, target)
    with open(target) as file:
        assert file.read() == "precious"
    push(broker, "new")
    assert backup(path, target, overwrite=True).publications == 1
    assert names(os.path.dirname(target)) == ["monday.db"]


def test_a_backup_never_replaces_the_store(path, open_at, tmp_path):
    broker = open_at(path)
    os.symlink(path, tmp_path / "link.db")
    os.link(path, tmp_path / "hard.db")
    for name in (path, tmp_path / "link.db", tmp_path / "hard.db"):
        with pytest.raises(StoreError, match="the store itself"):
            backup(path, str(name), overwrite=True)
    push(broker, "kept")
    assert data(broker) == ["kept"]


def test_a_place_that_cannot_be_written_is_a_sentence(path, target, open_at):
    open_at(path)
    with pytest.raises(StoreError, match="this is a folder"):
        backup(path, os.path.dirname(target))
    with pytest.raises(StoreError, match="there is no folder"):
        backup(path, f"{target}/no/where.db")
    with pytest.raises(StoreError, match="choose a folder that this user can write to"):
        backup(path, f"{path}/backup.db")


def test_a_full_disk_is_a_sentence_and_leaves_nothing_behind(path, open_at, disk):
    broker = open_at(path)
    for number in range(60):
        push(broker, f"{number}" + "x" * 50_000)
    with pytest.raises(StoreError, match="the disk is full"):
        backup(path, str(disk / "backup.db"))
    assert names(disk) == []
    push(broker, "the relay does not mind")


def test_a_backup_that_a_signal_ends_anywhere_leaves_nothing_behind_or_is_complete(path, target, open_at):
    """Python runs a signal's handler between any two calls, and SIGTERM's raises SystemExit."""
    push(open_at(path), "kept")

    def ended_after(count):
        """Make a backup that ends when `count` functions have been called or have returned; return whether it did."""
        left = [count]

        def step(*_):
            left[0] -= 1
            if not left[0]:
                raise SystemExit(143)  # and Python calls this no more

        try:
            sys.setprofile(step)
            backup(path, target)
            left[0] = 0
        except SystemExit:
            return True
        finally:
            sys.setprofile(None)
        return False

    count, found = 1, []
    while ended_after(count):
        found += [name for name in names(os.path.dirname(target)) if name not in found]
        assert found in ([], ["monday.db"]), (count, found)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target)
        count += 1
    assert found == ["monday.db"] and count > 200


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from pushrelay.errors import StoreError
from pushrelay.store.backups import backup
try:
    backup(sys.argv[1], sys.argv[2])
except StoreError as error:
    print(error)
"""


def test_a_limit_on_the_size_of_files_is_a_sentence_and_leaves_nothing_behind(path, target, open_at):
    push(open_at(path), *("x" * 50_000 for _ in range(10)))
    command = [sys.executable, "-c", LIMITED, path, target]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE)
    assert "limit on file sizes" in ran.stdout, ran
    assert names(os.path.dirname(target)) == []


AS_NOBODY = """
import os, sys
from pushrelay.errors import StoreError
from pushrelay.store.backups import backup
os.seteuid(65534)
try:
    backup(sys.argv[1], sys.argv[2])
except StoreError as error:
    print(error)
"""


def test_another_user_is_asked_to_be_the_relays(tmp_path):
    need(os.geteuid() == 0, "root")
    (tmp_path / "relay.db").touch(mode=0o600)
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, 65534, 65534)
        command = [sys.executable, "-c", AS_NOBODY, str(tmp_path / "relay.db"), f"{folder}/backup.db"]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE)
        assert "run this as the relay's user, or as root" in ran.stdout, ran
        assert names(folder) == []


def test_a_restored_store_has_what_the_backup_has_and_nobody_recovers_past_it(path, target, backed_up, open_at):
    done = restore(target, path)
    assert done.copied.publications == 50
    broker = open_at(path)
    assert data(broker) == list(range(50))
    push(broker, *range(10))
    assert recover(broker, backed_up)[0] is False
    assert recover(broker, "acked")[0] is False


def test_a_restored_store_has_the_marks_that_belong_to_its_publications(path, target, open_at):
    broker = open_at(path)
    broker.publish_marked([Draft("42", "x")], Mark("table", "", "1"))
    backup(path, target)
    broker.publish_marked([Draft("42", "y")], Mark("table", "1", "2"))
    broker.close()
    restore(target, path)
    broker = open_at(path)
    assert data(broker) == ["x"] and broker.mark("table") == "1"


def test_a_backup_that_is_restored_twice_begins_two_epochs(path, target, backed_up, open_at):
    restore(target, path)
    broker = open_at(path)
    seen = push(broker, "in the first life")[0].position
    broker.close()
    restore(target, path)
    broker = open_at(path)
    push(broker, "in the second life")
    assert recover(broker, seen)[0] is False


@pytest.mark.parametrize("leftovers", [(), ("-recent",)])
def test_a_backup_that_is_put_in_place_by_hand_begins_a_new_epoch_too(path, target, open_at, leftovers):
    broker = open_at(path)
    push(broker, *range(5))
    backup(path, target)
    after = push(broker, "after")[0].position
    left = {suffix: pathlib.Path(path + suffix).read_bytes() for suffix in leftovers}
    broker.close()
    shutil.copy(target, path)
    for suffix in ("-wal", "-shm", "-recent"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + suffix)
        if suffix in left:
            pathlib.Path(path + suffix).write_bytes(left[suffix])
    broker = open_at(path)
    assert data(broker) == list(range(5))
    push(broker, *range(5))
    assert recover(broker, after)[0] is False


def test_a_restore_moves_the_files_of_a_killed_store_away_and_they_are_still_a_store(path, target, open_at, tmp_path):
    place = str(tmp_path / "killed.db")
    broker = open_at(path)
    push(broker, "kept")
    backup(path, target)
    after = push(broker, "in the journal")[0].position
    for suffix in ("", "-wal", "-shm", "-recent"):
        shutil.copy(path + suffix, place + suffix)
    done = restore(target, place)
    assert not [suffix for suffix in ("-wal", "-shm", "-recent") if os.path.exists(place + suffix)]
    previous = open_at(done.kept)
    assert data(previous) == ["kept", "in the journal"] and recover(previous, after) == (True, [])
    assert data(open_at(place)) == ["kept"]


def test_a_store_in_use_is_not_replaced(path, target, open_at, monkeypatch):
    monkeypatch.setattr("pushrelay.store.backups.WAIT_SECONDS", 0.1)
    broker = open_at(path)
    push(broker, "old")
    backup(path, target)
    push(broker, "new")
    with pytest.raises(StoreInUse, match="stop it first"):
        restore(target, path)
    assert data(broker) == ["old", "new"]
    assert not [name for name in names(os.path.dirname(path)) if "before" in name or "part" in name]


def test_a_store_is_restored_where_none_was(target, backed_up, open_at, tmp_path):
    (tmp_path / "new").mkdir()
    done = restore(target, str(tmp_path / "new" / "relay.db"))
    assert done.kept is None
    assert len(data(open_at(tmp_path / "new" / "relay.db"))) == 50
    with pytest.raises(StoreError, match="there is no folder"):
        restore(target, str(tmp_path / "no" / "relay.db"))


def test_only_a_backup_is_restored(path, target, backed_up, tmp_path):
    shutil.copy(path, tmp_path / "other.db")
    with pytest.raises(StoreError, match="a store and not a backup"):
        restore(str(tmp_path / "other.db"), path)
    with pytest.raises(StoreError, match="no such file"):
        restore(f"{target}.gz", path)


def test_a_damaged_backup_is_refused_and_the_store_stays(path, target, backed_up, open_at):
    """A byte is changed in 60 places. Each backup is refused, or the byte is one that nobody reads."""
    whole = pathlib.Path(target).read_bytes()
    used = [at for at, byte in enumerate(whole) if byte]
    refused = 0
    for number in range(60):
        at = used[len(used) * number // 60]
        content = bytearray(whole)
        content[at] ^= 0x11
        pathlib.Path(target).write_bytes(content)
        place = os.path.join(os.path.dirname(target), "place.db")
        try:
            restore(target, place)
        except StoreError as error:
            refused += 1
            assert not os.path.exists(place), error
        else:
            broker = open_at(place)
            assert data(broker) == list(range(50)), at
            broker.close()
            for name in names(os.path.dirname(place)):
                if name.startswith("place.db"):
                    os.unlink(os.path.join(os.path.dirname(place), name))
    assert refused > 5, refused
    broker = open_at(path)
    assert data(broker)[-1] == "after" and recover(broker, backed_up) == (True, [])


def test_a_backup_that_was_cut_short_is_refused(path, target, backed_up):
    size = os.path.getsize(target)
    for length in (0, 50, 4096, size // 2, size - 4096):
        os.truncate(target, length)
        with pytest.raises(StoreError):
            restore(target, path)
        backup(path, target, overwrite=True)


def test_a_restore_that_breaks_off_never_makes_a_relay_claim_too_much(path, target, open_at, monkeypatch, tmp_path):
    rename = os.rename
    broker = open_at(path)
    push(broker, *range(5))
    backup(path, target)
    after = push(broker, "after")[0].position
    for steps in range(6):
        place = str(tmp_path / f"place{steps}.db")
        for suffix in ("", "-wal", "-shm", "-recent"):
            shutil.copy(path + suffix, place + suffix)
        done = []

        def rename_some(old, new, done=done, steps=steps):
            if len(done) == steps:
                raise OSError(5, "Input/output error")
            rename(old, new)
            done.append(new)

        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", rename_some)
            with contextlib.suppress(StoreError):
                restore(target, place)
        broken = open_at(place)
        was_there = "after" in data(broken)
        push(broken, *range(10))
        assert recover(broken, after)[0] is was_there, steps


def test_files_that_root_restores_belong_to_the_relays_user(path, target, backed_up, tmp_path):
    need(os.geteuid() == 0, "root")
    os.chown(path, 12345, 12346)
    (tmp_path / "new").mkdir()
    os.chown(tmp_path / "new", 12345, 12346)
    for place in (path, str(tmp_path / "new" / "relay.db")):
        restore(target, place)
        for each in (place, f"{place}-lock"):
            found = os.stat(each)
            assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (12345, 12346, 0o600), each


def test_a_long_backup_does_not_hold_up_pushes(path, open_at):
    """A program that reads for long keeps SQLite from emptying the WAL. Nobody waits for it, and the WAL grows."""
    broker = open_at(path)
    files = broker._store._files
    files.busy_seconds, files.wal_bytes = 60.0, 1 << 20
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM publications").fetchone()
        for number in range(40):
            push(broker, f"{number}" + "x" * 100_000)
            broker.flush()
        assert os.path.getsize(f"{path}-wal") > 2 << 20
        reader.execute("COMMIT")
    for number in range(40):
        push(broker, f"{number}" + "x" * 100_000)
        broker.flush()
    assert os.path.getsize(f"{path}-wal") < 2 << 20, "it is emptied again"
