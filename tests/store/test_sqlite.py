"""What SQLite's broker promises beyond the contract: it outlives crashes, and says so when it cannot store."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
from conftest import DEADLINE, ROOT, need, wait_for

from pushrelay.errors import StoreError
from pushrelay.store import Draft, open_broker, sqlite_file
from pushrelay.store.maintenance import Maintenance

# Four threads publish without end, and a line is printed for each publication that was accepted.
PUBLISHER = """
import sys, threading
from pushrelay.store import open_broker
from pushrelay.store import Draft

broker = open_broker("sqlite:" + sys.argv[1], lambda p, s: 0, durability=sys.argv[2], history_size=10**6)
broker.start()
print("started", flush=True)

def publish(n):
    i = 0
    while True:
        receipts = broker.publish([Draft(f"user{(n + i) % 5}", i), Draft("all", f"{n}:{i}")])
        sys.stdout.write("".join(f"{r.position} {i}\\n" for r in receipts))
        sys.stdout.flush()
        i += 1

threads = [threading.Thread(target=publish, args=(n,)) for n in range(4)]
[thread.start() for thread in threads]
"""


@contextlib.contextmanager
def publisher(path, durability="process"):
    """A process that publishes until it is killed; gives it and the file of its lines."""
    log = path.parent / f"accepted-{time.monotonic_ns()}"
    with log.open("wb") as out:
        command = [sys.executable, "-c", PUBLISHER, str(path), durability]
        process = subprocess.Popen(command, stdout=out, cwd=ROOT)
    try:
        wait_for(lambda: log.read_bytes().count(b"\n") > 200 or process.poll() is not None, "200 accepted pushes")
        assert process.poll() is None
        yield process, log
    finally:
        process.kill()
        process.wait(DEADLINE)


def accepted(log):
    """The positions in a publisher's whole lines: what is half a line was not answered."""
    lines = log.read_bytes().split(b"\n")[1:-1]
    return {line.split()[0].decode() + f" {line.split()[1].decode()}" for line in lines}


def stored(broker):
    found = set()
    for name in ("all", *(f"user{i}" for i in range(5))):
        for each in broker.history(name).publications:
            found.add(f"{each.position} {str(each.data).rpartition(':')[2]}")
    return found


@pytest.fixture
def path(tmp_path):
    return tmp_path / "relay.db"


@pytest.fixture
def disk(tmp_path):
    """A disk of 2 MiB: mounted here, gone with the test."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        shutil.which("mount")
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True
        ).returncode
    )
    need(mounted, "the right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def push(broker, *values, destination="42"):
    return broker.publish([Draft(destination, value) for value in values])


def data(broker, destination="42"):
    return [each.data for each in broker.history(destination).publications]


def fill(broker):
    """Publish until the store takes no more; returns how many it took."""
    for count in range(10_000):
        try:
            push(broker, f"{count} " + "x" * 50_000)
        except StoreError as error:
            return count, error
    raise AssertionError("the disk is never full")


# What was accepted.


def test_what_was_accepted_survives_kill_9(path, open_at):
    everything = set()
    for _ in range(5):
        with publisher(path) as (process, log):
            process.send_signal(signal.SIGKILL)
            process.wait(DEADLINE)
        everything |= accepted(log)
        broker = open_at(path, history_size=10**6)
        assert everything <= stored(broker)
        for name in ("all", "user0"):
            offsets = [int(each.position.rpartition(":")[2]) for each in broker.history(name).publications]
            assert offsets == list(range(1, len(offsets) + 1))
        broker.close()
    assert len(everything) > 1000


@pytest.fixture
def cut(tmp_path):
    """A disk whose power can be cut: cut(path) gives what is left of a file on it.

    It is an image with a file system in it. Only what was synced has reached the image, for the mounted file
    system's own cache stands before it; so a copy of the image is the disk as a power failure would leave it.
    """
    image, folder, left = tmp_path / "image", tmp_path / "mounted", tmp_path / "left"
    folder.mkdir()
    left.mkdir()
    need(os.geteuid() == 0 and shutil.which("mkfs.ext4") and shutil.which("mount"), "root with mkfs.ext4 and mount")
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    mounted = not subprocess.run(["mount", "-o", "loop,commit=300", str(image), str(folder)]).returncode
    need(mounted, "a loop device")
    os.sync()

    def cut():
        shutil.copy(image, tmp_path / "copy")
        subprocess.run(["mount", "-o", "loop", str(tmp_path / "copy"), str(left)], check=True)
        return left

    yield folder, cut
    for each in (left, folder):
        subprocess.run(["umount", "-l", str(each)], capture_output=True)


def test_with_durability_power_what_was_accepted_survives_a_power_failure(cut, open_at, tmp_path):
    folder, cut = cut
    log = tmp_path / "accepted"
    with publisher(folder / "relay.db", "power") as (_, written):
        shutil.copy(written, log)
        left = cut()
    on_disk = accepted(tmp_path / "accepted")
    assert len(on_disk) > 100
    broker = open_at(left / "relay.db", history_size=10**6)
    assert on_disk <= stored(broker)
    broker.close()


def end_of_the_machine(path, copy):
    """What is there when the machine comes up again: the files as they are, written by a relay of another boot."""
    for suffix in ("", "-wal", "-recent"):
        if os.path.exists(f"{path}{suffix}"):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute("UPDATE meta SET value = 'an earlier boot' WHERE name = 'open' AND value != ''")


def test_positions_from_before_the_machine_went_down_are_not_taken_for_new_ones(path, open_at, tmp_path):
    before = open_at(path)
    push(before, "seen")
    copy = tmp_path / "after.db"
    end_of_the_machine(path, copy)
    seen = push(before, "seen, and lost with the machine")[0].position
    after = open_at(copy)
    push(after, "the same offset", "and one more")
    assert after.position("42").endswith(":3") and seen.endswith(":2")
    recovery = after.recover("42", seen, pytest.fail, lambda: None)
    assert recovery.recovered is False and recovery.position == after.position("42")
    assert data(after)[0] == "seen"


@pytest.mark.parametrize("how", ["closed", "killed", "power"])
def test_positions_stay_where_nothing_can_have_been_lost(path, open_at, tmp_path, how):
    if how == "killed":
        with publisher(path) as (_, log):
            pass
        epoch = open_at(path).epoch
        assert {line.partition(":")[0] for line in accepted(log)} == {epoch}
        return
    broker = open_at(path, durability="power" if how == "power" else "process")
    position = push(broker, "x")[0].position
    if how == "closed":
        broker.close()
    copy = tmp_path / "copy.db"
    end_of_the_machine(path, copy)
    assert open_at(copy).position("42") == position


def test_sqlite_is_set_to_sync_each_commit_with_durability_power_and_not_with_process(path, open_at):
    for durability, synchronous in (("power", 2), ("process", 1)):
        broker = open_at(path.with_name(durability), durability=durability)
        assert broker._store._writer.connection.execute("PRAGMA synchronous").fetchone() == (synchronous,)


def test_what_waits_for_a_commit_shares_the_next_one(path, open_at):
    broker = open_at(path, durability="power")
    commits, first, go_on = [], threading.Event(), threading.Event()

    def slow_commit(sql):
        if sql == "COMMIT":
            commits.append(sql)
            first.set()
            assert go_on.wait(DEADLINE)

    broker._store._writer.connection.set_trace_callback(slow_commit)
    threads = [threading.Thread(target=push, args=(broker, i)) for i in range(9)]
    threads[0].start()
    assert first.wait(DEADLINE)
    for thread in threads[1:]:
        thread.start()
    wait_for(lambda: len(broker._group_commit._waiting) == 8, "the others wait")
    go_on.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert len(commits) == 2
    assert sorted(data(broker)) == list(range(9))


# What is wrong at the start.


def refusal(path, **options):
    broker = open_broker(f"sqlite:{path}", lambda publication, skip_sid: 0, **options)
    broker._store._files.busy_seconds = 0.1
    with pytest.raises(StoreError) as error:
        broker.start()
    broker.close()
    assert str(path) in str(error.value)
    return str(error.value)


def test_a_second_relay_on_the_same_file_is_refused(path, open_at):
    with publisher(path):
        assert "another relay uses this file" in refusal(path)
        link = path.with_name("link.db")
        link.symlink_to(path)
        broker = open_broker(f"sqlite:{link}", lambda publication, skip_sid: 0)
        broker._store._files.busy_seconds = 0.1
        with pytest.raises(StoreError, match="another relay"):
            broker.start()
    open_at(path).close()  # it was killed, and its lock with it
    open_at(path)
    assert "another relay" in refusal(path)


def test_requests_wait_for_a_relay_that_is_about_to_let_go_of_the_store(path, open_at, caplog):
    """As at a reload in gunicorn: the new process starts before the old one has closed the store."""
    before = open_at(path)
    position = push(before, "x")[0].position
    broker = open_broker(f"sqlite:{path}", lambda publication, skip_sid: 0)
    broker._store._files.busy_seconds = 0.1
    maintenance = Maintenance(broker, patience=DEADLINE)
    request = threading.Thread(target=maintenance.ensure_open)
    request.start()
    try:
        request.join(1)
        assert request.is_alive() and maintenance.trouble is None
        before.close()
        request.join(DEADLINE)
        assert maintenance.started and maintenance.trouble is None and "refused" not in caplog.text
        assert broker.position("42") == position
    finally:
        maintenance.close()


def test_requests_do_not_wait_for_ever_for_a_relay_that_keeps_the_store(path, open_at):
    open_at(path)
    broker = open_broker(f"sqlite:{path}", lambda publication, skip_sid: 0)
    broker._store._files.busy_seconds = 0.1
    maintenance = Maintenance(broker, patience=0.2)
    maintenance.ensure_open()
    assert not maintenance.started and "another relay" in maintenance.trouble
    maintenance.close()


def test_a_newer_relays_file_is_refused(path, open_at):
    open_at(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=99")
    before = path.read_bytes()
    assert "newer relay" in refusal(path)
    assert path.read_bytes() == before


def test_an_older_relays_file_is_brought_to_the_newest_version_with_all_that_is_in_it(path, open_at, monkeypatch):
    broker = open_at(path)
    push(broker, "kept")
    position = broker.position("42")
    broker.close()
    steps = (*sqlite_file.MIGRATIONS, "ALTER TABLE keys ADD COLUMN note TEXT;\nCREATE TABLE more (id INTEGER);\n")
    monkeypatch.setattr(sqlite_file, "MIGRATIONS", steps)
    broker = open_at(path)
    assert (data(broker), broker.position("42")) == (["kept"], position)
    assert broker._store._writer.connection.execute("PRAGMA user_version").fetchone() == (len(steps),)
    assert broker._store._writer.connection.execute("SELECT count(*) FROM more").fetchone() == (0,)
    push(broker, "new")


def test_a_migration_that_fails_leaves_the_file_as_it_was(path, open_at, monkeypatch):
    broker = open_at(path)
    push(broker, "kept")
    broker.close()
    steps = sqlite_file.MIGRATIONS
    monkeypatch.setattr(sqlite_file, "MIGRATIONS", (*steps, "CREATE TABLE more (id INTEGER);\nDROP TABLE nothing;\n"))
    assert "nothing" in refusal(path)
    monkeypatch.setattr(sqlite_file, "MIGRATIONS", steps)
    broker = open_at(path)
    assert data(broker) == ["kept"]
    assert broker._store._writer.connection.execute(
        "SELECT count(*) FROM sqlite_master WHERE name = 'more'"
    ).fetchone() == (0,)


def test_another_programs_file_is_refused_and_left_alone(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (x)")
    assert "another program's" in refusal(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]


def test_a_file_that_is_no_database_is_refused_and_left_alone(path):
    path.write_bytes(b"Dear diary, " * 1000)
    assert "no SQLite database" in refusal(path)
    assert path.read_bytes() == b"Dear diary, " * 1000


def test_a_folder_that_is_not_there_is_named(path):
    assert "there is no folder" in refusal(path.parent / "nowhere" / "relay.db")
    assert "this is a folder" in refusal(path.parent)


def test_a_folder_that_cannot_be_written_is_named(disk):
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert "cannot be written" in refusal(disk / "relay.db")


def test_a_disk_that_is_full_at_the_start_is_named(disk):
    with contextlib.suppress(OSError), (disk / "big").open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    assert "full" in refusal(disk / "relay.db")


def test_a_history_that_could_hold_nothing_is_refused():
    with pytest.raises(ValueError, match="history_bytes"):
        open_broker("sqlite:relay.db", lambda publication, skip_sid: 0, history_bytes=1000)


# What goes wrong while it runs, and goes by.


def test_on_a_full_disk_nothing_is_accepted_that_is_not_stored(disk, open_at):
    broker = open_at(disk / "relay.db", history_size=10**6)
    count, error = fill(broker)
    assert count > 10
    assert "disk is full" in str(error) or "disk refuses" in str(error)
    with pytest.raises(StoreError):
        push(broker, "x" * 50_000, destination="new")
    assert len(data(broker)) == count
    subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
    assert push(broker, "after")[0].position == f"{broker.epoch}:{count + 1}"
    broker.close()
    again = open_at(disk / "relay.db", history_size=10**6)
    assert len(data(again)) == count + 1


def test_when_the_database_may_not_grow_nothing_is_accepted_that_is_not_stored(path, open_at):
    broker = open_at(path, history_size=10**6)
    broker._store._writer.connection.execute("PRAGMA max_page_count=300")
    count, error = fill(broker)
    assert "disk is full" in str(error)
    with pytest.raises(StoreError):
        broker.publish([Draft("other", 1), Draft("42", "x" * 50_000), Draft("42", 2, key="k")])
    assert broker.position("other") == f"{broker.epoch}:0"
    assert len(data(broker)) == count
    broker._store._writer.connection.execute("PRAGMA max_page_count=100000")
    receipts = broker.publish([Draft("other", 1), Draft("42", 2, key="k")])
    assert [receipt.position for receipt in receipts] == [f"{broker.epoch}:1", f"{broker.epoch}:{count + 1}"]
    assert not receipts[1].repeated


def test_nothing_is_delivered_that_could_not_be_stored(path):
    delivered = []
    broker = open_broker(f"sqlite:{path}", lambda publication, skip_sid: delivered.append(publication) or 1)
    broker._store._files.busy_seconds = 0.05
    broker.start()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError):
            push(broker, "x")
    assert delivered == []
    broker.close()


def test_another_program_that_locks_the_file_is_waited_for_and_named(path, open_at):
    broker = open_at(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        with pytest.raises(StoreError, match="another program holds a lock"):
            push(broker, "x")
        assert time.monotonic() - begun >= 0.1
        assert broker.recover("42", f"{broker.epoch}:0", pytest.fail, lambda: None).recovered
        other.execute("ROLLBACK")
    assert push(broker, "y")[0].position == f"{broker.epoch}:1"
    assert data(broker) == ["y"]


def test_a_lock_that_lasts_is_waited_for_once_and_not_by_every_push(path, open_at):
    broker = open_at(path)
    waits = []  # milliseconds that SQLite waits for a lock from then on
    broker._store._writer.connection.set_trace_callback(
        lambda sql: waits.append(int(sql.partition("=")[2])) if sql.startswith("PRAGMA busy_timeout=") else None
    )
    broker._store._files.busy_seconds = 0.2
    broker._store._files.be_patient(True)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        for number in range(11):
            with pytest.raises(StoreError, match="another program holds a lock"):
                push(broker, number)
        assert time.monotonic() - begun >= 0.2
        assert waits[0] == 200 and 0 <= waits[1] <= 20 and set(waits[2:]) <= {waits[1]}, waits
        broker._store._files.busy_seconds = DEADLINE
        other.execute("ROLLBACK")
        push(broker, "y")
        broker.flush()  # it has a lock of its own until then
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.3, other.execute, ["ROLLBACK"]).start()
        push(broker, "z")  # a lock that is short is waited for again
    assert data(broker) == ["y", "z"]


def test_a_disk_that_becomes_read_only_is_named_and_it_goes_on_afterwards(disk, open_at):
    broker = open_at(disk / "relay.db")
    push(broker, "before")
    # The kernel makes no file system read-only that has files open for writing, so the file is made immutable.
    changed = (
        shutil.which("chattr")
        and not subprocess.run(
            ["chattr", "+i", str(disk / "relay.db"), str(disk / "relay.db-wal")], capture_output=True
        ).returncode
    )
    need(changed, "a disk that knows chattr +i")
    try:
        with pytest.raises(StoreError):
            push(broker, "x")
            broker._store._files.is_broken = True
            push(broker, "x")
    finally:
        subprocess.run(["chattr", "-i", str(disk / "relay.db"), str(disk / "relay.db-wal")], check=True)
    push(broker, "after")
    assert data(broker)[-1] == "after"


def test_a_file_that_is_damaged_is_named_and_a_new_one_taken_once_it_is_moved_away(path, open_at):
    broker = open_at(path)
    push(broker, *range(1000))
    broker.flush()
    broker._store._writer.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    epoch = broker.epoch
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)
    with pytest.raises(StoreError, match="damaged|no SQLite database"):
        for i in range(50):
            push(broker, i, destination=f"user{i}")
            broker.history("42")
    with pytest.raises(StoreError):
        push(broker, "x")
    for each in path.parent.glob("relay.db*"):
        if not each.name.endswith("-lock"):
            each.rename(each.with_suffix(".away" + each.suffix))
    push(broker, "new")
    assert broker.epoch != epoch
    assert data(broker) == ["new"]
    assert broker.recover("42", f"{epoch}:1", pytest.fail, lambda: None).recovered is False


def test_a_file_that_was_removed_is_noticed(path, open_at):
    broker = open_at(path)
    epoch = push(broker, "x")[0].position.partition(":")[0]
    for each in path.parent.glob("relay.db*"):
        each.unlink()
    wait_for(lambda: push(broker, "y")[0].position.partition(":")[0] != epoch, "a new store")
    assert path.exists()


# Sizes.


def test_the_file_and_its_wal_stay_small_whatever_is_pushed_and_read(path, open_at):
    broker = open_at(path, history_bytes=2 << 20)
    broker._store._files.wal_bytes = 4 << 20
    broker._store._writer.connection.execute("PRAGMA wal_autocheckpoint=200")
    done = threading.Event()

    def read():
        while not done.is_set():
            with broker._store._reader.snapshot() as connection:
                connection.execute("SELECT count(*) FROM destinations").fetchall()

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    sizes = []
    try:
        for i in range(3000):
            push(broker, "x" * 5000, destination=f"user{i % 500}")
            sizes.append(os.path.getsize(f"{path}-wal"))
    finally:
        done.set()
        for reader in readers:
            reader.join(DEADLINE)
    assert path.stat().st_size < 4 << 20
    assert max(sizes) < 8 << 20


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277, 0o777])
@pytest.mark.parametrize("durability", ["process", "power"])
def test_every_file_of_the_store_is_its_owners_alone_whatever_the_umask(path, open_at, umask, durability):
    before = os.umask(umask)
    try:
        broker = open_at(path, durability=durability)
        push(broker, "secret")
        files = {file.name: file.stat().st_mode & 0o777 for file in path.parent.glob("relay.db*")}
    finally:
        os.umask(before)
    assert {"relay.db", "relay.db-wal", "relay.db-shm", "relay.db-lock", "relay.db-recent"} <= set(files)
    assert set(files.values()) == {0o600}, files


def test_a_lock_file_of_an_earlier_release_that_others_can_read_is_closed_to_them(path, open_at):
    lock = path.parent / "relay.db-lock"
    lock.touch(0o644)
    lock.chmod(0o644)
    open_at(path)
    assert lock.stat().st_mode & 0o777 == 0o600


def test_pushes_are_taken_though_who_reads_finds_no_file_descriptor_left(path, open_at, monkeypatch):
    broker = open_at(path)
    push(broker, "before")

    def cannot(*_):
        error = sqlite3.OperationalError("unable to open database file")
        error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_file, "connect", cannot)
        with pytest.raises(StoreError, match="opened"):
            broker.history("42")
        push(broker, "meanwhile")
    assert data(broker) == ["before", "meanwhile"]
