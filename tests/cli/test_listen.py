"""`python relay.py listen` prints every push, and resumes after a lost connection without a gap."""

import contextlib
import itertools
import signal
import subprocess
import sys

import pytest
from conftest import DEADLINE, ROOT, clean_environ, wait_for
from terminal import Listening, Upgradeless, run

SECRET = "k7fG2-pQ9_rT4wXz8LmN6vBc3hJd5sYa"


@pytest.fixture
def listening(tmp_path):
    """Return a function that starts a listener until the end of the test: listening("42", "--url=…")."""
    with contextlib.ExitStack() as stack:

        def start(*arguments):
            listener = Listening(tmp_path, *arguments)
            stack.callback(listener.process.wait, DEADLINE)
            stack.callback(listener.process.kill)
            return listener

        yield start


def test_it_pushes_and_listens_over_a_unix_socket(start_relay, listening, tmp_path):
    host = f"--host=unix:{tmp_path}/relay.sock"
    start_relay(server="own", host=f"unix:{tmp_path}/relay.sock")
    listener = listening("a", host)
    assert run("push", "a", "x", host).returncode == 0
    assert listener.pushes(1)[0]["data"] == "x"


def test_it_prints_a_line_for_each_push_until_ctrl_c(relay, listening):
    listener = listening("line-a", "line-b", f"--url={relay.url}")
    relay.push("line-a", "eins\nzwei ü")
    relay.push_json(destination="line-b", data={"n": 1}, event="news")
    first, second = listener.pushes(2)
    assert (first["destination"], first["event"], first["data"]) == ("line-a", "push", "eins\nzwei ü")
    assert (second["destination"], second["event"], second["data"]) == ("line-b", "news", {"n": 1})
    assert first["id"].endswith(":1")
    listener.process.send_signal(signal.SIGINT)
    assert listener.process.wait(DEADLINE) == 0
    assert listener.said() == "online\n"


def test_raw_prints_the_data_alone(relay, listening):
    listener = listening("raw", "--raw", f"--url={relay.url}")
    relay.push("raw", "as it is")
    relay.push_json(destination="raw", data=[1, None])
    assert listener.lines(2) == ["as it is", "[1, null]"]


def test_no_push_is_missed_while_the_relay_is_down(start_relay, listening):
    relay = start_relay()
    listener = listening("back", f"--port={relay.port}")
    relay.push("back", "one")
    listener.pushes(1)
    relay.kill()
    listener.until("offline")
    relay.start()
    relay.push("back", "two")
    listener.until("recovered")
    relay.push("back", "three")
    assert [push["data"] for push in listener.pushes(3)] == ["one", "two", "three"]


def test_lost_pushes_are_reported(start_relay, listening):
    relay = start_relay(broker="memory:")
    listener = listening("gone", f"--port={relay.port}")
    relay.push("gone", "one")
    listener.pushes(1)
    relay.kill()
    relay.start()
    listener.until("lost: gone")
    relay.push("gone", "two")
    assert [push["data"] for push in listener.pushes(2)] == ["one", "two"]


def test_if_websockets_fail_it_listens_by_polling(relay, listening):
    with Upgradeless(relay.port) as port:
        listener = listening("polled", f"--url=http://127.0.0.1:{port}/")
        for number in range(3):
            relay.push("polled", str(number))
            assert listener.pushes(number + 1)[-1]["data"] == str(number)


REGISTERED = '{"ok":true,"ids":{"a":{"position":"e:0","recovered":true,"replayed":0}}}'


@pytest.mark.parametrize(
    "came",
    [
        '431[{"ok":true}]',
        '431[{"ok":true,"ids":[]}]',
        '431[{"ok":true,"ids":{}}]',
        '431[{"ok":true,"ids":{"b":{"position":"e:0","recovered":true}}}]',
        '431[{"ok":true,"ids":{"a":{"position":0,"recovered":true}}}]',
        '431[{"ok":true,"ids":{"a":{"position":"e:0"}}}]',
        f'431[{REGISTERED}]\x1e42["push",{{"destination":["a"],"data":1}}]',
        f'431[{REGISTERED}]\x1e42["push",{{"destination":"a","id":[],"data":1}}]',
        f'431[{REGISTERED}]\x1e42["relay_drain",{{}}]',
        f'431[{REGISTERED}]\x1e42["relay_drain",{{"reconnect_in_ms":-1}}]',
        f'431[{REGISTERED}]\x1e42["relay_drain",{{"reconnect_in_ms":1e300}}]',
    ],
)
def test_a_listener_reports_that_something_other_than_a_relay_answers(serve, came, tmp_path):
    """The answers come by polling, as another Socket.IO server may send them."""
    answers = itertools.cycle(['0{"sid":"a","pingInterval":25000,"pingTimeout":20000}', '40{"sid":"b"}', came])

    def site(environ, start_response):
        is_get, is_websocket = environ["REQUEST_METHOD"] == "GET", "HTTP_UPGRADE" in environ
        start_response("400 Bad Request" if is_websocket else "200 OK", [("Content-Type", "text/plain")])
        return [b"" if is_websocket else (next(answers) if is_get else "ok").encode()]

    command = [sys.executable, str(ROOT / "relay.py"), "listen", "a", f"--port={serve(site).port}"]
    with (tmp_path / "said").open("wb") as said, (tmp_path / "printed").open("wb") as printed:
        process = subprocess.Popen(command, stdout=printed, stderr=said, env=clean_environ())
    try:
        wait_for(lambda: b"offline" in (tmp_path / "said").read_bytes() or process.poll() is not None, "offline")
        assert process.poll() is None and b"something other than a relay" in (tmp_path / "said").read_bytes()
    finally:
        process.kill()
        process.wait(DEADLINE)
    assert not (tmp_path / "printed").read_bytes()


def test_a_long_history_comes_through_polling_as_well(relay, listening):
    with Upgradeless(relay.port) as port:
        listener = listening("long", "--raw", f"--url=http://127.0.0.1:{port}/")
        listener.process.send_signal(signal.SIGSTOP)
        for number in range(15):
            relay.push("long", f"{number}" * 60_000)
        listener.process.send_signal(signal.SIGCONT)
        assert [line[:2] for line in listener.lines(15)] == [f"{number}" * (2 - number // 10) for number in range(15)]


def test_it_ends_quietly_when_its_reader_is_gone(relay, tmp_path):
    with (tmp_path / "said").open("wb") as said:
        command = [sys.executable, str(ROOT / "relay.py"), "listen", "piped", f"--url={relay.url}"]
        listener = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, env=clean_environ())
    wait_for(lambda: b"online" in (tmp_path / "said").read_bytes(), "it to be online")
    listener.stdout.close()
    relay.push("piped", "x")
    assert listener.wait(DEADLINE) == 0
    assert (tmp_path / "said").read_text() == "online\n"


def test_refused_ids_end_it_with_1(relay):
    ran = run("listen", "a\nb", f"--url={relay.url}")
    assert ran.returncode == 1 and "control character" in ran.stderr


def test_if_a_token_is_required_it_signs_one_itself(start_relay, listening):
    relay = start_relay(secret=SECRET)
    listener = listening("signed", f"--port={relay.port}", f"--secret={SECRET}")
    assert run("push", "signed", "x", f"--port={relay.port}").returncode == 0
    assert listener.pushes(1)[0]["data"] == "x"
