"""The spool of a relay that really runs, with files of PHP and of other programs."""

import json
import os
import re
import subprocess
import time

import pytest
from conftest import DEADLINE, ROOT, own_only, wait_for
from phplab import CLIENT

pytestmark = own_only

PAGE = ROOT / "docs/spool.md"
WRITER = """
for ($n = 0; $n < {count}; $n++) {{
    $answer = $relay->push('{name}', $n);
    $kinds[isset($answer['spooled']) ? 'spooled' : ($answer ? 'pushed' : $relay->lastError())] = true;
    usleep({pause});
}}
echo json_encode(array_keys($kinds ?? []));
"""


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
    body = relay.request("GET", f"/history?destination={destination}")[2]
    return [each["data"] for each in json.loads(body)["publications"]]


def metric(relay, name):
    return float(re.search(rf"^{re.escape(name)} (\S+)$", relay.request("GET", "/metrics")[2].decode(), re.M)[1])


def ready(relay):
    status, _, body = relay.request("GET", "/health/ready")
    assert status == 200
    return json.loads(body).get("trouble", {}).get("spool")


def test_files_are_delivered_to_pages_within_a_second_and_checked_as_over_http(start_relay, connect, spool):
    put(spool, "1", {"destination": "a", "data": "before the start"})
    relay = start_relay(spool=spool)
    client = connect(relay.url, "b")
    put(spool, "2", {"destination": "a", "data": 2}, {"destination": ["b", "c"], "data": 3, "event": "order"})
    put(spool, "3", {"destination": "a", "datum": 2})
    by_shell = next(part for part in re.findall(r"\n\n((?:    .*\n)+)", PAGE.read_text()) if "printf" in part)
    subprocess.run(["bash", "-ec", by_shell.replace("/var/spool/relay", str(spool))], check=True)
    wait_for(lambda: not waiting(spool), "an empty spool")
    assert client.wait(1)[0][0] == "order" and history(relay, "a") == ["before the start", 2]
    assert history(relay, "42") == [{"text": "hello"}]
    assert "refused/3.json: unknown_field: " in relay.log.read_text()
    assert metric(relay, 'relay_spool_files_total{result="taken"}') == 3
    assert metric(relay, 'relay_spool_files_total{result="refused"}') == 1
    assert metric(relay, "relay_spool_waiting") == metric(relay, "relay_spool_oldest_seconds") == 0
    facts = json.loads(relay.request("GET", "/status.json")[2])["backend"]["spool"]
    assert facts["summary"] == "0 files wait, 3 taken, 1 refused"
    assert relay.stop() == 0 and "Traceback" not in relay.log.read_text()


def test_pushes_of_many_processes_while_the_relay_is_down_arrive_once_and_in_order(start_relay, spool, php):
    """tests/spool_chaos.py does this for longer, and kills the relay while it takes the files."""
    relay = start_relay(spool=spool, history_size=1000)
    scripts = []
    for number in range(4):
        script = php.folder / f"writer{number}.php"
        options = f"['spool' => '{spool}', 'budget' => 1]"
        code = f"<?php require '{CLIENT}'; $relay = new Relay('{relay.url}', {options});"
        script.write_text(code + WRITER.format(count=60, name=f"p{number}", pause=10_000))
        scripts.append(subprocess.Popen(["php", script], env=php.environ, stdout=subprocess.PIPE, text=True))
    wait_for(lambda: len(history(relay, "p0")) > 5, "the first pushes")
    relay.kill()
    wait_for(lambda: len(waiting(spool)) > 60, "files in the spool")
    relay.start()
    wait_for(lambda: len(history(relay, "p0")) > 20, "files that were taken")
    relay.kill()
    relay.start()
    kinds = {kind for each in scripts for kind in json.loads(each.communicate(timeout=DEADLINE)[0])}
    wait_for(lambda: not waiting(spool), "an empty spool")
    assert [history(relay, f"p{number}") for number in range(4)] == [list(range(60))] * 4
    assert kinds == {"spooled", "pushed"}


def test_a_relay_that_is_killed_again_and_again_publishes_each_file_once(start_relay, spool):
    for number in range(1000):
        put(spool, f"{number:06}", {"destination": f"d{number % 7}", "data": number})
    relay = None
    while waiting(spool):
        settings = {} if relay is None else relay.settings
        relay = start_relay(**{"spool": spool, "history_size": 1000, **settings})
        before = len(waiting(spool))
        if before > 300:
            wait_for(lambda before=before: len(waiting(spool)) < before, "files that were taken")
            relay.kill()
        else:
            wait_for(lambda: not waiting(spool), "an empty spool")
    got = [number for name in range(7) for number in history(relay, f"d{name}")]
    assert got == [number for name in range(7) for number in range(name, 1000, 7)]


def test_a_second_relay_on_the_same_folder_does_not_start_until_the_first_one_is_gone(start_relay, spool):
    first = start_relay(spool=spool)
    with pytest.raises(AssertionError) as refused:
        start_relay(spool=spool)
    assert f"relay: another relay takes the files in {spool}: stop it, or give each relay its own" in str(refused.value)
    first.kill()
    start_relay(spool=spool)


def test_a_folder_that_cannot_be_used_is_trouble_that_ends_by_itself(start_relay, spool):
    spool.rmdir()
    relay = start_relay(spool=spool)
    assert ready(relay).startswith(f"there is no folder {spool}. Create it")
    spool.mkdir(mode=0o700)
    put(spool, "1", {"destination": "a", "data": 1})
    wait_for(lambda: history(relay, "a") == [1], "the file's push")
    wait_for(lambda: not ready(relay), "the end of the trouble")
    spool.chmod(0o777)
    wait_for(lambda: "run chmod o-w" in (ready(relay) or ""), "the trouble")
    wait_for(lambda: "spool: every user of this machine may" in relay.log.read_text(), "the line in the log")


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


def test_a_ring_makes_the_relay_look_at_once(start_relay, spool):
    relay = start_relay(spool=spool)
    best = min(seconds_until_taken(relay, spool, number) for number in range(20))
    assert best < 0.05


def seconds_until_taken(relay, spool, number):
    time.sleep(0.25)  # so that it does not look because it was busy
    put(spool, f"ring{number}", {"destination": "ring", "data": number})
    began = time.monotonic()
    relay.request("POST", "/ring", b"")
    wait_for(lambda: not waiting(spool), "an empty spool")
    return time.monotonic() - began
