"""The relay in uWSGI, gunicorn, Werkzeug's own server and waitress, started as in docs/containers.md."""

import asyncio
import contextlib
import gzip
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import crowd
import pytest
from clients import Follower, Wire, handshake, open_websocket
from conftest import DEADLINE, ROOT, Relay, SocketClient, clean_environ, fds, free_port, need, wait_for

BIN = pathlib.Path(sys.executable).parent
THREADS = 8
COMMANDS = {
    "uwsgi": "uwsgi {ini}",
    "uwsgi http11": "uwsgi {ini}",
    "uwsgi router": "uwsgi {ini}",
    "gunicorn": "gunicorn --threads 8 --bind 127.0.0.1:{port} --graceful-timeout 5 relay:app",
    "gunicorn paste": "gunicorn --paste {ini} --threads 8 --bind 127.0.0.1:{port}",
    "werkzeug": "flask --app relay run --port {port}",
    "waitress": "pserve {ini}",
    "waitress alone": "waitress-serve --listen=127.0.0.1:{port} --threads=4 relay:app",
}
# Changes of wsgi.ini for a server, besides the port.
CHANGES = {
    "uwsgi http11": ("http-socket =", "http11-socket ="),
    "uwsgi router": ("http-socket =", "http ="),
    "waitress": ("threads = 100", "threads = 6"),
}


class Contained(Relay):
    """A relay that another server runs. Its settings are in the environment."""

    def __init__(self, folder, container, more="", changes=(), **settings):
        need((BIN / COMMANDS[container].split()[0]).exists(), f"{container} (tests/run installs it)")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "log"
        self.ini = folder / "wsgi.ini"
        text = (ROOT / "wsgi.ini").read_text().replace("127.0.0.1:8080", f"127.0.0.1:{self.port}")
        for old, new in (*((CHANGES[container],) if container in CHANGES else ()), *changes):
            assert old in text
            text = text.replace(old, new)
        self.ini.write_text(text)
        # pyuwsgi is uWSGI in a wheel; when it starts itself again, it would not find the virtual environment.
        more += f" --binary-path {sys.executable}" if "uwsgi" in container and (BIN / "pyuwsgi").exists() else ""
        self.command = (COMMANDS[container] + more).format(ini=self.ini, port=self.port)
        self.settings = {"config": self.ini, **settings}
        self.start()

    def start(self):
        program, *arguments = self.command.split()
        environ = {f"RELAY_{name.upper()}": str(value) for name, value in self.settings.items()}
        environ = {**clean_environ(), **environ, "PYTHONPATH": str(ROOT)}
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [BIN / program, *arguments],
                stdout=output,
                stderr=output,
                env=environ,
                cwd=self.log.parent,
                start_new_session=True,
            )

    def wait(self):
        """Wait until it serves."""
        wait_for(lambda: self.answers() or self.process.poll() is not None, "the start")
        assert self.process.poll() is None, self.log.read_text()
        return self

    def answers(self):
        with contextlib.suppress(OSError):
            return self.request("GET", "/health/ready")[0] == 200

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE)

    def workers(self):
        """Return the ids of its child processes; the relay is in one of them."""
        task = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(each) for each in task.read_text().split()]

    def open_files(self):
        """Return the number of files and sockets that its processes have open, without the store."""
        processes = [self.process.pid, *self.workers()]
        return sum(fds(type("Pid", (), {"process": type("P", (), {"pid": pid})})) for pid in processes)


@pytest.fixture
def contain(tmp_path):
    """Return a function that starts relays in servers until the test ends: contain("uwsgi", ping_interval=1)."""
    with contextlib.ExitStack() as started:

        def contain(container, *arguments, wait=True, **options):
            folder = tmp_path / str(time.monotonic_ns())
            folder.mkdir()
            relay = Contained(folder, container, *arguments, **options)
            started.callback(relay.kill)
            return relay.wait() if wait else relay

        yield contain


@pytest.fixture(scope="module", params=["uwsgi", "uwsgi http11", "uwsgi router", "gunicorn", "werkzeug"])
def contained(request, tmp_path_factory):
    """Return one relay in each server that hands its sockets on."""
    relay = Contained(tmp_path_factory.mktemp("contained"), request.param)
    try:
        relay.wait()
        yield relay
        assert "Traceback" not in relay.log.read_text(), relay.log.read_text()
        relay.process.send_signal(signal.SIGINT if request.param == "werkzeug" else signal.SIGTERM)
        relay.process.wait(DEADLINE)
    finally:
        relay.kill()


def upgrades(relay):
    return json.loads(relay.request("GET", "/socket.io/?EIO=4&transport=polling")[2][1:])["upgrades"]


def test_the_relay_serves_the_page_and_delivers_pushes(contained, connect):
    assert b"<html" in contained.request("GET", "/")[2]
    script = contained.request("GET", "/static/relay.js", headers={"Accept-Encoding": "gzip"})
    assert script[1]["Content-Encoding"] == "gzip" and gzip.decompress(script[2]).startswith(b"//")
    assert script[1]["Content-Length"] == str(len(script[2])) and script[1]["Access-Control-Allow-Origin"] == "*"
    assert contained.request("HEAD", "/socket.io/socket.io.js")[2] == b""
    client = connect(contained.url, "me")
    for n in range(3):
        assert contained.push("me", f"hello {n}")["connections"] == 1
    assert client.data(3) == ["hello 0", "hello 1", "hello 2"]
    status = json.loads(contained.request("GET", "/status.json")[2])
    assert (status["relay"]["server"], status["clients"]["now"], status["pushes"]["hour"]) == ("imported", 1, 3)


def test_the_end_of_a_connection_is_announced_in_its_last_answer(contained):
    """RFC 9112, 9.6. Otherwise clients that keep connections send their next push on one that is ending."""
    for path in ("/health/live", "/socket.io/?EIO=3&transport=polling"):
        with socket.create_connection(("127.0.0.1", contained.port), DEADLINE) as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            answer = http.client.HTTPResponse(sock)
            answer.begin()
            answer.read()
            if not answer.will_close:
                sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                assert sock.recv(5) == b"HTTP/"


def in_chunks(relay, path, body, kind="application/x-www-form-urlencoded", last="0\r\n\r\n"):
    """Post a body without a length; return status and body of the answer."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {kind}\r\n"
    with socket.create_connection(("127.0.0.1", relay.port), DEADLINE) as sock:
        sock.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n{body}\r\n{last}".encode())
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        return answer.status, answer.read().decode()


def test_a_body_in_chunks_is_read_or_refused_with_411(contained):
    """uWSGI hands no chunks on. The fixture checks at the end that the log has no traceback."""
    is_uwsgi = "uwsgi" in contained.command
    status, body = in_chunks(contained, "/push", "destination=chunked&data=x")
    assert (status, json.loads(body).get("error")) == ((411, "length_required") if is_uwsgi else (200, None))
    status, body = in_chunks(contained, "/push", "destination=chunked&data=x", last="zz\r\n")
    assert status == (411 if is_uwsgi else 400)
    if not is_uwsgi:
        sid = json.loads(contained.request("GET", "/socket.io/?EIO=4&transport=polling")[2][1:])["sid"]
        assert in_chunks(contained, f"/socket.io/?EIO=4&transport=polling&sid={sid}", "40") == (200, "ok")


def test_polling_clients_get_each_push_once_and_in_order(contained):
    async def scene():
        async with crowd.crowd(contained.port, 0, 1, crowd.ReconnectingPollingMember) as (member,):
            for n in range(5):
                await asyncio.to_thread(contained.push, member.name, str(n))
            await crowd.until(lambda: len(member.got) == 5, "the pushes")
            assert member.got == ["0", "1", "2", "3", "4"]

    assert upgrades(contained) == ["websocket"]
    crowd.run(scene())


def test_a_client_may_move_from_polling_to_websocket(contained):
    from engineio import Client as EngineClient

    got, client = [], EngineClient()
    client.on("message", got.append)
    client.connect(contained.url, transports=["polling", "websocket"], engineio_path="socket.io")
    try:
        assert client.transport() == "websocket"
        client.send("0")
        wait_for(lambda: got, "the answer")
    finally:
        client.disconnect()


def test_more_clients_than_threads_hold_none(contained):
    files = contained.open_files()

    async def scene():
        async with crowd.crowd(contained.port, 3 * THREADS, 2 * THREADS, crowd.ReconnectingPollingMember) as members:
            for member in members:
                await pusher_push(contained, member.name)
            await crowd.until(lambda: all(member.got == ["one"] for member in members), "a push for each")

    crowd.run(scene())
    wait_for(lambda: contained.push("client-1", "nobody")["connections"] == 0, "the relay to notice their end")
    wait_for(lambda: contained.open_files() <= files + 4, "their files to be closed")


async def pusher_push(relay, name):
    """Push on its own connection: some servers keep none."""
    await asyncio.to_thread(relay.push, name, "one")


# uWSGI shows such bytes to nobody; RFC 6455 does not allow a client to send them.
@pytest.mark.parametrize("contained", ["gunicorn", "werkzeug"], indirect=True)
def test_frames_sent_with_the_handshake_are_not_lost(contained):
    sock = open_websocket(contained.port, "early")
    assert contained.push("early", "bird")["connections"] == 1
    sock.close()


def test_a_caller_behind_a_proxy_needs_a_key(contained):
    status, _, body = contained.request("POST", "/push", b"destination=a&data=b", {"X-Forwarded-For": "203.0.113.9"})
    assert (status, json.loads(body)["error"]) == (401, "missing_key")


def test_uwsgis_router_passes_the_clients_address_on(contain):
    relay = contain("uwsgi router", changes=[("disable-logging = true", "log-format = from %(addr)")])
    with socket.create_connection(("127.0.0.1", relay.port), source_address=("127.0.0.9", 0)) as sock:
        sock.sendall(b"GET /health/live HTTP/1.0\r\n\r\n")
        sock.recv(4096)
    wait_for(lambda: "from 127.0.0.9" in relay.log.read_text(), "the address in the log")


@pytest.mark.parametrize("contained", ["uwsgi", "gunicorn"], indirect=True)
def test_a_thousand_websockets_on_eight_threads_all_get_their_push(contained, many_files):
    async def scene():
        async with crowd.crowd(contained.port, websockets=1000) as members:
            drafts = [{"destination": member.name, "data": "one"} for member in members]
            status, _, answer = await asyncio.to_thread(
                contained.request, "POST", "/push", json.dumps(drafts).encode(), {"Content-Type": "application/json"}
            )
            assert status == 200 and all(each["connections"] for each in json.loads(answer))
            await crowd.until(lambda: all(member.got == ["one"] for member in members), "a push for each")

    crowd.run(scene())
    wait_for(
        lambda: contained.push("client-999", "nobody")["connections"] == 0,
        "the relay to notice that the clients have gone",
    )


@pytest.mark.parametrize("container", ["uwsgi", "gunicorn"])
def test_after_a_reload_clients_are_connected_again_and_have_everything(contain, container):
    relay = contain(container)
    followers = [Follower(relay.port, f"f{n}") for n in range(20)]
    stays = Wire(relay.port)
    before, taken, ended = relay.workers(), [], threading.Event()

    def push():
        while not ended.is_set():
            with contextlib.suppress(OSError, AssertionError):
                for n in range(20):
                    taken.append((n, relay.push(f"f{n}", "x")["id"]))
                time.sleep(0.01)

    pusher = threading.Thread(target=push)
    pusher.start()
    try:
        wait_for(lambda: len(taken) > 50, "pushes")
        relay.process.send_signal(signal.SIGHUP)
        wait_for(lambda: relay.workers() and not set(before) & set(relay.workers()), "another worker")
        seen = len(taken)
        wait_for(lambda: len(taken) > seen + 50, "pushes after the reload")
    finally:
        ended.set()
        pusher.join()
    with pytest.raises(OSError):
        while stays.packet():
            pass
    try:
        for n, follower in enumerate(followers):
            ids = [id_ for number, id_ in taken if number == n]
            wait_for(lambda f=follower, ids=ids: f.ids()[-1:] == ids[-1:], f"the last push of {n}")
            # Each once and in order; a push whose answer was lost with the old worker may be there too.
            assert sorted(set(follower.ids()), key=offset_of) == follower.ids()
            assert set(ids) <= set(follower.ids())
            assert all(answer["recovered"] for answer in follower.answers[1:])
    finally:
        for follower in followers:
            follower.close()
    assert "Traceback" not in relay.log.read_text(), relay.log.read_text()


def offset_of(position):
    return int(position.partition(":")[2])


@pytest.mark.parametrize(
    ("container", "more", "changes"),
    [
        ("uwsgi", "", [("processes = 1", "processes = 2")]),
        ("gunicorn", " --workers 2", []),
        ("gunicorn", " --workers 2 --preload", []),
    ],
)
def test_more_than_one_process_stops_the_start_with_a_message(contain, container, more, changes):
    relay = contain(container, more, changes, wait=False)
    assert relay.process.wait(DEADLINE) != 0
    assert "the relay is one process" in relay.log.read_text()


def test_another_ini_file_than_the_relays_own_stops_the_start_with_a_message(contain, tmp_path):
    relay = contain("gunicorn paste", wait=False, config=ROOT / "wsgi.ini")
    assert relay.process.wait(DEADLINE) != 0
    assert f"set RELAY_CONFIG={relay.ini}" in relay.log.read_text()


def test_in_waitress_there_is_no_websocket_and_callers_behind_a_proxy_need_a_key(contain):
    relay = contain("waitress")
    assert b"<html" in relay.request("GET", "/")[2]
    assert upgrades(relay) == []
    with pytest.raises(AssertionError, match="400"):
        Wire(relay.port)
    opened = json.loads(relay.request("GET", "/socket.io/?EIO=4&transport=polling")[2][1:])
    path = f"/socket.io/?EIO=4&transport=websocket&sid={opened['sid']}"
    with socket.create_connection(("127.0.0.1", relay.port), DEADLINE) as sock:
        sock.sendall(handshake(path))
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        assert answer.status == 400 and "long polling" in json.loads(answer.read())["message"]
    assert "Traceback" not in relay.log.read_text()
    assert relay.request("POST", "/push", b"destination=a&data=b", {"X-Forwarded-For": "203.0.113.9"})[0] == 401


def test_clients_that_hold_threads_leave_two_for_pushes(contain):
    relay = contain("waitress")

    async def scene():
        async with crowd.crowd(relay.port, 0, polling=4, polling_member=crowd.ReconnectingPollingMember) as members:
            status, _, body = await asyncio.to_thread(relay.request, "GET", "/socket.io/?EIO=4&transport=polling")
            assert (status, "6 threads" in body.decode()) == (503, True)
            for member in members:
                await pusher_push(relay, member.name)
            await crowd.until(lambda: all(member.got == ["one"] for member in members), "a push for each")

    crowd.run(scene())


def test_in_a_waitress_that_hides_proxies_the_relay_serves_nothing(contain):
    relay = contain("waitress alone", wait=False)
    status, _, body = wait_for(lambda: attempt(relay), "an answer")
    assert (status, json.loads(body)["error"]) == (503, "wrong_server")
    assert "--no-clear-untrusted-proxy-headers" in relay.log.read_text()


def attempt(relay):
    with contextlib.suppress(OSError):
        return relay.request("GET", "/")


def test_a_websocket_over_the_servers_own_tls_works_and_holds_a_thread(contain, tmp_path):
    need(shutil.which("openssl"), "openssl")
    key, cert = tmp_path / "key", tmp_path / "cert"
    make = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout {key} -out {cert}"
    subprocess.run(make.split(), check=True, capture_output=True)
    relay = contain("gunicorn", f" --keyfile {key} --certfile {cert}", wait=False)
    import socketio

    got, client = [], SocketClient(ssl_verify=False)
    client.on("push", got.append)

    def connects():
        with contextlib.suppress(socketio.exceptions.ConnectionError):
            client.connect(f"https://127.0.0.1:{relay.port}", transports=["websocket"], wait_timeout=DEADLINE)
            return True

    wait_for(connects, "the connection")
    try:
        assert client.call("register", {"id": "tls"}, timeout=DEADLINE)["ok"]
        push = ["curl", "-sk", "-d", "destination=tls", "-d", "data=hello", f"https://127.0.0.1:{relay.port}/push"]
        subprocess.run(push, check=True, capture_output=True)
        wait_for(lambda: got and got[0]["data"] == "hello", "the push")
    finally:
        client.disconnect()
