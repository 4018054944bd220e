"""An accepted push is not lost: kill -9, networks that go away, crowds that come back, and disks that are full.

The same at full size, by hand: FULL_SIZE=1 pytest tests/whole/test_delivery.py -s
"""

import contextlib
import ctypes
import http.client
import itertools
import json
import os
import pathlib
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
from clients import Follower, Wire
from conftest import DEADLINE, ROOT, need, wait_for
from measures import FULL_SIZE, p99, report
from network import Network
from starting import assert_stops_with_a_sentence, run

from pushrelay.store.publication import offset_of

HERE = ROOT / "tests"
DESTINATIONS = [f"dest-{n}" for n in range(5)]
LONG = {"history_size": 100_000, "history_ttl": 3600}

pytestmark = pytest.mark.usefixtures("many_files")


@pytest.fixture(scope="session")
def server():
    """The relay's own server: these promises are the broker's, which is the same under Werkzeug."""
    return "own"


class Publishers:
    """Threads that push without a pause, each to all destinations in turn, and keep what was answered with 200.

    Whether a push without an answer was stored is not known. It is not sent again; the next one is.
    """

    def __init__(self, relay, count, pause=0.0):
        self.port, self.pause = relay.port, pause
        self.accepted = {each: {} for each in DESTINATIONS}  # destination: {id: data}
        self.failed = 0
        self.seconds = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self, number):
        connection = None
        for count in itertools.count():
            if self._ended.wait(self.pause):
                break
            destination, data = DESTINATIONS[count % len(DESTINATIONS)], f"{number}-{count}"
            body = f"destination={destination}&data={data}"
            start = time.monotonic()
            try:
                connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
                connection.request("POST", "/push", body)
                answer = connection.getresponse()
                text = answer.read()
                assert answer.status in (200, 503), text
            except (OSError, http.client.HTTPException):
                connection = None
                time.sleep(0.02)
            with self._lock:
                if connection is None or answer.status != 200:
                    self.failed += 1
                    continue
                self.seconds.append(time.monotonic() - start)
                self.accepted[destination][json.loads(text)["id"]] = data

    def count(self):
        return sum(map(len, self.accepted.values()))

    def end(self):
        self._ended.set()
        for thread in self._threads:
            thread.join(DEADLINE)


def offset(position):
    return int(position.rpartition(":")[2])


def check(who, messages, accepted, started):
    """Check that these are all messages of a destination since `started`, in order, each once and unchanged."""
    offsets = [offset(message["id"]) for message in messages]
    # Stronger than "all that were accepted": the offsets have no gap, so pushes without an answer are there as well.
    assert offsets == list(range(offset(started) + 1, offset(started) + 1 + len(offsets))), who
    got = {message["id"]: message["data"] for message in messages}
    missing = {id_: data for id_, data in accepted.items() if got.get(id_) != data}
    assert not missing, (who, missing)


class FollowingPages:
    """The official socket.io-client, one socket for each id; see following_client.js."""

    def __init__(self, url, transport, ids):
        need(shutil.which("node"), "Node (apt-get install nodejs npm)")
        need((HERE / "node_modules/socket.io-client").exists(), "socket.io-client (cd tests && npm install)")
        command = ["node", str(HERE / "following_client.js"), url, transport, *ids]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE)
        self.ids = ids
        self.messages = [[] for _ in ids]
        self.answers = [[] for _ in ids]
        threading.Thread(target=self._read, daemon=True).start()
        wait_for(lambda: all(self.answers), "the registrations")

    def _read(self):
        for line in self.process.stdout:
            said = json.loads(line)
            if "message" in said:
                self.messages[said["number"]].append(said["message"])
            else:
                self.answers[said["number"]].append(said["registered"])

    def close(self):
        self.process.kill()
        self.process.wait(DEADLINE)


@pytest.fixture
def follow():
    """follow(port, id) gives a raw client that reconnects automatically; it ends with the test."""
    followers = []

    def start(port, id_):
        followers.append(Follower(port, id_))
        return followers[-1]

    yield start
    for each in followers:
        each._ended = True
    for each in followers:
        each.close()


@pytest.fixture
def pages():
    started = []

    def start(*args):
        started.append(FollowingPages(*args))
        return started[-1]

    yield start
    for each in started:
        each.close()


def all_there(clients, publishers):
    """Wait until every client has the last accepted push of its destination, then check them all."""
    for who, id_, messages, answers in clients:
        accepted = publishers.accepted[id_]
        last = max(map(offset, accepted))
        wait_for(lambda m=messages, last=last: m and offset(m[-1]["id"]) >= last, f"the last push at {who}")
        check(who, messages, accepted, answers[0]["position"])
        assert all(answer["recovered"] for answer in answers[1:]), (who, answers)


def listening(followers, pages=()):
    clients = [(f"follower {n}", each.id, each.messages, each.answers) for n, each in enumerate(followers)]
    for page in pages:
        rows = zip(page.ids, page.messages, page.answers, strict=True)
        clients += [(f"page {n}", *row) for n, row in enumerate(rows)]
    return clients


# kill -9.


def test_every_push_that_was_answered_survives_ten_kills_and_comes_in_order_and_once(start_relay, follow, pages):
    relay = start_relay(**LONG)
    followers = [follow(relay.port, DESTINATIONS[n % 5]) for n in range(14)]
    browsers = [pages(relay.url, "websocket", DESTINATIONS), pages(relay.url, "polling", DESTINATIONS[:1])]
    publishers = Publishers(relay, 8, pause=0.002)
    for number in range(10):
        before = publishers.count()
        wait_for(lambda before=before: publishers.count() > before + 100, "some pushes")
        if number % 3 == 0:  # before the other kills they may still be on their way
            wait_for(lambda times=number // 3: came_back(followers, times), "the return of most")
        relay.kill()
        relay.start()
    before = publishers.count()
    wait_for(lambda: publishers.count() > before + 100, "pushes after the last kill")
    publishers.end()
    clients = listening(followers, browsers)
    all_there(clients, publishers)
    assert publishers.failed > 0
    report(f"{publishers.count()} pushes answered, {publishers.failed} not; {len(clients)} clients have all of them")


def came_back(followers, times):
    """Return whether most have been registered again that often."""
    return sum(len(each.answers) > times for each in followers) > 10


def test_retries_with_a_key_are_one_push_each_though_the_relay_is_killed(start_relay, follow):
    relay = start_relay(**LONG)
    follower = follow(relay.port, "retried")

    def push(number):
        for count in range(40):
            while True:
                try:
                    body = f"destination=retried&data={number}-{count}&id={number}-{count}".encode()
                    if relay.request("POST", "/push", body)[0] == 200:
                        break
                except (OSError, http.client.HTTPException):
                    time.sleep(0.02)

    threads = [threading.Thread(target=push, args=(n,), daemon=True) for n in range(4)]
    for thread in threads:
        thread.start()
    for count in (40, 100):
        wait_for(lambda count=count: len(follower.messages) > count, "some pushes")
        relay.kill()
        relay.start()
    for thread in threads:
        thread.join(DEADLINE)
    wait_for(lambda: len(follower.messages) >= 160, "all pushes")
    for number in range(4):
        mine = [data for data in follower.data() if data.startswith(f"{number}-")]
        assert mine == [f"{number}-{count}" for count in range(40)]


# Power cuts.


@pytest.fixture
def sync_log(tmp_path, monkeypatch):
    """The file in which relays note the length of each file that they sync; see synced.c."""
    need(shutil.which("cc"), "a C compiler (apt-get install gcc libc6-dev)")
    library = tmp_path / "synced.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(HERE / "synced.c"), "-ldl"], check=True)
    monkeypatch.setenv("SYNC_LOG", str(tmp_path / "synced"))
    monkeypatch.setenv("LD_PRELOAD", str(library))
    return tmp_path / "synced"


@pytest.mark.parametrize("durability", ["power", "process"])
def test_with_durability_power_no_answered_push_is_lost_with_unsynced_data(start_relay, tmp_path, sync_log, durability):
    file, wal = tmp_path / "power.db", tmp_path / "power.db-wal"
    relay = start_relay(broker=f"sqlite:{file}", durability=durability, **LONG)
    publishers = Publishers(relay, 8)
    wait_for(lambda: publishers.count() > 1000, "some pushes", 3 * DEADLINE)
    relay.kill()
    publishers.end()
    # The WAL is appended to until it is 16 MiB long, and the database itself not written before: so the last sync's
    # length of the WAL is what the power cut leaves.
    assert wal.stat().st_size < 12 << 20
    lines = [line.split(" ", 1) for line in sync_log.read_text().splitlines()]
    sizes = [int(size) for size, path in lines if path == str(wal)]
    os.truncate(wal, sizes[-1] if sizes else 0)
    if durability == "process":
        (tmp_path / "power.db-recent").unlink()  # what is put there is never synced
    relay.start()
    # By offset: what may have lost something has another epoch.
    there = {(each, offset_of(found["id"])) for each in DESTINATIONS for found in kept(relay, each)}
    accepted = {(each, offset_of(id_)) for each, ids in publishers.accepted.items() for id_ in ids}
    missing = accepted - there
    if durability == "power":
        assert not missing
        report(f"{publishers.count()} pushes answered over {len(sizes)} syncs of the WAL")
    else:
        assert missing, "the cut takes nothing, so it proves nothing"


def test_the_boot_of_the_machine_is_on_the_disk_before_a_push_is_answered(start_relay, tmp_path, sync_log):
    """The files that a power cut leaves name another boot, and so a new epoch begins."""
    file, cut = tmp_path / "power.db", tmp_path / "cut.db"
    relay = start_relay(broker=f"sqlite:{file}")
    assert relay.push("42", "x")["id"]
    synced = {path: int(size) for size, path in (line.split(" ", 1) for line in sync_log.read_text().splitlines())}
    relay.kill()
    for suffix in ("", "-wal"):
        content = pathlib.Path(f"{file}{suffix}").read_bytes()
        pathlib.Path(f"{cut}{suffix}").write_bytes(content[: synced.get(f"{file}{suffix}", 0)])
    with contextlib.closing(sqlite3.connect(cut)) as connection:
        note = dict(connection.execute("SELECT name, value FROM meta WHERE name IN ('open', 'working')").fetchall())
    assert note == {"open": pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip(), "working": 1}


# Networks that go away.


@pytest.mark.parametrize("resume", [True, False], ids=["the old connections go on", "the old connections stay dead"])
def test_clients_whose_network_was_gone_miss_nothing(start_relay, follow, pages, resume):
    relay = start_relay(ping_interval=1, ping_timeout=2, **LONG)
    with Network(relay.port) as network:
        followers = [follow(network.port, DESTINATIONS[n % 5]) for n in range(10)]
        untouched = [follow(relay.port, each) for each in DESTINATIONS]
        browsers = [pages(f"http://127.0.0.1:{network.port}", "websocket", DESTINATIONS)]
        publishers = Publishers(relay, 8, pause=0.01)
        for seconds in (0.3, 12 if FULL_SIZE else 5):  # too short to be noticed, and long enough for both ends
            before = publishers.count()
            wait_for(lambda before=before: publishers.count() > before + 100, "some pushes")
            network.drop()
            time.sleep(seconds)  # the test is about this time: nothing is waited for
            network.come_back(resume)
        before = publishers.count()
        wait_for(lambda: publishers.count() > before + 100, "some pushes")
        publishers.end()
        assert publishers.failed == 0
        clients = listening(followers, browsers)
        all_there(clients, publishers)
        all_there(listening(untouched), publishers)
        # Missed pushes come before the answer to the registration, so that may still be on its way.
        wait_for(lambda: all(len(answers) > 1 for *_, answers in clients), "the clients' next registrations")
        assert all(answer["recovered"] for *_, answers in clients for answer in answers[1:])
        assert all(len(each.answers) == 1 for each in untouched)
        report(f"{publishers.count()} pushes, {len(clients)} clients, p99 {1000 * p99(publishers.seconds):.0f} ms")


# Crowds that come back.


@pytest.mark.timed  # it measures time
def test_a_crowd_that_comes_back_at_once_is_recovered_while_pushes_continue(start_relay):
    count = 10_000 if FULL_SIZE else 1_000
    relay = start_relay(history_ttl=3600)
    epoch = relay.push("first", "x")["id"].partition(":")[0]
    for block in range(0, count, 50):
        items = [{"destination": f"client-{n}", "data": f"m{m}"} for n in range(block, block + 50) for m in range(20)]
        assert (
            relay.request("POST", "/push", json.dumps(items).encode(), {"Content-Type": "application/json"})[0] == 200
        )
    command = [sys.executable, str(HERE / "returning_crowd.py"), str(relay.port), str(count), epoch]
    crowd = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE)
    publishers = Publishers(relay, 1, pause=0.002)
    said = json.loads(crowd.communicate(timeout=150)[0])
    publishers.end()
    assert (said["recovered"], said["wrong"], said["replayed"]) == (count, 0, 20 * count)
    assert publishers.failed == 0
    report(
        f"{count} clients, 20 behind each: all recovered in {said['seconds']:.2f} s, beside {publishers.count()} "
        f"pushes, median {1000 * sorted(publishers.seconds)[publishers.count() // 2]:.1f} ms, "
        f"p99 {1000 * p99(publishers.seconds):.1f} ms"
    )
    assert p99(publishers.seconds) < (0.2 if FULL_SIZE else 0.5)


# Stores in trouble.


def ready(relay):
    status, _, body = relay.request("GET", "/health/ready")
    return status, json.loads(body)


def kept(relay, destination):
    return json.loads(relay.request("GET", f"/history?destination={destination}")[2])["publications"]


def refused(relay, destination="trouble", data="x"):
    """Push; return the message of the 503, or None if the push was accepted."""
    status, answer = relay.push_json(destination=destination, data=data)
    assert status in (200, 503), answer
    if status == 200:
        return None
    assert answer["error"] == "store_not_available", answer
    return answer["message"]


@contextlib.contextmanager
def mounted(folder, options):
    """A small file system of its own for one test."""
    libc = ctypes.CDLL(None, use_errno=True)
    made = os.geteuid() == 0 and libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, options.encode()) == 0
    need(made, "the right to mount a small tmpfs (run the tests as root)")
    try:
        yield
    finally:
        libc.umount2(os.fsencode(folder), 2)  # MNT_DETACH


@pytest.fixture
def full_disk(tmp_path, request):
    """(settings for a relay whose disk is small, a function that fills it, one that makes room)"""
    folder = tmp_path / "small"
    folder.mkdir()
    if request.param == "a file system of 4 MB":
        with mounted(folder, "size=4m"):
            filler = folder / "filler"
            filler.write_bytes(b"x" * (2 << 20))
            yield folder / "relay.db", lambda relay: None, lambda relay: filler.unlink()
        return
    limit = 2 << 20

    def fill(relay):
        resource.prlimit(relay.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def make_room(relay):
        resource.prlimit(relay.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)

    yield folder / "relay.db", fill, make_room


@pytest.mark.parametrize("full_disk", ["a file system of 4 MB", "a file of at most 2 MB"], indirect=True)
def test_no_push_that_was_answered_is_missing_after_the_disk_was_full(start_relay, follow, full_disk):
    file, fill, make_room = full_disk
    relay = start_relay(broker=f"sqlite:{file}", history_size=10_000)
    follower = follow(relay.port, "full")
    accepted, said = [], None
    fill(relay)
    for number in range(2000):
        status, answer = relay.push_json(destination="full", data=f"{number}" + "x" * 20_000)
        if status == 200:
            accepted.append(answer["id"])
        else:
            said = answer
        if said and number > len(accepted) + 20:
            break
    assert said and said["error"] == "store_not_available" and "disk" in said["message"], said
    assert len(accepted) > 20
    assert wait_for(lambda: ready(relay)[0] == 503, "the health check to report it")
    assert "disk" in ready(relay)[1]["reason"]
    assert relay.request("GET", "/health/live")[0] == 200
    make_room(relay)
    accepted.append(
        wait_for(lambda: (a := relay.push_json(destination="full", data="room"))[0] == 200 and a[1]["id"], "room again")
    )
    wait_for(lambda: ready(relay)[0] == 200, "the health check to be well")
    wait_for(lambda: set(accepted) <= set(follower.ids()), "all at the client")
    offsets = [offset(each["id"]) for each in follower.messages]
    assert offsets == list(range(1, len(offsets) + 1))
    assert [each["id"] for each in kept(relay, "full")] == follower.ids()
    relay.kill()
    relay.start()
    assert [each["id"] for each in kept(relay, "full")] == follower.ids()


def test_a_store_that_another_program_locks_is_reported_and_recovers_automatically(start_relay, tmp_path):
    file = tmp_path / "locked.db"
    relay = start_relay(broker=f"sqlite:{file}")
    first = relay.push("trouble", "before")["id"]
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert "lock" in refused(relay)
    assert ready(relay)[0] == 503 and "lock" in ready(relay)[1]["reason"]
    assert len(kept(relay, "trouble")) == 1, "reading goes on"
    other.execute("ROLLBACK")
    other.close()
    wait_for(lambda: refused(relay) is None, "the store to be back")
    wait_for(lambda: ready(relay)[0] == 200, "the health check to be well")
    publications = kept(relay, "trouble")
    assert [offset(each["id"]) for each in publications] == list(
        range(offset(first), offset(first) + len(publications))
    )
    assert "Traceback" not in relay.log.read_text()


def test_a_store_that_cannot_be_read_is_reported_and_recovers_automatically(start_relay, tmp_path):
    file = tmp_path / "away" / "relay.db"
    file.parent.mkdir()
    relay = start_relay(broker=f"sqlite:{file}")
    taken = [relay.push("trouble", "before")["id"]]
    file.parent.rename(tmp_path / "elsewhere")  # as with a disk that is unmounted: root could read any mode of a file
    message = wait_for(lambda: refused(relay), "the relay to notice")
    assert str(file) in message
    wait_for(lambda: ready(relay)[0] == 503, "the health check to report it")
    (tmp_path / "elsewhere").rename(file.parent)
    answer = wait_for(
        lambda: (a := relay.push_json(destination="trouble", data="after"))[0] == 200 and a[1], "the store"
    )
    taken.append(answer["id"])
    assert set(taken) <= {each["id"] for each in kept(relay, "trouble")}


def test_every_answer_names_what_was_not_done_while_the_store_is_in_trouble(start_relay, tmp_path):
    file = tmp_path / "away" / "relay.db"
    file.parent.mkdir()
    relay = start_relay(broker=f"sqlite:{file}", socket_push="yes")
    client = Wire(relay.port)
    position = relay.push("known", "x")["id"]
    client.call("register", {"id": ["known", "kept"]})
    file.parent.rename(tmp_path / "elsewhere")
    wait_for(lambda: refused(relay), "the relay to notice")

    def said(event, message):
        events, answer = client.call(event, message)
        assert (events, answer["ok"], answer["error"]) == ([], False, "store_not_available"), answer
        assert str(file) not in answer["message"], "only the log and callers on this machine get a path"
        return answer["message"]

    assert said("register", {"id": ["new", "known", "newer"]}).startswith("nothing was registered; register again")
    assert said("register", {"id": ["known", "unknown"], "since": "acked"}).startswith("nothing was registered")
    assert said("ack", {"id": "known", "position": position}).startswith("it was not acknowledged; acknowledge it")
    assert said("push", {"destination": "known", "data": 1}).startswith("the push was not taken; send it again")
    assert client.call("unregister", {"id": "kept"})[1] == {"ok": True}
    assert refused(relay).startswith("the push was not taken; send it again later: ")
    answers = {
        "/push": relay.request(
            "POST", "/push", b'[{"destination":"a","data":1}]', {"Content-Type": "application/json"}
        ),
        "/history": relay.request("GET", "/history?destination=unknown"),
    }
    assert {status for status, *_ in answers.values()} == {503}
    messages = {path: json.loads(body)["message"] for path, (_, _, body) in answers.items()}
    assert messages["/push"].startswith("the batch was not taken, none of it; send it again")
    assert messages["/history"].startswith("the history cannot be read; ask again")

    (tmp_path / "elsewhere").rename(file.parent)
    wait_for(lambda: refused(relay, "back") is None, "the store")
    assert [relay.push(each, "y")["connections"] for each in ("known", "kept", "new", "newer")] == [1, 0, 0, 0]
    assert client.call("ack", {"id": "known", "position": position})[1] == {"ok": True}
    client.close()


def test_a_damaged_file_stops_the_start(tmp_path):
    file = tmp_path / "damaged.db"
    file.write_bytes(b"no database at all " * 1000)
    ran = run("--port=0", f"--broker=sqlite:{file}")
    assert_stops_with_a_sentence(ran, str(file), "not an SQLite database", "move it")
    assert file.read_bytes().startswith(b"no database"), "what stood there was overwritten"


def test_a_folder_that_cannot_be_written_stops_the_start(tmp_path):
    folder = tmp_path / "read-only"
    folder.mkdir()
    with mounted(folder, "size=1m,ro") if os.geteuid() == 0 else contextlib.nullcontext(folder.chmod(0o555)):
        ran = run("--port=0", f"--broker=sqlite:{folder / 'relay.db'}")
    assert_stops_with_a_sentence(ran, str(folder), "writ")


def test_a_folder_that_is_not_there_stops_the_start(tmp_path):
    ran = run("--port=0", f"--broker=sqlite:{tmp_path}/none/relay.db")
    assert_stops_with_a_sentence(ran, f"{tmp_path}/none", "folder")


def test_a_second_relay_on_the_same_file_stops_the_start_and_the_first_serves_on(start_relay, tmp_path):
    relay = start_relay(broker=f"sqlite:{tmp_path}/one.db")
    ran = run("--port=0", f"--broker=sqlite:{tmp_path}/one.db")
    assert_stops_with_a_sentence(ran, f"{tmp_path}/one.db", "another relay")
    assert refused(relay) is None
