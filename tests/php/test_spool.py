"""Relay.php's spool: which pushes go there, what PHP sees of it, and that nothing gets lost silently."""

import fcntl
import json
import os
import socket
import subprocess
import time

import pytest
from conftest import need, wait_for
from phplab import CLIENT, reply

ON = ["curl", "streams"]
TOLD = b'{"destination":"42","id":"a:1","connections":0}'
SHUT = reply("503 Service Unavailable", b'{"error":"store_not_available","message":"the disk is full"}')


@pytest.fixture
def spool(tmp_path):
    folder = tmp_path / "spool"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def down():
    """The address of a relay that is down."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{s.getsockname()[1]}"


def files(folder):
    return sorted(name for name in os.listdir(folder) if name.endswith(".json"))


def bodies(folder):
    return [json.loads((folder / name).read_text()) for name in files(folder)]


def on(spool, more=""):
    return f"['spool' => '{spool}', 'budget' => 5, {more}]"


@pytest.mark.parametrize("transport", ON)
def test_a_push_that_cannot_be_made_becomes_a_file_with_the_key_that_was_tried(stranger, php, spool, transport):
    shut = stranger(lambda stranger, connection, request: connection.sendall(SHUT))
    options = on(spool, f"'transport' => '{transport}', 'budget' => 5, 'strict' => true")
    (got,) = php.push(shut.url, options, "['42', 7], ['a' => 1], ['event' => 'order', 'ttl' => 5, 'wait' => 0.1]")
    assert got["answer"] == {"spooled": True, "reason": "store_not_available: the disk is full"}
    assert got["error"] is None
    (body,) = bodies(spool)
    sent = [json.loads(request.partition(b"\r\n\r\n")[2]) for request in shut.requests]
    assert sent == [{**body, "wait": 0.1}] * 2  # the relay ignores a wait in the spool, so it is left out
    assert body == {"data": {"a": 1}, "destination": ["42", 7], "event": "order", "ttl": 5, "id": body["id"]}
    assert (spool / files(spool)[0]).stat().st_mode & 0o7777 == 0o600
    assert len(os.listdir(spool)) == 1


def test_the_names_of_files_sort_in_the_order_of_the_pushes_even_if_the_clock_is_set_back(down, php, spool):
    ahead = f"{(time.time() + 3600) * 1e6:.0f}-1-a-4.json"
    (spool / ahead).write_text('{"data": -1}')
    for other in ("1e300.json", "9999999999999999-1.json"):  # of other programs: nothing could sort behind them
        (spool / other).write_text('{"data": 99}')
    php.run(f"""
        $relay = new Relay('{down}', {on(spool)});
        for ($n = 0; $n < 50; $n++) $relay->push('42', $n);
        (new Relay('{down}', {on(spool)}))->push('42', 50);
        echo 1;""")
    php.push(down, on(spool), "'42', 51")
    assert [body["data"] for body in bodies(spool)] == [*range(-1, 52), 99, 99]


def test_the_group_may_read_the_files_in_a_folder_with_the_setgid_bit_or_if_an_option_says_so(down, php, spool):
    for mode, options, expected in ((0o2700, "", 0o640), (0o700, "", 0o600), (0o700, "'spool_mode' => 0644", 0o644)):
        spool.chmod(mode)
        php.push(down, on(spool, options))
        assert (spool / files(spool)[-1]).stat().st_mode & 0o7777 == expected
        time.sleep(0.001)


@pytest.mark.parametrize("answer", ["400 Bad Request", "403 Forbidden", "413 Payload Too Large"])
def test_a_push_that_the_relay_refuses_does_not_go_to_the_spool(stranger, php, spool, answer):
    refusal = reply(answer, b'{"error":"invalid_ttl","message":"ttl must be a number"}')
    relay = stranger(lambda stranger, connection, request: connection.sendall(refusal))
    (got,) = php.push(relay.url, on(spool))
    assert got["answer"] is None and got["error"].startswith("invalid_ttl (4")
    assert not files(spool)


def test_many_pushes_become_a_file_for_each_request(down, php, spool):
    answers, error = php.run(f"""
        $relay = new Relay('{down}', {on(spool)});
        for ($i = 0; $i < 1200; $i++) $many["k$i"] = ['destination' => "d$i", 'data' => $i];
        $many['k5']['data'] = NAN;
        echo json_encode([$relay->pushMany($many), $relay->lastError()]);""")
    assert [len(body) for body in bodies(spool)] == [1000, 199]
    assert [push["data"] for body in bodies(spool) for push in body] == [n for n in range(1200) if n != 5]
    refused = {key for key, answer in answers.items() if not answer.get("spooled")}
    assert refused == {"k5"} and error.startswith("invalid_data: 1 of 1200 pushes were not taken")


# --- Order ---


def answering(*, ring):
    """Return the behavior of a relay that answers pushes, and `POST /ring` with the status and body `ring`."""

    def behave(stranger, connection, request):
        connection.sendall(ring if request.startswith(b"POST /ring") else reply("200 OK", TOLD))

    return behave


RUNG = reply("200 OK", b'{"ok":true}')


def test_while_files_wait_later_pushes_wait_behind_them_although_the_relay_is_back(stranger, php, spool):
    relay = stranger(answering(ring=RUNG))
    (spool / "1.json").write_text("{}")
    with open(spool / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as the relay does
        (got,) = php.push(relay.url, on(spool))
        assert got["answer"] == {"spooled": True, "reason": "queued: earlier pushes wait in the spool"}
        assert not relay.requests and len(files(spool)) == 2
        for name in files(spool):
            (spool / name).unlink()
        (got,) = php.push(relay.url, on(spool))
    assert got["answer"]["id"] == "a:1" and not files(spool)


def test_a_relay_that_takes_the_lock_before_it_answers_is_not_taken_for_one_without_a_spool(stranger, php, spool):
    """PHP finds the folder not locked, and the relay starts before it is asked."""
    lock = open(spool / ".lock", "w")  # noqa: SIM115

    def behave(stranger, connection, request):
        fcntl.flock(lock, fcntl.LOCK_EX)
        answering(ring=RUNG)(stranger, connection, request)

    relay = stranger(behave)
    (spool / "1.json").write_text("{}")
    with lock:
        (got,) = php.push(relay.url, on(spool))
    assert got["answer"]["spooled"] and got["error"] is None
    assert [request[:10] for request in relay.requests] == [b"POST /ring"]


@pytest.mark.parametrize("ring", [RUNG, reply("404 Not Found", b'{"error":"not_found","message":"nothing is here"}')])
def test_a_relay_that_does_not_take_the_files_gets_pushes_over_http_and_php_learns_it(stranger, php, spool, ring):
    relay = stranger(answering(ring=ring))
    (spool / "1.json").write_text("{}")
    (got,) = php.push(relay.url, on(spool, "'strict' => true"))
    assert got["answer"]["id"] == "a:1" and len(files(spool)) == 1
    assert got["error"].startswith(f"spool_not_taken: pushes wait in {spool}, and the relay at {relay.url} does not")


def test_while_the_relay_is_down_a_push_to_the_spool_costs_almost_nothing(down, php, spool):
    got = php.push(down, on(spool), times=60)
    assert all(each["answer"]["spooled"] for each in got) and len(files(spool)) == 60
    assert sorted(each["ms"] for each in got)[30] < 20  # 0.1 ms, if the machine is idle


# --- Errors that PHP sees ---


def test_a_full_spool_is_an_error(down, php, spool):
    got = php.push(down, on(spool, "'spool_max' => 20000"), times=6)
    assert [each["answer"] is None for each in got] == [False] * 4 + [True] * 2
    assert got[4]["error"].startswith("spool_full: this push was not sent (") and "raise the option" in got[4]["error"]
    (got,) = php.push(down, on(spool, "'spool_max' => 20000"))
    assert got["error"].startswith("spool_full: ")
    (got,) = php.push(down, on(spool, "'spool_max' => 100000"), "'42', str_repeat('x', 90000)")
    assert got["error"].startswith("spool_full: ")
    assert len(files(spool)) == 4


def test_the_size_of_waiting_files_counts_and_that_of_other_programs_files_is_not_guessed(down, php, spool):
    for name in ("0000999999", "1790000000123456-1-32000", "a-99k-"):
        (spool / f"{name}.json").write_text("{}")
    php.push(down, on(spool), "'42', str_repeat('x', 30000)")  # 30 KB, and 3 files of 4 KB
    (got,) = php.push(down, on(spool, "'spool_max' => 48000"))
    assert got["error"] is None
    (got,) = php.push(down, on(spool, "'spool_max' => 48000"))
    assert f"{spool} has 47104 of 48000 bytes" in got["error"], got


def test_a_full_disk_is_an_error_and_leaves_no_half_file(down, php, disk):
    disk.chmod(0o700)
    with (disk / "full").open("ab", buffering=0) as filler, pytest.raises(OSError):
        while True:
            filler.write(b"x" * 4096)
    (got,) = php.push(down, on(disk), "'42', str_repeat('x', 9000)")
    assert got["answer"] is None and got["error"].startswith("spool_failed: "), got
    assert "No space left on device" in got["error"]
    strict = php.run(f"""
        try {{ (new Relay('{down}', {on(disk, "'strict' => true")}))->push('42', str_repeat('x', 9000)); }}
        catch (RelayException $e) {{ echo json_encode($e->error); }}""")
    assert strict == "spool_failed" and os.listdir(disk) == ["full"]


def test_a_limit_on_the_size_of_files_is_an_error_and_leaves_no_half_file(down, php, spool):
    script = php.folder / "large.php"
    code = f"<?php require '{CLIENT}'; $relay = new Relay('{down}', {on(spool)});"
    script.write_text(code + "var_export($relay->push('42', str_repeat('x', 500000))); echo $relay->lastError();")
    limited = f"trap '' XFSZ; ulimit -f 100; exec php {script}"
    ran = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, env=php.environ)
    assert ran.stdout.startswith("NULLspool_failed: ") and "File too large" in ran.stdout, ran
    assert not os.listdir(spool)


def test_a_folder_that_is_missing_is_an_error_even_while_the_relay_accepts_pushes(stranger, down, php, spool):
    spool.rmdir()
    relay = stranger(answering(ring=RUNG))
    (got,) = php.push(relay.url, on(spool))
    assert got["answer"]["id"] and got["error"].startswith("spool_failed: pushes are accepted, but if the relay were")
    assert f"there is no folder {spool}. Create it" in got["error"]
    (got,) = php.push(down, on(spool))
    assert got["answer"] is None and f"there is no folder {spool}" in got["error"]
    (got,) = php.push(down, on("/etc/passwd"))
    assert got["answer"] is None and "there is no folder /etc/passwd" in got["error"]


def test_a_folder_that_phps_user_may_not_use_is_an_error(down, php, spool):
    need(os.geteuid() == 0, "the right to become another user")
    for each in (spool, *spool.parents):
        each.chmod(each.stat().st_mode | 0o011)
    ran = php.run(f"""
        posix_setuid(4711);
        $relay = new Relay('{down}', {on(spool)});
        $relay->push('42', 1);
        echo json_encode($relay->lastError());""")
    assert f"PHP's user 4711 may not read and write the folder {spool}" in ran


@pytest.mark.parametrize("function", ["opendir", "fopen", "chmod"])
def test_a_disabled_function_of_the_spool_costs_no_push_while_the_relay_accepts_them(
    stranger, down, php, spool, function
):
    up = stranger(lambda stranger, connection, request: connection.sendall(reply("200 OK", TOLD)))
    script = php.folder / f"{function}.php"
    script.write_text(f"""<?php error_reporting(E_ALL); require '{CLIENT}';
        foreach (['{up.url}', '{down}'] as $url) {{
            $relay = new Relay($url, {on(spool)});
            $all[] = [$relay->push('42', 1), $relay->lastError()];
        }}
        echo json_encode($all);""")
    command = ["php", "-d", f"disable_functions={function}", script]
    ran = subprocess.run(command, capture_output=True, text=True, env=php.environ, timeout=60)
    (accepted, _), (lost, error) = json.loads(ran.stdout)
    assert accepted == json.loads(TOLD) and lost is None
    assert error.startswith("spool_failed: ") and f"{function}()" in error and "disable_functions" in error


def test_open_basedir_that_excludes_the_folder_is_named(down, php, spool):
    got = php.run(
        f"$relay = new Relay('{down}', {on('/var')}); $relay->push('42', 1); echo json_encode($relay->lastError());",
        "-d",
        f"open_basedir={CLIENT.parent}:{php.folder}",
    )
    assert "open_basedir in php.ini excludes the folder /var" in got


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("'spool' => 'relative/path'", "spool must be the whole path of a folder"),
        ("'spool' => '/'", "spool must be the whole path of a folder"),
        ("'spool' => '/tmp', 'spool_max' => INF", "spool_max must be a number of bytes"),
        ("'spool' => '/tmp', 'spool_max' => 1", "spool_max must be a number of bytes, 4096 or more"),
        ("'spool' => '/tmp', 'spool_mode' => '0640'", "spool_mode must be the permissions of a file, such as 0640"),
        ("'spool' => '/tmp', 'spool_mode' => 640", "spool_mode must be the permissions of a file, such as 0640"),
    ],
)
def test_a_wrong_option_is_an_error(down, php, options, words):
    (got,) = php.push(down, f"[{options}]")
    assert got["error"].startswith("misconfigured: ") and words in got["error"]


def test_a_php_that_is_killed_while_it_writes_leaves_whole_files_only(down, php, spool):
    script = php.folder / "large.php"
    code = f"<?php require '{CLIENT}'; $relay = new Relay('{down}', {on(spool)});"
    script.write_text(code + "for (;;) $relay->push('42', ['text' => str_repeat('x', 200000)]);")
    for _ in range(3):
        before = len(files(spool))
        process = subprocess.Popen(["php", script], env=php.environ)
        wait_for(lambda before=before: len(files(spool)) > before + 2, "files of this process")
        process.kill()
        process.wait()
    assert all(len(body["data"]["text"]) == 200000 for body in bodies(spool))
