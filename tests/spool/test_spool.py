"""The spool of a relay that really runs, with files of PHP and of other programs."""

import json
import os
import re
import subprocess

import pytest
from conftest import DEADLINE, ROOT, own_only, wait_for
from phplab import CLIENT

from pushrelay.log.limiter import LogLimiter
from pushrelay.push.counts import PushCounts
from pushrelay.settings import Settings
from pushrelay.spool import spool as part
from pushrelay.store import open_broker

PAGE = ROOT / "docs/spool.md"
WRITER = """
for ($n = 0; !file_exists('{stop}'); $n++) {{
    $answer = $relay->push('{name}', $n);
    $kinds[isset($answer['spooled']) ? 'spooled' : ($answer ? 'pushed' : $relay->lastError())] = true;
    usleep(10000);
}}
echo json_encode([$n, array_keys($kinds)]);
"""


@pytest.fixture(scope="module")
def shared(relay_with, tmp_path_factory):
    """One relay for most tests, and its folder, which has a file from the beginning."""
    folder = tmp_path_factory.mktemp("shared") / "spool"
    folder.mkdir(mode=0o700)
    put(folder, "1", {"destination": "a", "data": "before the start"})
    return relay_with(spool=folder), folder


@pytest.fixture
def spool(tmp_path):
    folder = tmp_path / "spool"
    folder.mkdir(mode=0o700)
    return folder


def put(folder, name, *pushes):
    body = json.dumps(pushes[0] if len(pushes) == 1 else pushes)
    (folder / f".{name}.tmp").write_text(body)
    (folder / f".{name}.tmp").rename(folder / f"{name}.json")


def waiting(folder):
    return [name for name in os.listdir(folder) if name.endswith(".json")]


def history(relay, destination):
    body = relay.request("GET", f"/history?destination={destination}")[2]  # one page has all that these tests push
    return [each["data"] for each in json.loads(body)["publications"]]


def metric(relay, name):
    return float(re.search(rf"^{re.escape(name)} (\S+)$", relay.request("GET", "/metrics")[2].decode(), re.M)[1])


def ready(relay):
    status, _, body = relay.request("GET", "/health/ready")
    assert status == 200
    return json.loads(body).get("trouble", {}).get("spool")


@own_only
def test_files_are_delivered_to_pages_within_a_second_and_checked_as_over_http(shared, connect):
    relay, spool = shared
    client = connect(relay.url, "b")
    put(spool, "2", {"destination": "a", "data": 2}, {"destination": ["b", "c"], "data": 3, "event": "order"})
    put(spool, "3", {"destination": "a", "datum": 2})
    by_shell = next(part for part in re.findall(r"\n\n((?:    .*\n)+)", PAGE.read_text()) if "printf" in part)
    subprocess.run(["bash", "-ec", by_shell.replace("/var/spool/relay", str(spool))], check=True)
    wait_for(lambda: not waiting(spool), "an empty spool")
    assert client.wait(1)[0][0] == "order" and history(relay, "a") == ["before the start", 2]
    assert history(relay, "42") == [{"text": "hello"}]
    # The counts change after the files are gone.
    wait_for(lambda: "refused/3.json: unknown_field: " in relay.log.read_text(), "the line in the log")
    taken, refused = (f'relay_spool_files_total{{result="{result}"}}' for result in ("taken", "refused"))
    wait_for(lambda: (metric(relay, taken), metric(relay, refused)) == (3, 1), "the counts")
    gauges = ("relay_spool_waiting", "relay_spool_oldest_seconds")
    wait_for(lambda: [metric(relay, each) for each in gauges] == [0, 0], "the gauges")
    facts = json.loads(relay.request("GET", "/status.json")[2])["backend"]["spool"]
    assert facts["summary"] == "0 files wait, 3 taken, 1 refused"


@own_only
def test_whoever_is_killed_each_push_arrives_once_and_in_the_order_of_its_process(start_relay, spool, php):
    """tests/spool_chaos.py does this for longer."""
    relay = start_relay(spool=spool, history_size=10_000)
    writers = []
    for number in range(4):
        script = php.folder / f"writer{number}.php"
        options = f"['spool' => '{spool}', 'budget' => 1]"
        code = f"<?php require '{CLIENT}'; $relay = new Relay('{relay.url}', {options});"
        script.write_text(code + WRITER.format(stop=php.folder / "stop", name=f"p{number}"))
        writers.append(subprocess.Popen(["php", script], env=php.environ, stdout=subprocess.PIPE, text=True))
    wait_for(lambda: len(history(relay, "p0")) > 5, "the first pushes")
    relay.kill()
    wait_for(lambda: len(waiting(spool)) > 40, "files in the spool")
    for number in range(700):
        put(spool, f"0000{number:04}", {"destination": f"d{number % 7}", "data": number})
    relay.start()
    wait_for(lambda: len(waiting(spool)) < 600, "files that were taken")
    relay.kill()
    relay.start()
    (php.folder / "stop").touch()
    told = [json.loads(each.communicate(timeout=DEADLINE)[0]) for each in writers]
    wait_for(lambda: not waiting(spool), "an empty spool")
    assert {kind for _, kinds in told for kind in kinds} == {"spooled", "pushed"}
    assert [history(relay, f"p{number}") for number in range(4)] == [list(range(count)) for count, _ in told]
    assert [history(relay, f"d{name}") for name in range(7)] == [list(range(name, 700, 7)) for name in range(7)]


@own_only
def test_a_second_relay_on_the_same_folder_does_not_start(shared, start_relay):
    _, spool = shared
    with pytest.raises(AssertionError) as refused:
        start_relay(spool=spool)
    assert f"relay: another relay takes the files in {spool}: stop it, or give each relay its own" in str(refused.value)


@own_only
def test_a_folder_that_cannot_be_used_is_trouble_that_ends_by_itself(shared):
    relay, spool = shared
    old = spool.rename(spool.with_name("old"))
    wait_for(lambda: (ready(relay) or "").startswith(f"there is no folder {spool}"), "the trouble")
    wait_for(lambda: f"spool: there is no folder {spool}" in relay.log.read_text(), "the line in the log")
    old.rename(spool)
    put(spool, "9", {"destination": "trouble", "data": 1})
    wait_for(lambda: history(relay, "trouble") == [1], "the file's push")
    wait_for(lambda: not ready(relay), "the end of the trouble")


@own_only
def test_while_the_disk_of_the_store_is_full_files_wait(start_relay, spool, disk):
    relay = start_relay(broker=f"sqlite:{disk}/relay.db", spool=spool)
    (disk / "full").write_bytes(b"x")
    with (disk / "full").open("ab", buffering=0) as filler, pytest.raises(OSError):
        while True:
            filler.write(b"x" * 4096)
    for number in range(400):
        put(spool, f"{number:04}", {"destination": "a", "data": "x" * 2000})
    wait_for(lambda: metric(relay, "relay_spool_oldest_seconds") > 0.5, "files that wait")
    wait_for(lambda: "spool: files wait in" in relay.log.read_text(), "the line in the log")
    (disk / "full").unlink()
    wait_for(lambda: not waiting(spool), "an empty spool")
    wait_for(lambda: "spool works again" in relay.log.read_text(), "the end of the trouble")


def test_a_ring_makes_it_look_at_once(spool, monkeypatch):
    """POST /ring calls it: test_outbox.py."""
    monkeypatch.setattr(part, "EVERY", 100 * DEADLINE)
    monkeypatch.setattr(part, "SOON", 100 * DEADLINE)
    broker = open_broker("memory:", lambda publication, skip_sid: 0)
    broker.start()
    taker = part.Spool(broker, Settings(spool=str(spool)), PushCounts(), LogLimiter())
    taker.start()
    try:
        for number in range(3):
            put(spool, f"{number}", {"destination": "a", "data": number})
            taker.ring()
            wait_for(lambda: not waiting(spool), "an empty spool")
    finally:
        taker.close()
        broker.close()
