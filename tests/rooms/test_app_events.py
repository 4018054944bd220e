"""An app on the relay: its handlers and routes do what Flask-SocketIO documents.

The same app (own_app.py) runs with and without the relay, and the same client asks both.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request

import pytest
import socketio
from clients import Wire, frame
from conftest import DEADLINE, ROOT, Relay, SocketClient, clean_environ, free_port, wait_for

from pushrelay.rooms.app_events import MOST_WAITING, AppEvents

APP = ROOT / "tests/own_app.py"


class OwnApp(Relay):
    """The app on the relay, served by socketio.run()."""

    def __init__(self, log, **settings):
        self.program, self.log = APP, log
        self.settings = {"port": 0, "broker": "memory:", **settings}
        self.start()

    def start(self):
        with self.log.open("wb") as output:
            environ = {f"RELAY_{name.upper()}": str(value) for name, value in self.settings.items()}
            command = [sys.executable, str(APP), "relay"]
            self.process = subprocess.Popen(
                command, stdout=output, stderr=output, env=clean_environ() | environ, cwd=self.log.parent
            )
        wait_for(lambda: b"serves on" in self.log.read_bytes() or self.process.poll() is not None, "the start")
        assert self.process.poll() is None, self.log.read_text()
        line = next(each for each in self.log.read_text().splitlines() if "serves on" in each)
        self.url = line.split()[-1]
        self.port = int(self.url.rpartition(":")[2])


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    app = OwnApp(tmp_path_factory.mktemp("own") / "log")
    yield app
    assert app.stop() == 0, app.log.read_text()


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """The address of the same app without the relay."""
    port, log = free_port(), tmp_path_factory.mktemp("stock") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, str(APP), "stock", str(port)], stdout=output, stderr=output)
    wait_for(lambda: b"Running on" in log.read_bytes() or process.poll() is not None, "the start", 3 * DEADLINE)
    yield f"http://127.0.0.1:{port}"
    process.send_signal(signal.SIGINT)
    process.wait(DEADLINE)


class Visitor:
    """A client of such an app, in these namespaces. It keeps what it receives."""

    def __init__(self, url, namespaces=("/",), query="", auth=None, headers=None, transport="websocket"):
        self.got = []
        self.socket = SocketClient()
        for name in namespaces:
            for event in ("question",):
                self.socket.on(event, lambda *args: ("answer to", *args), namespace=name)
            self.socket.on("*", lambda event, *args: self.got.append([event, *args]), namespace=name)
        self.socket.connect(
            url + query, headers or {}, auth, [transport], list(namespaces), wait=True, wait_timeout=DEADLINE
        )

    def call(self, event, *args, namespace="/"):
        return self.socket.call(event, args or None, namespace=namespace, timeout=DEADLINE)

    def emit(self, event, *args, namespace="/"):
        self.socket.emit(event, args or None, namespace=namespace)

    def wait(self, count):
        wait_for(lambda: len(self.got) >= count, f"{count} events, got {self.got!r:.300}")
        return self.got

    def leave(self):
        """Send DISCONNECT for each namespace and do nothing else."""
        for name in self.socket.namespaces:
            self.socket._send_packet(self.socket.packet_class(1, namespace=name))

    def close(self):
        """Close the connection at once; disconnect() would wait for seconds."""
        with contextlib.suppress(OSError, AttributeError):
            if self.socket.transport() == "polling":
                self.socket.eio.disconnect(abort=True)
            else:
                self.socket.eio.ws.sock.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def visitors():
    """A function that makes clients; they are closed after the test."""
    with contextlib.ExitStack() as opened:
        yield lambda *args, **options: opened.enter_context(contextlib.closing(Visitor(*args, **options)))


def get(url, method="GET", headers=None):
    """Return status, type and body of an answer, the latter without the port. Follow no redirects."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *args):
            return None

    opener = urllib.request.build_opener(Stay)
    request = urllib.request.Request(url, b"" if method == "POST" else None, headers or {}, method=method)
    try:
        with opener.open(request, timeout=DEADLINE) as answer:
            return [answer.status, answer.headers.get_content_type(), answer.read().decode()]
    except urllib.error.HTTPError as error:
        with error:
            body = error.read().decode().replace(f":{urllib.parse.urlsplit(url).port}/", "/")
            return [error.code, error.headers.get_content_type(), body]


# The cases: functions of the address that return what a client observes.


def several_arguments(url, new):
    client = new(url)
    return [
        client.call("two", 1, {"b": [2]}),
        client.call("many"),
        client.call("many", None),
        client.call("many", 1, "2", [3], {"4": None}, True),
        client.call("nothing"),
        client.call("by_name", "x"),
        client.call("plain", 7),
    ]


def messages_and_json(url, new):
    client = new(url)
    thanks = client.call("message", "hello")
    client.emit("json", {"a": [1]})
    return [thanks, client.wait(2)]


def the_context_of_a_handler(url, new):
    return new(url, query="?q=7", headers={"X-Own": "yes"}).call("who")


def a_session_lasts_for_the_connection(url, new):
    request = urllib.request.Request(f"{url}/login/ann")
    with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
        cookie = answer.headers["Set-Cookie"].partition(";")[0]
    client, other = new(url, headers={"Cookie": cookie}), new(url)
    client.emit("remember", "mine")
    return [client.call("recall"), other.call("recall"), client.call("who")[-2]]


def error_handlers(url, new):
    client = new(url, ["/", "/chat", "/admin"], auth={"user": "root"})
    return [
        client.call("boom", "one"),
        client.call("boom", "two", namespace="/chat"),
        client.call("two", 1),  # too few arguments
        client.call("many", "goes on"),
    ]


def rooms_and_broadcasts(url, new):
    ann, ben, eve = new(url), new(url), new(url)
    joined = [ann.call("join", "a"), ben.call("join", "a"), ben.call("join", "b")]
    left = ben.call("leave", "b")
    told = ann.call("tell", "a", 1, 2)
    ben.wait(1)
    ann.emit("everyone", "hi")
    for each in (ann, ben, eve):
        each.wait(1)
    ann.call("close", "a")
    eve.call("tell", "a", "nobody")
    eve.call("outside", "me")
    get(f"{url}/broadcast/now")
    counts = zip((ann, ben, eve), (2, 3, 4), strict=True)
    return [joined, left, told, [each.wait(count) for each, count in counts]]


def callbacks_and_calls(url, new):
    client = new(url)
    client.emit("ask_me", "how are you")
    return [client.wait(1), client.call("call_me", "and now")]


def background_tasks(url, new):
    client = new(url)
    return [client.call("count", 3), client.wait(3)]


def bytes_both_ways(url, new):
    client = new(url, ["/", "/chat", "/admin"], auth={"user": "root"})
    polls = new(url, transport="polling")
    return [
        polls.call("bytes", b"\x00\x01", {"more": b"\x02"}),
        polls.wait(1),
        client.call("bytes", b"\x00\x01", b"", "text"),
        client.call("bytes", b"abc", namespace="/chat"),
        client.call("bytes", bytes(20_000), namespace="/admin") == bytes(20_000),
        client.call("many", {"a": [b"1", {"b": b"2"}]}, b"3"),
        client.call("bytes_back"),
        client.wait(2),
    ]


def namespaces_and_their_handlers(url, new):
    client = new(url, ["/chat", "/admin", "/any"], auth={"user": "root"})
    client.wait(1)
    calls = [
        client.call("ping2", 1, 2, namespace="/chat"),
        client.call("ping2", 3, 4, namespace="/admin"),
        client.call("ping2", 5, 6, namespace="/any"),
        client.call("of no name", namespace="/any"),
        client.call("unknown", namespace="/admin"),
    ]
    return [calls, sorted(client.wait(2))]


def refused_connections(url, new):
    outcome = []
    for namespace, auth in (("/chat", {"token": "wrong"}), ("/admin", None), ("/nowhere", None)):
        try:
            new(url, [namespace], auth=auth)
        except socketio.exceptions.ConnectionError as refused:
            outcome.append([namespace, str(refused) if namespace == "/chat" else "refused"])
    return outcome


def reasons_of_ends(url, new):
    watcher = new(url, ["/chat"])

    def seen():
        return watcher.call("seen", namespace="/chat")

    def ended_by(end):
        before = len(seen())
        leaver = new(url, ["/chat", "/admin"], auth={"user": "root"})
        end(leaver)
        connected, *ended = wait_for(lambda: len(seen()) >= before + 3 and seen()[before:], "the end")
        return connected, sorted(ended)

    return [ended_by(end) for end in (Visitor.leave, Visitor.close)]


def a_handler_that_disconnects(url, new):
    client = new(url)
    ended = threading.Event()
    client.socket.on("disconnect", lambda reason: ended.set())
    client.emit("bye")
    return ended.wait(DEADLINE)


def own_routes(url, new):
    return [
        get(f"{url}/shop/"),
        get(f"{url}/shop/?closed=1"),
        get(f"{url}/shop"),  # Flask's redirect
        *(get(f"{url}/shop/code/{code}") for code in (400, 403, 404, 409, 410, 418, 500, 503)),
        get(f"{url}/shop/code/403", "POST"),
        get(f"{url}/shop/only"),
        get(f"{url}/shop/only", "POST"),
    ]


CASES = [
    several_arguments,
    messages_and_json,
    the_context_of_a_handler,
    a_session_lasts_for_the_connection,
    error_handlers,
    rooms_and_broadcasts,
    callbacks_and_calls,
    background_tasks,
    bytes_both_ways,
    namespaces_and_their_handlers,
    refused_connections,
    reasons_of_ends,
    a_handler_that_disconnects,
    own_routes,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_an_own_app_behaves_as_it_does_without_the_relay(own, stock, visitors, case):
    expected = case(stock, visitors)
    assert expected
    assert json.dumps(case(own.url, visitors), default=repr) == json.dumps(expected, default=repr)


def test_the_events_of_one_client_are_handled_in_order(own, visitors):
    client = visitors(own.url, ["/", "/chat"])
    before = len(client.call("seen", namespace="/chat"))
    for n in range(50):
        client.emit("late", f"n{n}")
    client.call("late", "last")
    seen = client.call("seen", namespace="/chat")[before:]
    assert [each for each in seen if isinstance(each, str)] == [*(f"n{n}" for n in range(50)), "last"]


def test_waiting_handlers_delay_neither_pushes_nor_other_clients(own, visitors):
    waiting = [visitors(own.url) for _ in range(10)]  # more than the relay has threads
    got = []
    for n, client in enumerate(waiting):
        client.socket.emit("hold", n, callback=got.append)
    other = visitors(own.url)
    assert other.call("register", {"id": "held"})["ok"] and other.call("two", 1, 2) == (1, 2)
    assert own.push("held", "x")["connections"] == 1
    assert other.wait(1)[0][1]["data"] == "x" and got == []
    assert get(f"{own.url}/shop/release")[0] == 200
    wait_for(lambda: sorted(got) == list(range(10)), "the answers")


def test_the_number_of_waiting_events_of_a_client_is_limited():
    app_events = AppEvents(threads=1)
    begun, go_on, ran = threading.Event(), threading.Event(), []
    assert app_events.add("a", lambda: begun.set() or go_on.wait(DEADLINE), 1, 1000)
    assert begun.wait(DEADLINE)
    assert all(app_events.add("a", lambda n=n: ran.append(n), 1, 1000) for n in range(MOST_WAITING))
    assert not app_events.add("a", lambda: ran.append("too many"), 1, 1000)
    assert app_events.add("b", lambda: ran.append("b"), 1, 1000)
    go_on.set()
    wait_for(lambda: len(ran) == MOST_WAITING + 1, "the events")
    assert ran.index("b") < 3, "clients take turns"
    wait_for(lambda: app_events._threads == 0 and not app_events._clients, "the end of the threads")


def test_the_relay_and_the_app_serve_together(own, visitors):
    client = visitors(own.url)
    assert client.call("register", {"id": "beside"})["ok"]
    assert client.call("register", {"id": "beside"}, "a second argument")["ok"]
    assert client.call("push", {"destination": "beside", "data": 1})["error"] == "not_allowed"
    assert own.push("beside", "hello")["connections"] == 1
    assert client.wait(1)[0][1]["data"] == "hello"
    assert client.call("unheard-of")["error"] == "unknown_event"
    client.emit("unheard-of", 1, 2)
    assert client.wait(2)[1][0] == "relay_error"
    status, kind, body = get(f"{own.url}/nowhere")
    assert (status, kind) == (404, "application/json") and json.loads(body)["error"] == "not_found"
    assert get(f"{own.url}/push")[:2] == [405, "application/json"]


BINARY = [
    ('51-7["push",{"destination":"42","data":{"_placeholder":true,"num":0}}]', "invalid_packet"),
    ('51-7["register",{"id":{"_placeholder":true,"num":0}}]', "invalid_packet"),
    ('51-7["of nobody",{"_placeholder":true,"num":0}]', "unknown_event"),
    ('51-7["connect",{"_placeholder":true,"num":0}]', "unknown_event"),
    ('51-7[{"_placeholder":true,"num":0}]', "invalid_packet"),
    ('51-7["many",', "invalid_packet"),
    ('51-7["many",{"_placeholder":true,"num":5}]', "invalid_packet"),
    ('51-7["many",{"_placeholder":true,"num":"x"}]', "invalid_packet"),
    ('51-7{"_placeholder":true,"num":0}', "invalid_packet"),
]


@pytest.mark.parametrize(("packet", "error"), BINARY)
def test_a_binary_event_that_is_refused_is_answered_once_under_its_id(own, packet, error):
    with contextlib.closing(Wire(own.port)) as wire:
        wire.send("4" + packet)
        wire.socket.sendall(frame("\x01\x02\x03", opcode=2))
        events, answer = wire.until_answer(7)
        assert (answer["ok"], answer["error"], events) == (False, error, [])
        events, answer = wire.call("register", {"id": "a"})
        assert answer["ok"] and events == [], "its attachment is passed over in silence"


def test_a_refused_event_of_a_namespace_is_answered_there(own, visitors):
    with contextlib.closing(Wire(own.port)) as wire:
        wire.send("40/any,")
        assert wire.packet().startswith("40/any,")
        for event in ('9["connect"]', '9["x",', "9[7]", '9["*"]'):
            wire.send(f"42/any,{event}")
            answer = wire.packet()
            assert answer.startswith('43/any,9[{"ok":false') or answer.startswith('43/any,9[{"ok": false'), answer
        wire.send("42/any,[7]")
        assert wire.packet().startswith('42/any,["relay_error"')


def test_too_many_or_too_large_attachments_are_refused(own):
    with contextlib.closing(Wire(own.port)) as wire:
        wire.send('4565-5["many"]')
        assert wire.until_answer(5)[1]["error"] == "invalid_packet"
        wire.send('452-6["many",{"_placeholder":true,"num":0}]')
        for _ in range(2):
            wire.socket.sendall(frame("x" * 60_000, opcode=2))
        assert "more than" in wire.until_answer(6)[1]["message"]
        assert wire.call("register", {"id": "a"})[1]["ok"]


def test_text_in_place_of_an_attachment_ends_the_connection(own):
    with contextlib.closing(Wire(own.port)) as wire:
        wire.send('451-6["many",{"_placeholder":true,"num":0}]')
        wire.send('427["register",{"id":"a"}]')
        with pytest.raises((ConnectionError, AssertionError, IndexError)):
            wire.until_answer(7)


# In its own process: Flask-SocketIO's test client changes the server that it talks to.

IN_PROCESS = """
import flask
from pushrelay.wsgi.front import is_hooked
from relay import app, socketio

@socketio.on("two")
def two(a, b):
    flask.session["seen"] = (a, b)
    return b, a

@socketio.on("back")
def back(data):
    flask.session["seen"]
    flask_socketio.emit("told", {"data": data})

import flask_socketio
client = socketio.test_client(app)
assert client.is_connected()
assert client.emit("two", 1, 2, callback=True) == [2, 1]
client.emit("back", b"bytes")
(told,) = client.get_received()
assert (told["name"], told["args"]) == ("told", [{"data": b"bytes"}]), told
assert client.emit("register", {"id": "a"}, callback=True)["ok"]
assert app.test_client().post("/push", data={"destination": "a", "data": "x"}).json["connections"] == 1
assert client.get_received()[0]["args"][0]["data"] == "x"
client.disconnect()

for name in ("register", "unregister", "ack", "push"):
    try:
        socketio.on(name)
    except ValueError as error:
        assert "the relay's own" in str(error)
    else:
        raise AssertionError(name)
    socketio.on(name, namespace="/other")

try:
    socketio.run(app, ssl_context="adhoc")
except TypeError as error:
    assert "ssl_context" in str(error) and "web server in front" in str(error), error
else:
    raise AssertionError("it serves")

shop = flask.Blueprint("shop", "shop")
shop.before_request(lambda: None)
shop.after_request(lambda response: response)
app.register_blueprint(shop)
assert not is_hooked(app), "a Blueprint's hooks are of its own routes"
shop = flask.Blueprint("shop2", "shop2")
shop.before_app_request(lambda: None)
app.register_blueprint(shop)
assert is_hooked(app)
"""


def test_the_test_client_works_and_the_relays_event_names_are_reserved(tmp_path):
    environ = {**os.environ, "RELAY_BROKER": "memory:", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", IN_PROCESS], env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("path", ["socket.io.js", "socket.io.min.js"])
def test_the_script_is_where_socketio_servers_have_theirs(own, path):
    status, kind, body = get(f"{own.url}/socket.io/{path}")
    assert (status, kind) == (200, "text/javascript")
    assert body == (ROOT / "static/relay.js").read_text()


@pytest.mark.parametrize(
    "path",
    ["socket.io.esm.min.js", "socket.io.msgpack.min.js", "socket.io.js.map", "socket.io.min.js.map", "x.mjs"],
)
def test_another_build_of_the_client_is_not_found_and_the_answer_names_the_right_one(own, path):
    status, kind, body = get(f"{own.url}/socket.io/{path}?v=1")
    assert (status, kind) == (404, "application/json")
    assert "socket.io.js" in json.loads(body)["message"]
