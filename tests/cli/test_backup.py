"""`python relay.py backup` loses nothing under load, and after `restore` no client is told that it has everything."""

import itertools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading

import pytest
from conftest import DEADLINE, ROOT, clean_environ, own_only, wait_for
from redis_server import RedisServer
from terminal import run


class Load:
    """Pushes over four connections until it is stopped, each push to a destination of its own turn."""

    def __init__(self, relay):
        self.answered = []  # (destination, data), in the order of the answers
        self._relay = relay
        self._numbers = itertools.count()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._push) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def _push(self):
        while not self._ended.is_set():
            number = next(self._numbers)
            try:
                self._relay.push(f"load{number % 20}", f"{number}")
            except (OSError, AssertionError):
                return  # the relay was killed
            self.answered.append((f"load{number % 20}", f"{number}"))

    def wait(self, count):
        """Wait for `count` more answers."""
        until = len(self.answered) + count
        wait_for(lambda: len(self.answered) >= until, f"{count} answers")

    def stop(self):
        self._ended.set()
        for thread in self._threads:
            thread.join(DEADLINE)


def kept(relay, destination):
    body = relay.request("GET", f"/history?destination={destination}")[2]
    return [each["data"] for each in json.loads(body)["publications"]]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere"


@own_only
def test_a_backup_under_load_has_every_answered_push_and_nobody_recovers_past_it(start_relay, connect, folder):
    relay = start_relay(history_size=100_000)
    broker = relay.settings["broker"]
    load = Load(relay)
    files = []
    try:
        for number in range(4):
            load.wait(100)
            before = list(load.answered)
            files.append((folder / f"{number}.db", before))
            ran = run("backup", files[-1][0], f"--broker={broker}")
            assert (ran.returncode, ran.stderr) == (0, ""), ran
            assert int(ran.stdout.split()[1]) >= len(before) and "to 20 destinations" in ran.stdout
        load.wait(20)
    finally:
        load.stop()
    after = relay.push("load0", "after the backup")["id"]
    relay.kill()

    file, before = files[-1]
    place = f"sqlite:{folder}/relay.db"
    ran = run("restore", file, f"--broker={place}")
    assert ran.returncode == 0 and "from the backup of" in ran.stdout, ran
    restored = start_relay(broker=place, history_size=100_000)
    for number in range(20):
        name = f"load{number}"
        had = [data for destination, data in before if destination == name]
        assert set(had) <= set(kept(restored, name))
    assert "this is a backup of" in restored.log.read_text()

    for number in range(50):  # until the offset of `after` has been given out again
        later = restored.push("load0", f"{number}")["id"]
    client = connect(restored.url)
    answer = client.call("register", {"id": "load0", "since": after})
    assert answer["ids"]["load0"]["recovered"] is False
    answer = client.call("register", {"id": "load0", "since": later})
    assert answer["ids"]["load0"]["recovered"] is True


@own_only
def test_a_running_relay_is_not_restored_and_a_stopped_one_is(start_relay, folder):
    relay = start_relay()
    relay.push("42", "in the backup")
    broker = f"--broker={relay.settings['broker']}"
    assert run("backup", folder / "backup.db", broker).stdout.endswith(": 1 publications to 1 destinations\n")
    ran = run("restore", folder / "backup.db", broker)
    assert (ran.returncode, ran.stdout) == (1, "") and "a relay uses this store: stop it first" in ran.stderr
    relay.push("42", "after the backup")
    assert kept(relay, "42") == ["in the backup", "after the backup"]
    relay.stop()
    ran = run("restore", folder / "backup.db", broker)
    assert ran.returncode == 0 and "Now start the relay" in ran.stdout
    assert os.path.exists(ran.stdout.split("The previous store is ")[1].split(";")[0])
    relay.start()
    assert kept(relay, "42") == ["in the backup"]


@own_only
def test_a_backup_that_is_terminated_is_complete_or_not_there(start_relay, folder):
    relay = start_relay(history_bytes=100_000_000, history_size=1000)
    for number in range(30):
        relay.push("42", f"{number}" + "x" * 900_000)
    command = [sys.executable, str(ROOT / "relay.py"), "backup", str(folder / "backup.db")]
    command.append(f"--broker={relay.settings['broker']}")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environ())
    wait_for(lambda: os.listdir(folder) or process.poll() is not None, "the file under its temporary name")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=DEADLINE)
    if os.listdir(folder):  # it was done before the signal came
        restored = run("restore", folder / "backup.db", f"--broker=sqlite:{folder}/relay.db")
        assert ": 30 publications to 1 destinations" in restored.stdout, restored
    else:
        assert process.returncode == 128 + signal.SIGTERM


@own_only
def test_a_restored_redis_begins_a_new_epoch_after_the_command_of_the_docs(start_relay, connect, tmp_path):
    """With durability = power a relay trusts a Redis that was restarted, and cannot see that its data is older."""
    command = next(line for line in (ROOT / "docs/operations.md").read_text().splitlines() if "redis-cli HDEL" in line)
    _, *hdel = shlex.split(command)
    dump = tmp_path / "backup.rdb"
    with RedisServer(tmp_path / "old", appendonly="yes", appendfsync="always") as redis:
        relay = start_relay(broker=redis.url, durability="power")
        relay.push("42", "in the backup")
        subprocess.run(["redis-cli", "-p", str(redis.port), "--rdb", dump], check=True, capture_output=True, timeout=30)
        after = [relay.push("42", f"{n}")["id"] for n in range(3)][-1]
        relay.stop()
    (tmp_path / "new").mkdir()
    shutil.copy(dump, tmp_path / "new" / "dump.rdb")
    with RedisServer(tmp_path / "new", appendonly="no") as redis:
        assert redis.ask(*hdel) == 1
        redis.ask("CONFIG", "SET", "appendonly", "yes")
        redis.ask("CONFIG", "SET", "appendfsync", "always")
        relay = start_relay(broker=redis.url, durability="power")
        assert kept(relay, "42") == ["in the backup"]
        for number in range(10):
            relay.push("42", f"{number}")
        answer = connect(relay.url).call("register", {"id": "42", "since": after})
        assert answer["ids"]["42"]["recovered"] is False


@pytest.mark.parametrize(
    ("command", "broker", "words"),
    [
        ("backup", "memory:", "there is nothing to back up"),
        ("backup", "unix:///run/redis.sock", "redis-cli --rdb FILE"),
        ("restore", "rediss+sentinel://a.example.com,b.example.com/mymaster/0", "redis-cli --rdb FILE"),
    ],
)
def test_a_broker_without_a_file_is_explained(command, broker, words, folder):
    ran = run(command, folder / "file.db", f"--broker={broker}")
    assert (ran.returncode, ran.stdout) == (1, "") and words in ran.stderr


def test_a_backup_in_the_wrong_folder_names_the_path_and_what_it_depends_on(folder):
    ran = run("backup", folder / "file.db", f"--broker=sqlite:{folder}/relay.db")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert f"{folder}/relay.db: there is no store" in ran.stderr and "in which the relay is started" in ran.stderr
