"""What was accepted and not committed yet, in a file beside the database."""

import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import struct
import sys
import threading
import zlib

import pytest
from conftest import need

from pushrelay.errors import StoreError
from pushrelay.store import Draft, sqlite_file, sqlite_rows, sqlite_writer
from pushrelay.store.journal import SIZE, Contents, Journal, new_of, read


@pytest.fixture
def path(tmp_path):
    return tmp_path / "recent"


def journal_at(path):
    journal = Journal(str(path), "epoch", "token", 1)
    journal.put_in_place()
    return journal


def left_in(path):
    """What a journal holds for whoever reads it now, and whether it is whole."""
    left = read(str(path))
    return left.payloads, left.fault is None


def test_what_was_put_in_is_there_for_the_next_process(path):
    journal = journal_at(path)
    assert read(str(path)) == Contents("epoch", "token", 1, [])
    for payload in (b"a", b"bb" * 5000, b"c"):
        journal.put(payload)
    # It was not closed: as after kill -9.
    assert read(str(path)) == Contents("epoch", "token", 1, [b"a", b"bb" * 5000, b"c"]) == journal.contents()


def test_after_a_commit_nothing_of_before_is_read_again(path):
    journal = journal_at(path)
    for _ in range(5):
        journal.put(b"before")
    journal.begin(2)
    assert left_in(path) == ([], True)
    journal.put(b"now..!")  # as long as what stood there, and behind it the old ones begin
    assert read(str(path)) == Contents("epoch", "token", 2, [b"now..!"])


def test_a_record_of_an_earlier_commit_is_not_read_behind_a_newer_one(path):
    """A power cut may leave a new record on the disk, and behind it the old record in place of the new end mark."""
    journal = journal_at(path)
    for payload in (b"old 1", b"old 2"):
        journal.put(payload)
    old = path.read_bytes()
    journal.begin(2)
    journal.put(b"new 1")
    behind = path.read_bytes().index(b"new 1") + 8
    path.write_bytes(path.read_bytes()[:behind] + old[behind:])
    assert left_in(path) == ([b"new 1"], False)


def test_a_journal_that_is_not_in_its_place_yet_changes_nothing_there(path):
    journal_at(path).put(b"x")
    Journal(str(path), "epoch", "another", 1)
    assert read(str(path)).token == "token"
    assert read(new_of(str(path))).token == "another"
    journal = Journal(str(path), "epoch", "third", 1)
    journal.put_in_place(keep_old=True)
    assert (read(str(path)).token, read(f"{path}.bad").token) == ("third", "token")
    assert read(new_of(str(path))) is None


@pytest.mark.parametrize("length", [6, 9000])
def test_a_kill_at_any_moment_of_a_put_leaves_a_whole_journal(path, monkeypatch, length):
    """The kernel looks for SIGKILL between the pages that one write copies; each page is written wholly or not."""
    journal = journal_at(path)
    journal.put(b"first" * 700)
    pages, whole, pwrite = [], path.read_bytes(), os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pages.append((bytes(data), at)) or pwrite(fd, data, at))
    journal.put(b"x" * length)
    monkeypatch.undo()
    image, pieces = bytearray(whole), []
    for data, at in pages:
        while data:
            room = 4096 - at % 4096
            pieces.append((data[:room], at))
            data, at = data[room:], at + room
    assert len(pieces) > (length > 4096)
    for number, (piece, at) in enumerate(pieces):
        path.write_bytes(image)
        assert left_in(path) == ([b"first" * 700], True), number
        image[at : at + len(piece)] = piece
    path.write_bytes(image)
    assert left_in(path) == ([b"first" * 700, b"x" * length], True)


def test_a_journal_that_lost_anything_has_a_fault(path):
    journal = journal_at(path)
    for number in range(4):
        journal.put(b"%d" % number * 20)
    end = journal._end + 8
    whole = path.read_bytes()
    payloads = journal.payloads
    for cut in range(end):
        path.write_bytes(whole[:cut])
        left, is_whole = left_in(path)
        assert not is_whole and left == payloads[: len(left)], cut
        path.write_bytes(whole[:cut] + bytes(SIZE - cut))
        assert left_in(path)[1] is False, cut
    padding = {journal._end - 4 - 32 * number + offset for number in range(4) for offset in range(4)}
    for at in set(range(end)) - padding:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        left, is_whole = left_in(path)
        assert not is_whole and left == payloads[: len(left)], at
    for more in (b"", b"garbage" * 100):
        path.write_bytes(whole + more)
        assert left_in(path) == (payloads, True)
    path.write_bytes(whole[:end])  # what is behind the end mark counts for nothing
    assert left_in(path) == (payloads, True)


def test_garbage_is_no_journal(path):
    for garbage in (b"", b"x" * 10, os.urandom(SIZE), bytes(SIZE), b"relayJ1\n", b"relayJ3\n" + bytes(SIZE - 8)):
        path.write_bytes(garbage)
        assert left_in(path) == ([], False)


def test_a_journal_takes_records_up_to_its_last_byte(path):
    journal = journal_at(path)
    left = SIZE - journal._end
    for length in range(left - 40, left + 1):
        journal.begin(2)
        if journal.has_room(length):
            journal.put(b"x" * length)
            assert left_in(path) == ([b"x" * length], True)
            assert path.stat().st_size == SIZE
    assert journal.has_room(SIZE - 64 - 8 - 8) and not journal.has_room(SIZE - 64 - 8 - 7)


def test_it_says_when_it_is_full(path):
    journal = journal_at(path)
    count = 0
    while journal.has_room(1000):
        journal.put(b"x" * 1000)
        count += 1
    assert SIZE - 2000 < count * 1008 < SIZE
    assert left_in(path) == ([b"x" * 1000] * count, True)


def test_the_room_of_a_journal_is_taken_on_the_disk_at_once(path):
    need(hasattr(os, "posix_fallocate"), "posix_fallocate")
    journal_at(path)
    assert path.stat().st_blocks * 512 >= SIZE


def test_a_journal_that_is_cut_while_it_is_in_use_takes_what_comes_and_ends_no_process(path):
    journal = journal_at(path)
    journal.put(b"before")
    assert journal.is_in_place()
    os.truncate(path, 0)
    assert not journal.is_in_place()
    journal.put(b"after")
    assert journal.payloads == [b"before", b"after"]
    assert left_in(path)[1] is False
    journal.begin(2)
    assert left_in(path) == ([], True)


def test_what_a_full_disk_does_not_take_was_not_put(path):
    journal = journal_at(path)
    journal.put(b"before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        # A write beyond the limit fails, as on a full disk. The last record lies within one page.
        for limit, size in ((8192, 9000), (8192, 20_000), (200, 300)):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            with pytest.raises(StoreError, match="free some space"):
                journal.put(b"x" * size)
            assert left_in(path) == ([b"before"], True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    journal.put(b"after")
    assert left_in(path) == ([b"before", b"after"], True)


def test_its_file_is_for_its_owner_alone_and_small_when_all_is_committed(path):
    journal = journal_at(path)
    assert path.stat().st_mode & 0o777 == 0o600
    os.truncate(path, 0)  # whatever happened to it
    journal.close(is_committed=True)
    assert left_in(path) == ([], True)
    assert path.stat().st_size < 100


def test_a_place_where_it_cannot_be_is_named(tmp_path):
    with pytest.raises(StoreError, match="nowhere"):
        Journal(str(tmp_path / "nowhere" / "recent"), "epoch", "token", 1)
    with pytest.raises(StoreError, match="recent"):
        (tmp_path / "recent").mkdir()
        read(str(tmp_path / "recent"))


def test_what_an_older_relay_left_when_it_was_killed_is_read(path):
    seed, records = zlib.crc32((7).to_bytes(8, "little")), b""
    for payload in (b"a", b"bb" * 500):
        records += struct.pack("<II", len(payload), zlib.crc32(payload, seed)) + payload
    path.write_bytes((struct.pack("<8sQ24s", b"relayJ1\n", 7, b"epoch") + records).ljust(SIZE, b"\0"))
    assert read(str(path)) == Contents("epoch", "", 0, [b"a", b"bb" * 500])


# With the database.


def killed(path, copy):
    """A copy of a store as kill -9 leaves it now."""
    for suffix in ("", "-wal", "-recent"):
        if os.path.exists(f"{path}{suffix}"):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    return copy


def history(broker, destination="42"):
    return [(each.position, each.event, each.data, each.created) for each in broker.history(destination).publications]


def committed(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT count(*) FROM publications").fetchone()[0]


def test_a_kill_between_two_commits_loses_nothing(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db", history_size=8)
    broker.publish([Draft("42", "committed")])
    broker.flush()
    broker.publish([Draft("42", {"ä": [1, None, "\n"]}, "order"), Draft("new", "x", key="once")])
    broker.publish([Draft("42", n) for n in range(40)])
    broker.publish([Draft("ephemeral", "not kept", ttl=0), Draft("ephemeral", "kept", ttl=100)])
    broker.ack("42", f"{broker.epoch}:7")
    assert committed(tmp_path / "relay.db") == 1
    again = open_at(killed(tmp_path / "relay.db", tmp_path / "copy.db"), history_size=8)
    for destination in ("42", "new", "ephemeral"):
        assert history(again, destination) == history(broker, destination)
        assert again.position(destination) == broker.position(destination)
    assert again.acked("42") == f"{broker.epoch}:7"
    [receipt] = again.publish([Draft("new", "x", key="once")])
    assert (receipt.position, receipt.connections, receipt.repeated) == (f"{broker.epoch}:1", 1, True)
    assert again.publish([Draft("42", "next")])[0].position == f"{broker.epoch}:43"


def test_a_kill_after_the_commit_and_before_the_journal_is_empty_brings_nothing_twice(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("42", n) for n in range(20)] + [Draft("42", "k", key="key"), Draft("0", "x", ttl=0)])
    broker.ack("42", f"{broker.epoch}:3")
    before = (tmp_path / "relay.db-recent").read_bytes()
    broker.flush()
    copy = killed(tmp_path / "relay.db", tmp_path / "copy.db")
    (tmp_path / "copy.db-recent").write_bytes(before)
    again = open_at(copy)
    assert history(again) == history(broker)
    assert again.position("0") == broker.position("0")
    assert again.acked("42") == f"{broker.epoch}:3"


def test_what_is_not_committed_is_read_by_everybody(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db", history_size=5)
    broker.publish([Draft("42", n) for n in range(3)])
    broker.flush()
    broker.publish([Draft("42", n) for n in range(3, 5)] + [Draft("other", "x")])
    got = []
    recovery = broker.recover("42", f"{broker.epoch}:2", got.append, lambda: None)
    assert [each.data for each in got] == [2, 3, 4] and recovery.recovered
    assert [each.data for each in broker.history("42").publications] == [0, 1, 2, 3, 4]
    assert broker.history("42", f"{broker.epoch}:5").recovered
    assert not broker.history("42", f"{broker.epoch}:6").recovered
    assert committed(tmp_path / "relay.db") == 3


def test_where_a_destination_stands_is_known_without_a_commit_however_many_there_are(tmp_path, open_at, monkeypatch):
    monkeypatch.setattr(sqlite_writer, "MAX_CURSORS", 10)
    broker = open_at(tmp_path / "relay.db")
    for n in range(50):
        broker.publish([Draft(str(n), "x"), Draft("always", n)])
        if n % 7 == 0:
            broker.flush()
    broker.flush()
    broker.publish([Draft("3", "y"), Draft("new", "z")])
    before = committed(tmp_path / "relay.db")
    for n in range(50):
        assert broker.position(str(n)) == f"{broker.epoch}:{2 if n == 3 else 1}"
    assert broker.position("always") == f"{broker.epoch}:50"
    assert (broker.position("new"), broker.position("newer")) == (f"{broker.epoch}:1", f"{broker.epoch}:0")
    assert committed(tmp_path / "relay.db") == before


def test_the_offsets_that_are_kept_at_hand_have_a_bound(tmp_path, open_at, monkeypatch):
    monkeypatch.setattr(sqlite_writer, "MAX_CURSORS", 10)
    broker = open_at(tmp_path / "relay.db")
    for n in range(100):
        broker.publish([Draft(str(n), "x")])
    broker.flush()
    assert len(broker._store._writer.cursors) <= 10
    assert {broker.position(str(n)) for n in range(100)} == {f"{broker.epoch}:1"}


def test_what_does_not_fit_is_committed_at_once(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("42", "small")])
    assert committed(tmp_path / "relay.db") == 0
    broker.publish([Draft("42", "x" * SIZE)])
    assert committed(tmp_path / "relay.db") == 2


def test_a_transaction_that_fails_takes_nothing_with_it_that_was_accepted(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("42", "before"), Draft("new", "x")])
    broker._store._writer.connection.execute("PRAGMA max_page_count=20")
    with pytest.raises(StoreError, match="full"):
        broker.publish([Draft("42", "y" * SIZE)])
    assert [each.data for each in broker.history("42").publications] == ["before"]
    assert broker.position("new") == f"{broker.epoch}:1"
    broker._store._writer.connection.execute("PRAGMA max_page_count=100000")
    assert broker.publish([Draft("new", "after")])[0].position == f"{broker.epoch}:2"
    broker.flush()
    assert [each.data for each in broker.history("42").publications] == ["before"]
    assert [each.data for each in broker.history("new").publications] == ["x", "after"]


def test_after_a_transaction_that_failed_new_destinations_are_soon_stored_without_a_look_into_the_file(
    tmp_path, open_at, monkeypatch
):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("committed", "x")])
    broker.flush()
    broker.publish([Draft("recent", "x")])
    with pytest.raises(StoreError):
        broker._group_commit.run(lambda: 1 / 0)
    for name in ("first", "second"):  # as once a second
        broker.publish([Draft(name, "x")])
        broker.flush()
    looks = []
    find = sqlite_rows.find_cursor
    monkeypatch.setattr(
        sqlite_rows, "find_cursor", lambda connection, name: looks.append(name) or find(connection, name)
    )
    names = ["committed", "recent", "first", "second", "third"]
    for number in (1, 2):
        assert {broker.position(name) for name in names[:-1]} == {f"{broker.epoch}:{number}"}
        broker.publish([Draft(name, "y") for name in names])
    assert broker.position("third") == f"{broker.epoch}:2" and not looks


def test_what_was_accepted_and_cannot_be_committed_stays_and_is_committed_later(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db")
    broker._store._writer.connection.execute("PRAGMA max_page_count=20")
    broker.publish([Draft("42", n) for n in range(3)] + [Draft("42", "y" * 200_000)])
    for _ in range(3):
        with pytest.raises(StoreError, match="full"):
            broker.flush()
        with pytest.raises(StoreError, match="full"):
            broker.publish([Draft("42", "refused")] * 100)
            broker.flush()
        assert [len(str(each.data)) for each in broker.history("42").publications] == [1, 1, 1, 200_000]
        assert broker.position("42") == f"{broker.epoch}:4"
    again = open_at(killed(tmp_path / "relay.db", tmp_path / "copy.db"))
    assert history(again) == history(broker)
    broker._store._writer.connection.execute("PRAGMA max_page_count=100000")
    assert broker.publish([Draft("42", "after")])[0].position == f"{broker.epoch}:5"
    broker.flush()
    assert committed(tmp_path / "relay.db") == 5


def forgetting(open_at, path, now):
    """A broker that would forget destination 42, of five publications, at its next sweep."""
    broker = open_at(path, clock=lambda: now[0], history_ttl=10)
    broker.publish([Draft("42", n) for n in range(5)])
    broker.flush()
    now[0] += 1000
    broker.sweep()
    now[0] += 2 * broker._archive.limits.forget_after
    return broker


def test_what_is_new_and_not_committed_is_read_while_another_is_forgotten(tmp_path, open_at):
    now = [1_000_000.0]
    broker = forgetting(open_at, tmp_path / "relay.db", now)
    broker.publish([Draft("new", "x")])
    seen, update = [], broker._store._commit

    def look_and_commit():
        seen.append(broker.history("new", f"{broker.epoch}:0"))
        update()

    broker._store._commit = look_and_commit
    broker.sweep()
    seen.append(broker.history("new", f"{broker.epoch}:0"))
    assert [([each.data for each in one.publications], one.recovered) for one in seen] == [(["x"], True)] * 2


def test_who_was_told_where_a_new_destination_begins_can_rely_on_it_after_a_kill(tmp_path, open_at):
    now = [1_000_000.0]
    broker = forgetting(open_at, tmp_path / "relay.db", now)
    broker.publish([Draft("another", "x")])
    broker.sweep()  # forgets 42
    told = broker.position("new")
    again = open_at(killed(tmp_path / "relay.db", tmp_path / "copy.db"), clock=lambda: now[0], history_ttl=10)
    again.publish([Draft("new", n) for n in range(7)])
    history = again.history("new", told)
    assert history.recovered and [each.data for each in history.publications] == list(range(7))


def test_what_was_to_be_forgotten_is_there_when_that_fails(tmp_path, open_at):
    now = [1_000_000.0]
    broker = open_at(tmp_path / "relay.db", clock=lambda: now[0], history_ttl=10)
    broker.publish([Draft("42", "x")])
    broker.flush()
    now[0] += 1000
    broker.sweep()
    commit, broker._store._files.commit = broker._store._files.commit, lambda: 1 / 0
    now[0] += 2 * broker._archive.limits.forget_after
    with pytest.raises(StoreError):
        broker.sweep()  # it would have been forgotten by this
    broker._store._files.commit = commit
    assert broker.publish([Draft("42", "y")])[0].position == f"{broker.epoch}:2"
    broker.flush()
    assert [each.data for each in broker.history("42").publications] == ["y"]


def test_a_start_that_fails_leaves_the_journal_for_the_next_one(tmp_path, open_at, monkeypatch):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft(f"{n}", "x" * 100) for n in range(1000)] + [Draft("ephemeral", "x", ttl=0)])
    copy = killed(tmp_path / "relay.db", tmp_path / "copy.db")
    connect = sqlite_file.connect

    def connect_to_a_full_disk(*args):
        connection = connect(*args)
        connection.execute("PRAGMA max_page_count=20")
        return connection

    with monkeypatch.context() as patch, pytest.raises(StoreError, match="full"):
        patch.setattr(sqlite_file, "connect", connect_to_a_full_disk)
        open_at(copy)
    again = open_at(copy)
    assert [len(history(again, f"{n}")) for n in range(1000)] == [1] * 1000
    assert again.position("ephemeral") == f"{broker.epoch}:1"


def test_what_was_accepted_is_there_when_the_file_is_opened_anew_before_a_commit(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("42", "committed")])
    broker.flush()
    broker.publish([Draft("42", "recent")])
    broker._store._files.readers.close()
    with pytest.raises(StoreError), broker._store._reader.snapshot():
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error
    assert broker.publish([Draft("42", "after")])[0].position == f"{broker.epoch}:3"
    assert [each.data for each in broker.history("42").publications] == ["committed", "recent", "after"]


def test_a_position_is_never_a_lower_one_while_the_file_is_opened_anew(tmp_path, open_at, monkeypatch):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("41", "x"), Draft("42", "x")])
    broker.flush()
    told, find = [], sqlite_rows.find_cursor

    def ask():
        with contextlib.suppress(StoreError):  # it may say that it does not know yet
            told.append(broker.position("42"))

    def find_and_ask(connection, name):
        if connection is broker._store._writer.connection:
            ask()
        return find(connection, name)

    monkeypatch.setattr(sqlite_rows, "find_cursor", find_and_ask)
    broker._store._files.is_broken = True
    broker.publish([Draft("43", "x")])
    ask()
    assert set(told) == {f"{broker.epoch}:1"}


def test_no_reader_misses_an_accepted_push_at_any_step_of_a_reopening(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("42", "in the file")])
    broker.flush()
    broker.publish([Draft("42", "in the journal")])
    told, refused = [], set()

    def ask_before_each_line(frame, event, argument):
        if "pushrelay" not in frame.f_code.co_filename:
            return None
        if event == "line":
            try:
                told.append(broker.position("42"))
            except StoreError as error:
                refused.add(str(error))
        return ask_before_each_line

    broker._store._files.is_broken = True
    tracer = sys.gettrace()
    sys.settrace(ask_before_each_line)
    try:
        broker.flush()
    finally:
        sys.settrace(tracer)
    assert set(told) == {f"{broker.epoch}:2"}
    assert refused == {"the store is being opened again. Try again in a moment"}


def test_no_reader_misses_an_accepted_push_while_a_failed_transaction_is_repeated(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("42", "in the file")])
    broker.flush()
    broker.publish([Draft("42", "in the journal")])
    with pytest.raises(StoreError):
        broker._group_commit.run(lambda: 1 / 0)
    pushes = []

    class Cursors(dict):
        """A push is stored after the first look at the cursors."""

        def get(self, name):
            found = super().get(name)
            if not pushes:
                pushes.append(threading.Thread(target=broker.publish, args=([Draft("41", "x")],)))
                pushes[0].start()
                pushes[0].join()
            return found

    broker._store._writer.cursors = Cursors(broker._store._writer.cursors)
    assert broker.position("42") == f"{broker.epoch}:2"
    broker.flush()
    assert broker.position("42") == f"{broker.epoch}:2"


def test_with_durability_power_it_holds_nothing_and_what_one_left_is_taken_over(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("42", "left")])
    copy = killed(tmp_path / "relay.db", tmp_path / "copy.db")
    again = open_at(copy, durability="power")
    assert [each.data for each in again.history("42").publications] == ["left"]
    again.publish([Draft("42", "more")])
    assert committed(copy) == 2
    assert left_in(f"{copy}-recent") == ([], True)


def test_a_store_that_was_closed_leaves_an_empty_journal(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("42", "x")])
    broker.close()
    assert committed(tmp_path / "relay.db") == 1
    assert left_in(tmp_path / "relay.db-recent") == ([], True)


def test_a_journal_that_was_removed_is_noticed(tmp_path, open_at):
    need(os.name == "posix", "a system that removes files in use")
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("42", 0)])
    (tmp_path / "relay.db-recent").unlink()
    broker.publish([Draft("42", 1)])
    broker.flush()  # as once a second
    broker.publish([Draft("42", 2)])
    assert (tmp_path / "relay.db-recent").exists()
    again = open_at(killed(tmp_path / "relay.db", tmp_path / "copy.db"))
    assert [each.data for each in again.history("42").publications] == [0, 1, 2]
