"""Pushing, listening and signing from a terminal: `python relay.py push`, `listen`, `token`."""

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import jwt
import pytest
from conftest import DEADLINE, ROOT, clean_environ, free_port, wait_for

SECRET = "k7fG2-pQ9_rT4wXz8LmN6vBc3hJd5sYa"


def run(*arguments, text=None, env=None):
    command = [sys.executable, str(ROOT / "relay.py"), *map(str, arguments)]
    environ = {**clean_environ(), **(env or {})}
    ran = subprocess.run(command, capture_output=True, text=True, input=text, timeout=DEADLINE, env=environ)
    assert "Traceback" not in ran.stderr, ran.stderr
    return ran


class Listening:
    """`python relay.py listen` in a process of its own."""

    def __init__(self, folder, *arguments):
        self._out, self._err = folder / "printed", folder / "said"
        command = [sys.executable, str(ROOT / "relay.py"), "listen", *map(str, arguments)]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(command, stdout=out, stderr=err, env=clean_environ())
        self.until("online")

    def until(self, word, times=1):
        """Wait until it has said this."""
        wait_for(lambda: self.said().count(word) >= times or self.process.poll() is not None, f"{word}: {self.said()}")
        assert word in self.said(), self.said()

    def said(self):
        return self._err.read_text()

    def lines(self, count):
        """Wait until it has printed so many lines; returns them all."""
        wait_for(lambda: self._out.read_text().count("\n") >= count, f"line {count}")
        return self._out.read_text().splitlines()

    def pushes(self, count):
        return [json.loads(line) for line in self.lines(count)]


@pytest.fixture
def listening(tmp_path):
    """Starts listeners that end with the test: listening("42", "--url=…")."""
    with contextlib.ExitStack() as stack:

        def start(*arguments):
            listener = Listening(tmp_path, *arguments)
            stack.callback(listener.process.wait, DEADLINE)
            stack.callback(listener.process.kill)
            return listener

        yield start


def test_a_push_prints_the_answer(relay, connect):
    client = connect(relay.url, "terminal")
    ran = run("push", "terminal", "hällo", f"--port={relay.port}")
    assert (ran.returncode, ran.stderr) == (0, "")
    answer = json.loads(ran.stdout)
    assert (answer["destination"], answer["connections"]) == ("terminal", 1)
    run("push", "terminal", "-", "--json", "--event=news", f"--url={relay.url}/push", text='{"n": [1, "ü"]}')
    assert client.wait(2)[0][1]["data"] == "hällo"
    assert client.got[1][0] == "news" and client.got[1][1]["data"] == {"n": [1, "ü"]}


def test_a_push_is_repeated_kept_and_waited_for_as_it_says(relay):
    url = f"--url={relay.url}"
    first, again = (json.loads(run("push", "kept", "x", "--id=once", url).stdout)["id"] for _ in range(2))
    assert first == again
    assert json.loads(run("push", "kept", "y", "--ttl=0", "--wait=0.1", url).stdout)["acked"] == 0
    history = json.loads(relay.request("GET", "/history?destination=kept")[2])
    assert [each["data"] for each in history["publications"]] == ["x"]


def test_a_push_that_is_refused_says_why_and_ends_with_1(relay):
    ran = run("push", "a", "x", "--event=connect", f"--url={relay.url}")
    assert (ran.returncode, ran.stdout) == (1, "") and "choose another" in ran.stderr


def test_without_a_relay_a_push_says_so_and_ends_with_1():
    ran = run("push", "a", "x", f"--port={free_port()}")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert len(ran.stderr.splitlines()) == 1 and "is the relay running" in ran.stderr


def test_what_is_no_relay_is_said(serve):
    def site(environ, start_response):
        start_response("404 Not Found", [("Content-Type", "text/html")])
        return [b"<h1>Not found</h1>"]

    ran = run("push", "a", "x", f"--port={serve(site).port}")
    assert ran.returncode == 1 and "404" in ran.stderr


def test_a_page_in_place_of_the_relays_answer_is_no_success(serve):
    def site(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/html")])
        return [b"<h1>It works!</h1>"]

    ran = run("push", "a", "x", f"--port={serve(site).port}")
    assert (ran.returncode, ran.stdout) == (1, "") and "something other than a relay answered" in ran.stderr


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        ("200 OK", "{}"),
        ("200 OK", '{"status":"ok"}'),
        ("200 OK", '[{"destination":"a","id":"e:1"}]'),
        ("200 OK", '{"destination":"a","id":17}'),
        ("200 OK", '{"destination":"b","id":"e:1"}'),
        ("200 OK", '{"error":"missing_key","message":"send one"}'),
        ("200 OK", "[" * 100_000),
        ("404 Not Found", '{"error":"Not Found","message":"No message available"}'),
        ("404 Not Found", "[" * 100_000),
    ],
)
def test_an_answer_without_an_id_for_the_destination_is_an_error(serve, status, answer):
    def site(environ, start_response):
        start_response(status, [("Content-Type", "application/json")])
        return [answer.encode()]

    ran = run("push", "a", "x", f"--port={serve(site).port}")
    assert (ran.returncode, ran.stdout) == (1, ""), ran
    assert "something other than a relay answered" in ran.stderr and "check the address" in ran.stderr


def test_the_target_of_a_redirect_is_named(serve):
    def site(environ, start_response):
        start_response("301 Moved Permanently", [("Location", "https://shop.example/push")])
        return []

    ran = run("push", "a", "x", f"--port={serve(site).port}")
    assert ran.returncode == 1 and "redirects to https://shop.example/push: give the relay's own address" in ran.stderr


def test_what_strangers_answer_does_not_get_at_the_terminal(serve):
    def site(environ, start_response):
        start_response("403 Forbidden", [("Content-Type", "application/json")])
        return [json.dumps({"error": "x", "message": "\x1b]0;owned\x07\x9b2J"}).encode()]

    ran = run("push", "a", "x", f"--port={serve(site).port}")
    assert (ran.returncode, ran.stderr) == (1, "relay: ?]0;owned??2J\n")


def test_the_key_is_the_first_of_the_settings(serve):
    seen = []

    def relay(environ, start_response):
        seen.append(environ.get("HTTP_AUTHORIZATION"))
        start_response("200 OK", [])
        return [b"{}"]

    port = f"--port={serve(relay).port}"
    run("push", "a", "x", port, env={"RELAY_PUSH_KEYS": "web:first-key-1, second-key-2"})
    run("push", "a", "x", port, "--key=given-key-3", env={"RELAY_PUSH_KEYS": "web:first-key-1"})
    run("push", "a", "x", port)
    assert seen == ["Bearer first-key-1", "Bearer given-key-3", None]


def test_it_pushes_and_listens_over_a_unix_socket(start_relay, listening, tmp_path):
    host = f"--host=unix:{tmp_path}/relay.sock"
    start_relay(server="own", host=f"unix:{tmp_path}/relay.sock")
    listener = listening("a", host)
    assert run("push", "a", "x", host).returncode == 0
    assert listener.pushes(1)[0]["data"] == "x"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["push", "a"], ["DATA", "push --help"]),
        (["push", "a", "{", "--json"], ["DATA", "JSON"]),
        (["push", "a", "x", "--ttl=soon"], ["--ttl", "number of seconds"]),
        (["push", "a", "x", "--url=relay"], ["'relay'", "https://example.com/relay/"]),
        (["push", "a", "x", "--prot=80"], ["did you mean port"]),
        (["push", "a", "x", "--port=x"], ["--port", "whole number"]),
        (["push", "a", "x", "--port=0"], ["port = 0", "--url"]),
        (["listen"], ["DEST"]),
        (["token"], ["--ids"]),
        (["token", "--ids", "a", "--expires=-1"], ["--expires"]),
        (["pusch", "a", "x"], ["pusch", "--help"]),
    ],
)
def test_what_is_not_understood_is_a_sentence_and_exit_code_2(arguments, words):
    ran = run(*arguments)
    assert (ran.returncode, ran.stdout, len(ran.stderr.splitlines())) == (2, "", 1), ran
    assert all(word in ran.stderr for word in words), ran.stderr


@pytest.mark.parametrize("command", ["doctor", "push", "listen", "token"])
def test_each_command_has_its_help(command):
    ran = run(command, "--help")
    assert ran.returncode == 0 and f"python relay.py {command}" in ran.stdout
    assert "--ping-interval" not in ran.stdout and "--config" in ran.stdout


def test_the_help_of_the_relay_names_the_commands():
    assert all(word in run("--help").stdout for word in ("doctor", "push", "listen", "token"))


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


def test_nothing_is_missed_while_the_relay_was_away(start_relay, listening):
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


def test_what_is_lost_is_said(start_relay, listening):
    relay = start_relay(broker="memory:")
    listener = listening("gone", f"--port={relay.port}")
    relay.push("gone", "one")
    listener.pushes(1)
    relay.kill()
    relay.start()
    listener.until("lost: gone")
    relay.push("gone", "two")
    assert [push["data"] for push in listener.pushes(2)] == ["one", "two"]


def test_where_websockets_do_not_get_through_it_listens_by_polling(relay, listening):
    with Upgradeless(relay.port) as port:
        listener = listening("polled", f"--url=http://127.0.0.1:{port}/")
        for number in range(3):
            relay.push("polled", str(number))
            assert listener.pushes(number + 1)[-1]["data"] == str(number)


class Upgradeless:
    """A proxy that does not know WebSockets: it passes on what comes, without the word Upgrade."""

    def __init__(self, port):
        self._port = port
        self._server = socket.create_server(("127.0.0.1", 0))

    def __enter__(self):
        threading.Thread(target=self._run, daemon=True).start()
        return self._server.getsockname()[1]

    def __exit__(self, *_):
        self._server.close()

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                threading.Thread(target=self._pass_on, args=(near, far, b"Upgrade"), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(far, near, b"\0"), daemon=True).start()

    def _pass_on(self, source, target, word):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data.replace(word, b"X-" + word[2:]))
            target.shutdown(socket.SHUT_WR)


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
def test_a_listener_says_that_something_other_than_a_relay_answers(serve, came, tmp_path):
    """By polling, as a server of Socket.IO that is no relay may answer."""
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


def test_it_ends_quietly_when_nobody_reads_it_any_more(relay, tmp_path):
    with (tmp_path / "said").open("wb") as said:
        command = [sys.executable, str(ROOT / "relay.py"), "listen", "piped", f"--url={relay.url}"]
        listener = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, env=clean_environ())
    wait_for(lambda: b"online" in (tmp_path / "said").read_bytes(), "it to be online")
    listener.stdout.close()
    relay.push("piped", "x")
    assert listener.wait(DEADLINE) == 0
    assert (tmp_path / "said").read_text() == "online\n"


@pytest.mark.parametrize("command", ["push a x", f"token --ids a --secret={SECRET}", "doctor --quick"])
def test_each_command_ends_quietly_when_nobody_reads_what_it_prints(relay, command):
    reading, writing = os.pipe()
    os.close(reading)
    arguments = [sys.executable, str(ROOT / "relay.py"), *command.split(), f"--port={relay.port}"]
    with open(writing, "wb") as nobody:
        ran = subprocess.run(
            arguments, stdout=nobody, stderr=subprocess.PIPE, text=True, env=clean_environ(), timeout=DEADLINE
        )
    assert (ran.returncode, ran.stderr) == (141, "")


def test_ids_that_the_relay_refuses_end_it_with_1(relay):
    ran = run("listen", "a\nb", f"--url={relay.url}")
    assert ran.returncode == 1 and "control character" in ran.stderr


def test_a_token_allows_what_was_said_until_it_expires():
    before = int(time.time())
    ran = run(
        "token",
        "--ids",
        "42",
        "room-*",
        "--push",
        "news",
        "--expires=60",
        env={"RELAY_SECRET": f"{SECRET}, old-secret"},
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    claims = jwt.decode(ran.stdout.strip(), SECRET, algorithms=["HS256"])
    assert (claims["ids"], claims["push"]) == (["42", "room-*"], ["news"])
    assert before + 60 <= claims["exp"] <= time.time() + 60
    claims = jwt.decode(run("token", "--ids", "42", f"--secret={SECRET}").stdout.strip(), SECRET, algorithms=["HS256"])
    assert "push" not in claims and claims["exp"] > before + 3500


def test_without_a_secret_there_is_no_token():
    ran = run("token", "--ids", "42")
    assert (ran.returncode, ran.stdout) == (1, "") and "set secret" in ran.stderr


def test_listening_where_tokens_are_asked_for_it_signs_one_itself(start_relay, listening):
    relay = start_relay(secret=SECRET)
    listener = listening("signed", f"--port={relay.port}", f"--secret={SECRET}")
    assert run("push", "signed", "x", f"--port={relay.port}").returncode == 0
    assert listener.pushes(1)[0]["data"] == "x"
