"""The journal: accepted pushes that are not committed yet, in a file next to the database."""

import json
import os
import resource
import signal
import struct
import zlib

import pytest
from conftest import need
from stores import committed, history, killed, left_in

from pushrelay.errors import StoreError
from pushrelay.store import Draft
from pushrelay.store.journal import SIZE, Contents, Journal, new_of, read


@pytest.fixture
def path(tmp_path):
    return tmp_path / "recent"


def journal_at(path):
    journal = Journal(str(path), "epoch", "token", 1)
    journal.put_in_place()
    return journal


def test_a_record_is_there_for_the_next_process(path):
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


def test_a_record_of_an_earlier_commit_is_not_read_after_a_newer_one(path):
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
    """The kernel acts on SIGKILL between the pages that one write copies; each page is written wholly or not at all."""
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
    path.write_bytes(whole[:end])  # data after the end mark is ignored
    assert left_in(path) == (payloads, True)


def test_garbage_is_not_a_journal(path):
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


def test_it_reports_when_it_is_full(path):
    journal = journal_at(path)
    count = 0
    while journal.has_room(1000):
        journal.put(b"x" * 1000)
        count += 1
    assert SIZE - 2000 < count * 1008 < SIZE
    assert left_in(path) == ([b"x" * 1000] * count, True)


def test_the_room_of_a_journal_is_reserved_on_the_disk_at_once(path):
    need(hasattr(os, "posix_fallocate"), "posix_fallocate")
    journal_at(path)
    assert path.stat().st_blocks * 512 >= SIZE


def test_a_journal_that_is_cut_while_it_is_in_use_takes_more_records_and_ends_no_process(path):
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


def test_a_record_that_a_full_disk_does_not_take_is_not_in_the_journal(path):
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


def test_a_path_where_it_cannot_be_created_is_named(tmp_path):
    with pytest.raises(StoreError, match="nowhere"):
        Journal(str(tmp_path / "nowhere" / "recent"), "epoch", "token", 1)
    with pytest.raises(StoreError, match="recent"):
        (tmp_path / "recent").mkdir()
        read(str(tmp_path / "recent"))


def test_the_journal_that_a_killed_older_relay_left_is_read(path):
    seed, records = zlib.crc32((7).to_bytes(8, "little")), b""
    for payload in (b"a", b"bb" * 500):
        records += struct.pack("<II", len(payload), zlib.crc32(payload, seed)) + payload
    path.write_bytes((struct.pack("<8sQ24s", b"relayJ1\n", 7, b"epoch") + records).ljust(SIZE, b"\0"))
    assert read(str(path)) == Contents("epoch", "", 0, [b"a", b"bb" * 500])


# With the database.


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


def test_publications_as_an_older_relay_wrote_them_are_replayed(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db")
    entry = ["publication", "42", 1, 1774000000.123457, 4e9, 1, "order", '"old"']
    broker._store._files.journal.put(json.dumps([entry]).encode())
    again = open_at(killed(tmp_path / "relay.db", tmp_path / "copy.db"))
    assert history(again) == [(f"{again.epoch}:1", "order", "old", 1774000000.123457, 4e9)]


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
