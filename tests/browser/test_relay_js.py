"""The browser client, static/relay.js, in real Chromium.

Most of it is the script's doing, so it is tried with the relay's own server. On Werkzeug too it has to connect and
receive, over each transport.
"""
# ruff: noqa: F811 (fixtures)

import contextlib
import json
import re
import signal
import socket
import socketserver
import threading

import pytest
from conftest import ROOT, own_only, wait_for
from pages import Server

from pushrelay.access.tokens import sign

SCRIPT = ROOT / "static" / "relay.js"
TRANSPORTS = ["websocket", "polling"]
SECRET = "the-first-secret-of-this-relay-0123456789"


@pytest.fixture
def proxy():
    """Starts proxies before a relay: proxy(relay.url, prefix="/relay", websocket=False) -> the url to use."""
    with contextlib.ExitStack() as started:

        def start(target, prefix="", websocket=True):
            port = int(target.rsplit(":", 1)[1])

            class Handler(socketserver.StreamRequestHandler):
                def handle(self):
                    head = b""
                    while line := self.rfile.readline():
                        if line.lower().startswith(b"connection: keep-alive"):
                            line = b"Connection: close\r\n"
                        head += line
                        if line == b"\r\n":
                            break
                    outside = not head.split(b" ")[1:2] or not head.split(b" ")[1].startswith(prefix.encode())
                    if outside or (not websocket and b"upgrade: websocket" in head.lower()):
                        self.wfile.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                        return
                    with socket.create_connection(("127.0.0.1", port)) as upstream:
                        upstream.sendall(head.replace(prefix.encode(), b"", 1))
                        threading.Thread(target=self.back, args=(upstream,), daemon=True).start()
                        with contextlib.suppress(OSError):
                            while data := self.rfile.read1(65536):
                                upstream.sendall(data)

                def back(self, upstream):
                    with contextlib.suppress(OSError):
                        while data := upstream.recv(65536):
                            self.connection.sendall(data)
                        self.connection.shutdown(socket.SHUT_RDWR)

            return started.enter_context(Server(("127.0.0.1", 0), Handler)).url + prefix

        yield start


def options(transport):
    """Options for one transport; a page finds a relay that was restarted within a second."""
    return json.dumps({"transports": [transport], "reconnectDelayMax": 500})


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_200_pushes_arrive_in_order(relay, page, transport):
    answer = page.open(relay.url).connect(options(transport), '["ordered", 42]')
    assert answer["ok"] and set(answer["ids"]) == {"ordered", "42"}
    assert page.run("relay.transport") == transport and page.run("relay.sid")
    for n in range(200):
        assert relay.push("ordered", n)["connections"] == 1
    assert page.pushed(200) == [str(n) for n in range(200)]
    assert page.seen("status") == [["connecting"], ["online"]]
    info = page.seen("push")[0][1]
    assert info["destination"] == "ordered" and info["event"] == "push" and info["id"]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_any_text_arrives_as_it_is(relay, page, transport):
    page.open(relay.url).connect(options(transport), '"text"')
    text = 'ü 😀 "\\\n\0 \x1e ' + "x" * 65536
    relay.push_json(destination="text", data=text)
    relay.push_json(destination="text", data={"a": [None, 1.5]})
    assert page.pushed(2) == [text, {"a": [None, 1.5]}]


@own_only
def test_if_websocket_is_refused_long_polling_takes_over_at_once(relay, page, proxy):
    page.open(proxy(relay.url, websocket=False)).connect(ids='"refused"')
    relay.push("refused", "hello")
    assert page.pushed(1) == ["hello"]
    assert page.run("relay.transport") == "polling"
    assert page.seen("status") == [["connecting"], ["online"]]


@own_only
@pytest.mark.parametrize("missing", ["undefined", "function () { throw new DOMException('insecure'); }"])
def test_without_websocket_long_polling_takes_over(relay, page, missing):
    page.open(relay.url, before=f"window.WebSocket = {missing};").connect()
    assert page.run("relay.transport") == "polling"


@own_only
def test_if_websocket_hangs_long_polling_takes_over_after_the_timeout(relay, page):
    page.page.route_web_socket(re.compile("socket.io"), lambda ws: None)
    page.open(relay.url).connect("{timeout: 300}")
    assert page.run("relay.transport") == "polling"


@own_only
@pytest.mark.parametrize("script", ["/static/relay.js?v=1", "/socket.io/socket.io.min.js"])
def test_the_server_is_found_under_a_path_prefix(relay, page, proxy, script):
    page.open(proxy(relay.url, prefix="/relay"), script)
    page.connect()
    assert page.run("relay.transport") == "websocket"
    page.run("() => new Promise((done) => { window.socket = io(); socket.on('connect', done); })")
    assert page.run("socket.connected && socket.id")


@own_only
def test_a_url_may_be_given_and_a_bad_one_is_a_clear_error(relay, page):
    page.open(relay.url)
    for url in (relay.url, relay.url + "/", relay.url[len("http:") :], relay.url.replace("http", "ws")):
        assert page.run(f"() => Relay.connect('{url}').register('42')")["ok"], url
    attempt = "() => {{ try {{ Relay.connect({}) }} catch (error) {{ return error.message }} }}"
    for url in ("example.com:8080", "", "ftp://example.com"):
        assert f"Use Relay.connect(URL), not {url}" in page.run(attempt.format(f"'{url}'"))
    assert "URL" in page.run(attempt.format("'http://'"))


@own_only
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_after_a_restart_the_page_reconnects_and_registers_everything(start_relay, page, transport):
    relay = start_relay()
    page.open(relay.url).connect(options(transport), '"a"')
    page.run("() => relay.register(['b', 'c'])")
    page.run("() => relay.register('gone')")
    page.run("() => relay.unregister('gone')")
    relay.kill()
    page.until("relay.status === 'offline' && relay.transport === null && relay.sid === null")
    page.run("() => { window.late = relay.register('d'); }")
    relay.start()
    assert page.run("() => late")["ok"]
    for each in "abcd":
        assert relay.push(each, each)["connections"] == 1
    assert page.pushed(4) == list("abcd")
    assert relay.push("gone", "x")["connections"] == 0


@own_only
@pytest.mark.timed  # a page must answer pings in time
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_server_that_falls_silent_is_noticed(start_relay, page, transport):
    relay = start_relay(ping_interval=0.3, ping_timeout=1.5)
    page.open(relay.url).connect(f"{{transports: ['{transport}'], timeout: 1500}}")
    page.page.wait_for_timeout(2500)  # not waiting for a condition: nothing may happen while pings are answered
    assert page.seen("status") == [["connecting"], ["online"]]
    relay.process.send_signal(signal.SIGSTOP)
    page.until("relay.status === 'offline'")
    relay.process.send_signal(signal.SIGCONT)
    page.until("relay.status === 'online'")
    wait_for(lambda: relay.push("42", "hello")["connections"] >= 1, "the registration")
    assert page.pushed(1)[0] == "hello"


@own_only
def test_the_network_coming_back_ends_the_wait(start_relay, page):
    relay = start_relay()
    page.open(relay.url).connect("{reconnectDelay: 1e8, reconnectDelayMax: 1e8}")
    relay.kill()
    page.until("relay.status === 'offline'")
    relay.start()
    page.run("() => { dispatchEvent(new Event('online')); }")
    page.until("relay.status === 'online'")
    relay.kill()
    page.until("relay.status === 'offline'")
    relay.start()
    page.run("() => { document.dispatchEvent(new Event('visibilitychange')); }")
    page.until("relay.status === 'online'")


@own_only
def test_a_refused_registration_rejects_and_is_an_error_event_and_is_not_repeated(relay, page, context):
    page.open(relay.url).connect()
    refused = "() => relay.register('x'.repeat(300)).catch(({code, message}) => ({code, message, real: true}))"
    answer = page.run(refused)
    assert answer["code"] and "256" in answer["message"]
    page.run("() => { relay.register(undefined); }")  # this one has no handler; `context` fails on page errors
    page.until("seen.filter(([what]) => what === 'error').length === 2")
    first, second = page.seen("error")
    assert first == [{"error": answer["code"], "message": answer["message"]}]
    assert second[0]["error"] == "invalid_id"


@own_only
def test_a_refusal_without_a_listener_is_a_warning(relay, page):
    warnings = []
    page.page.on("console", lambda message: warnings.append((message.type, message.text)))
    page.open(relay.url).run("() => { Relay.connect().push('42', 'hello'); }")
    wait_for(lambda: page.run("1") and warnings, "the warning")
    assert warnings[0][0] == "warning" and "socket_push" in warnings[0][1]


@own_only
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_page_may_push_if_the_relay_allows_it(start_relay, page, transport):
    relay = start_relay(socket_push="yes")
    page.open(relay.url)
    answers = page.run(
        f"""() => {{
          window.relay = listen(Relay.connect(undefined, {options(transport)}));
          relay.on("news", keep("news"));
          relay.register("42");
          const pushes = [...Array(40).keys()].map((n) => relay.push("42", n));
          return Promise.all([...pushes, relay.push("42", {{a: "ü"}}, "news")]);
        }}"""
    )
    assert [answer["connections"] for answer in answers] == [1] * 41
    assert page.pushed(40) == list(range(40))
    page.until("seen.some(([what]) => what === 'news')")
    [[data, info]] = page.seen("news")
    assert data == {"a": "ü"} and info["event"] == "news"


@own_only
def test_a_handler_that_throws_stops_nothing_and_the_page_hears_its_error(relay, page, page_errors):
    """window.onerror gets the error itself, for error trackers, although the script comes from another origin."""
    page.open(relay.url)
    page.run("() => { addEventListener('error', ({error}) => keep('onerror')(error.message)); }")
    page.run("() => { window.relay = Relay.connect().on('push', () => { throw new Error('mine'); }); listen(relay); }")
    page.run("() => { relay.on('push', () => Promise.reject(new Error('mine, later'))); }")
    page.run("() => relay.register('throws')")
    relay.push("throws", 1)
    relay.push("throws", 2)
    assert page.pushed(2) == ["1", "2"]
    page.until("seen.filter(([what]) => what === 'onerror').length === 4")
    assert sorted(message for [message] in page.seen("onerror")) == ["mine"] * 2 + ["mine, later"] * 2
    page_errors.clear()


def test_names_that_javascript_knows_are_names_like_any_other(fake, page, relay):
    page.open(relay.url)
    page.run(
        """() => {
          window.relay = listen(Relay.connect());
          for (const name of ["__proto__", "constructor"]) relay.on(name, keep(name));
        }"""
    )
    page.until("relay.status === 'online'")
    for n, event in enumerate(["toString", "__proto__", "constructor", "status", "error"]):
        fake.event(event, {"data": event, "id": f"e:{n}", "destination": "42"})
    assert page.pushed(2) == ["status", "error"]
    assert [info["event"] for _, info in page.seen("push")] == ["status", "error"]
    assert page.seen("__proto__")[0][0] == "__proto__" and page.seen("constructor")[0][0] == "constructor"
    assert page.seen("status") == [["connecting"], ["online"]] and page.seen("error") == []


def test_off_removes_a_handler(fake, page, relay):
    page.open(relay.url).connect(ids=None)
    page.run("() => { const gone = keep('gone'); relay.on('push', gone).off('push', gone).off('never', gone); }")
    fake.event("push", {"data": 1})
    assert page.pushed(1) == [1] and page.seen("gone") == []


def test_a_draining_server_sets_when_to_reconnect(fake, page, relay):
    page.open(relay.url).connect("{reconnectDelay: 1e8, reconnectDelayMax: 1e8}", ids=None)
    fake.event("relay_drain", {"reconnect_in_ms": 1e7})
    page.until("relay.status === 'offline'")
    page.run("() => { dispatchEvent(new Event('online')); }")  # it would end a wait of our own, but not this one
    assert page.run("relay.status") == "offline" and len(fake.sockets) == 1
    page.run("() => { relay.close(); listen(window.relay = Relay.connect()); }")
    fake.connected(2)
    page.until("relay.status === 'online'")
    fake.event("relay_drain", {"reconnect_in_ms": 200})
    fake.connected(3)
    page.until("relay.status === 'online'")
    assert page.seen("error") == []


@pytest.mark.parametrize("packet", ["41", "1", "not Engine.IO", "42[", "42{}", '42["relay_drain"]', "4"])
def test_a_connection_that_the_server_ends_or_garbles_is_made_again(fake, page, relay, packet):
    page.open(relay.url).connect("{reconnectDelay: 10}", ids=None)
    fake.send(packet) if packet != "4" else fake.sockets[-1].close()
    fake.connected(2)
    page.until("relay.status === 'online'")


def test_unknown_packets_are_ignored(fake, page, relay):
    page.open(relay.url).connect(ids=None)
    for packet in (
        b"binary",
        "6",
        '42/other,["push",{}]',
        '451-["push",{"_placeholder":true,"num":0}]',
        "bAAAA",
        "439[]",
    ):
        fake.send(packet)
    fake.event("push", {"data": 1})
    assert page.pushed(1) == [1] and len(fake.sockets) == 1


def test_a_server_that_refuses_the_connection_is_an_error_event_and_is_asked_again(fake, page, relay):
    fake.answer = '44{"message":"no room"}'
    page.open(relay.url).run("() => { window.relay = listen(Relay.connect(undefined, {reconnectDelay: 10})); }")
    page.until("seen.some(([what]) => what === 'error')")
    assert page.seen("error") == [[{"error": "connect_error", "message": "no room", "url": relay.url + "/socket.io/"}]]
    fake.answer = '40{"sid":"s"}'
    page.until("relay.status === 'online'")


def test_an_answer_that_was_cut_off_comes_after_the_reconnect_or_is_an_error(fake, page, relay):
    page.open(relay.url).connect("{reconnectDelay: 10}", ids=None)
    page.run(
        "() => { relay.register('42').then(keep('answer')); relay.push('42', 1).catch((e) => keep('cut')(e.code)); }"
    )
    wait_for(lambda: page.run("1") and len(fake.got) == 3, "both to be sent")
    fake.send("41")
    fake.connected(2)
    wait_for(
        lambda: page.run("1") and fake.got[-1].endswith('["register",{"id":["42"],"since":{}}]'), "the registration"
    )
    number = re.match(r"42(\d+)", fake.got[-1])[1]
    fake.send(f'43{number}[{{"ok":true}}]')
    page.until("seen.some(([what]) => what === 'answer')")
    assert page.seen("answer") == [[{"ok": True}]] and page.seen("cut") == [["disconnected"]]


def test_a_registration_refused_after_a_reconnect_is_an_error_event_and_tried_again(fake, page, relay):
    def answer(message, receive=fake.receive):
        receive(message)
        if match := re.match(r'42(\d+)\["register"', message):
            refused = len(fake.sockets) == 2
            body = {"ok": False, "error": "expired", "message": "too old"} if refused else {"ok": True}
            fake.send(f"43{match[1]}[{json.dumps(body)}]")

    fake.receive = answer
    page.open(relay.url).connect("{reconnectDelay: 10}")
    fake.send("41")
    page.until("seen.some(([what]) => what === 'error')")
    assert page.seen("error") == [[{"error": "expired", "message": "too old"}]]
    fake.send("41")
    fake.connected(3)
    wait_for(lambda: page.run("1") and sum("register" in message for message in fake.got) == 3, "the third")


@pytest.mark.parametrize("error", ["store_not_available", "auth_not_available", "too_many_events"])
def test_a_registration_that_is_refused_for_a_while_is_tried_again_and_the_page_stays_online(fake, page, relay, error):
    def answer(message, receive=fake.receive):
        receive(message)
        if match := re.match(r'42(\d+)\["register"', message):
            away = {"ok": False, "error": error, "message": "the disk is full"}
            fake.send(f"43{match[1]}[{json.dumps(away if len(fake.sent('register')) < 3 else {'ok': True})}]")

    fake.receive = answer
    page.open(relay.url)
    assert page.connect("{reconnectDelay: 10}") == {"ok": True}
    assert page.seen("error") == [[{"error": error, "message": "the disk is full", "ids": ["42"]}]]
    assert len(fake.sockets) == 1 and page.seen("status") == [["connecting"], ["online"]]


@pytest.fixture(scope="module")
def guarded(clocked_relay):
    return clocked_relay(secret=SECRET)


TOKENS = "window.signed = [{}]; window.asked = 0; window.token = () => signed[Math.min(asked++, signed.length - 1)];"


@own_only
@pytest.mark.parametrize("kind", ["text", "promise"])
def test_a_token_function_is_called_for_every_registration_and_when_a_token_expires(guarded, page, kind):
    ids = [f"{kind}-a", f"{kind}-b"]
    brief, lasting = (sign({"ids": ids, "exp": guarded.now() + seconds}, SECRET) for seconds in (60, 6000))
    page.open(guarded.url)
    page.run(f"() => {{ {TOKENS.format(f'{brief!r}, {lasting!r}')} }}")
    token = {"text": "token", "promise": "async () => token()"}[kind]
    page.run("() => { window.relay = listen(Relay.connect(undefined, {reconnectDelay: 10})); }")
    assert page.run(f"() => relay.register({json.dumps(ids)}, {{token: {token}}})")["ok"]
    guarded.push(ids[0], "before")
    guarded.advance(61)
    page.until("asked === 2")
    wait_for(lambda: page.run("1") and guarded.push(ids[1], "probe")["connections"] == 1, "the registration")
    guarded.push(ids[0], "after")
    page.until("seen.some(([what, data]) => data === 'after')")
    page.until("seen.some(([what, data]) => data === 'recovered')")
    assert [data for data, info in page.seen("push") if info["destination"] == ids[0]] == ["before", "after"]
    assert page.seen("error") == [] and page.run("relay.status") == "online"
    page.run("() => { relay._wire.end('cut'); }")
    page.until("asked === 3 && relay.status === 'online'")
    wait_for(lambda: page.run("1") and guarded.push(ids[0], "x")["connections"] == 1, "the registration")


@own_only
def test_a_token_that_expires_and_has_no_function_is_an_error_event_with_its_ids(guarded, page):
    brief = sign({"ids": ["*"], "exp": guarded.now() + 60}, SECRET)
    lasting = sign({"ids": ["renewed"], "exp": guarded.now() + 6000}, SECRET)
    page.open(guarded.url).connect(ids=None)
    page.run(f"() => {{ {TOKENS.format(f'{brief!r}, {lasting!r}')} }}")
    page.run("() => relay.register('renewed', {token})")
    assert page.run(f"() => relay.register('ended', {{token: {brief!r}}})")["ok"]
    guarded.advance(61)
    page.until("seen.some(([what]) => what === 'error') && asked === 2")
    (error,) = page.seen("error")[0]
    assert error["error"] == "token_expired" and error["ids"] == ["ended"] and error["message"]
    wait_for(lambda: page.run("1") and guarded.push("renewed", "x")["connections"] == 1, "the registration")
    assert guarded.push("ended", "x")["connections"] == 0


def test_a_push_that_came_too_late_for_its_token_is_an_error_event_and_the_connection_stays(fake, page, relay):
    page.open(relay.url).connect(ids=None)
    fake.event("relay_error", {"ok": False, "error": "token_expired", "message": "over"})  # without ids
    page.until("seen.some(([what]) => what === 'error')")
    assert page.seen("error") == [[{"error": "token_expired", "message": "over"}]] and len(fake.sockets) == 1
    assert page.run("relay.status") == "online"


@own_only
def test_a_token_function_that_fails_is_called_again_after_the_usual_waits(guarded, page):
    good = sign({"ids": ["patient"]}, SECRET)
    page.open(guarded.url)
    page.run("() => { window.relay = listen(Relay.connect(undefined, {reconnectDelay: 10})); window.asked = 0; }")
    token = f"async () => {{ if (asked++ < 2) throw new Error('no login yet'); return {good!r}; }}"
    assert page.run(f"() => relay.register('patient', {{token: {token}}})")["ok"]
    assert page.run("asked") == 3 and guarded.push("patient", "x")["connections"] == 1


@own_only
def test_an_id_that_is_unregistered_while_its_token_is_fetched_is_not_registered(guarded, page):
    page.open(guarded.url).connect(ids=None)
    later = "() => new Promise((done) => { window.done = done; })"
    page.run(f"() => {{ relay.register('hasty', {{token: {later}}}).catch(keep('no')); }}")
    page.until("!!window.done")
    assert page.run("() => relay.unregister('hasty')")["ok"]
    page.run(f"() => done({sign({'ids': ['hasty']}, SECRET)!r})")
    page.until("seen.some(([what]) => what === 'no')")
    page.run(f"() => relay.register('other', {{token: {sign({'ids': ['other']}, SECRET)!r}}})")  # behind it
    assert guarded.push("hasty", "x")["connections"] == 0


@own_only
def test_a_page_is_me_and_after_a_login_it_is_another_me(relay_with, page):
    relay = relay_with(id_cookie="PHPSESSID")
    visitor, user = "visitor-" + "0" * 20, "user-" + "0" * 20
    page.page.context.add_cookies([{"name": "PHPSESSID", "value": visitor, "url": relay.url, "httpOnly": True}])
    page.open(relay.url).connect(ids='"me"')
    relay.push(visitor, "hello")
    assert page.pushed(1) == ["hello"]
    for n in range(3):
        relay.push(user, n)
    page.page.context.add_cookies([{"name": "PHPSESSID", "value": user, "url": relay.url, "httpOnly": True}])
    page.open(relay.url).connect(ids='"me"')
    page.until("seen.some(([what, status]) => status === 'lost')")
    relay.push(user, "for the user")
    assert page.pushed(1) == ["for the user"]
    assert page.seen("push")[0][1]["destination"] == "me"
    page.open(relay.url).connect(ids='"me"')
    page.until("seen.some(([what, status]) => status === 'recovered')")
    for name in (visitor, user):
        assert name not in page.run("JSON.stringify([seen, {...sessionStorage}])")


def test_a_later_register_of_the_same_id_replaces_the_earlier(fake, page, relay):
    page.open(relay.url).connect("{reconnectDelay: 10}", ids=None)
    page.run("() => { relay.register(['a', 1], {token: 'old'}); }")
    wait_for(lambda: page.run("1") and len(fake.got) == 2, "the first")
    fake.send('430[{"ok":true}]')
    page.run("() => { relay.register('1', {token: 'new'}); }")
    wait_for(lambda: page.run("1") and len(fake.got) == 3, "the second")
    fake.send('431[{"ok":true}]')
    fake.send("41")
    wait_for(lambda: page.run("1") and len(fake.got) == 6, "both again")
    assert [json.loads(re.sub(r"^42\d+", "", packet)) for packet in fake.got[4:]] == [
        ["register", {"token": "old", "id": ["a"], "since": {}}],
        ["register", {"token": "new", "id": ["1"], "since": {}}],
    ]


@own_only
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_close_ends_the_connection_at_once_and_rejects_pending_promises(relay, page, transport):
    page.open(relay.url).connect(options(transport), '"closes"')
    page.run("() => relay.close()")
    assert page.run("relay.status") == "offline"
    wait_for(lambda: relay.push("closes", "x")["connections"] == 0, "the server to know")
    codes = page.run(
        """async () => {
          const code = (promise) => promise.then(() => "resolved", (error) => error.code);
          const early = Relay.connect();
          const waiting = [early.register("a"), early.push("a", 1)];
          early.close();
          return Promise.all([...waiting, relay.register("a"), relay.push("a", 1)].map(code));
        }"""
    )
    assert codes == ["closed"] * 4


@own_only
def test_a_page_of_the_old_node_server_runs_unchanged_and_survives_a_restart(start_relay, page):
    relay = start_relay()
    page.open(relay.url, "/socket.io/socket.io.js")
    page.run(
        f"""() => {{
          var socket = io.connect('{relay.url}');
          socket.on('push', function (d) {{ seen.push(['push', d.data, d]); }});
          socket.emit('register', {{id: 12345}});
        }}"""
    )
    wait_for(lambda: relay.push("12345", "first")["connections"], "the registration")
    page.pushed(1)
    relay.kill()
    relay.start()
    wait_for(lambda: relay.push("12345", "second")["connections"], "the registration after the restart")
    page.until("seen.some(([, data]) => data === 'second')")


@own_only
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_io_has_what_pages_written_for_socket_io_client_use(start_relay, page, transport):
    relay = start_relay()
    page.open(relay.url)
    page.run(
        f"""() => {{
          window.socket = io({{transports: ['{transport}'], reconnectDelay: 10, autoConnect: false}});
          for (const what of ["connect", "disconnect", "push"]) socket.on(what, keep(what));
          socket.on("connect_error", (error) => keep("connect_error")(error instanceof Error));
          socket.once("push", keep("once"));
          socket.emit("register", {{id: ["io", 7]}}, keep("answer"));
          socket.connect();
        }}"""
    )
    page.until("seen.some(([what]) => what === 'answer')")
    assert page.seen("answer")[0][0]["ok"] and page.run("socket.connected && typeof socket.id === 'string'")
    relay.push("io", 1)
    relay.push("7", 2)
    assert [message["data"] for message in page.pushed(2)] == ["1", "2"]
    assert len(page.seen("once")) == 1 and len(page.seen("connect")) == 1
    relay.kill()
    page.until("seen.some(([what]) => what === 'connect_error')")
    assert page.seen("connect_error")[0] == [True] and not page.run("socket.connected || socket.id")
    relay.start()
    wait_for(lambda: relay.push("io", 3)["connections"] == 1, "the registration")
    page.run("() => { socket.disconnect(); }")
    wait_for(lambda: relay.push("io", 3)["connections"] == 0, "the server to know")
    assert [reason for [reason] in page.seen("disconnect")][1:] == ["io client disconnect"]
    page.run("() => { socket.connect(); }")
    page.until("socket.connected")
    assert relay.push("io", 4)["connections"] == 0, "another user's page must not have the last one's id"


def test_io_passes_events_to_the_server_and_warns_about_refusals(fake, page, relay, page_errors):
    warnings = []
    page.page.on("console", lambda message: warnings.append(message.text))
    page.open(relay.url).run("() => { window.socket = io(); }")
    page.until("socket.connected")
    page.run("() => { socket.emit('ask', 1, () => { throw new Error('mine'); }); }")
    wait_for(lambda: page.run("1") and fake.got[-1] == '420["ask",1]', "the question")
    fake.send("430[]")
    wait_for(lambda: page.run("1") and page_errors, "the error")
    assert "mine" in page_errors.pop() and page.run("socket.connected") and len(fake.sockets) == 1
    fake.event("relay_error", {"ok": False, "error": "expired", "message": "too old"})
    wait_for(lambda: page.run("1") and any("too old" in text for text in warnings), "the warning")


@own_only
def test_a_page_that_has_its_own_io_keeps_it(relay, page):
    page.open(relay.url, before="window.io = 'mine';")
    assert page.run("io") == "mine" and page.run("typeof Relay.connect") == "function"


# Recovery: what the client sends, and how it handles the answers. test_away.py tests it with a real relay.


def start(page, fake, positions, register="relay.register('42')"):
    """Return a page that is registered and reconnects at once, and its first message."""
    fake.positions = positions
    page.run("() => { listen(window.relay = Relay.connect(undefined, {reconnectDelay: 10})); }")
    page.run(f"() => {register}")
    return fake.sent("register")[-1]


def test_a_first_registration_is_live_from_now_and_the_next_resumes(fake, page, relay):
    page.open(relay.url)
    assert start(page, fake, {"42": ["e:5", False]}) == {"id": "42"}
    fake.reconnect({"42": ["e:5", True]})
    assert fake.waits_for("register", 2)[1] == {"id": "42", "since": {"42": "e:5"}}
    fake.push("e:6")
    page.pushed(1)
    fake.reconnect({"42": ["e:6", True]})
    assert fake.waits_for("register", 3)[2] == {"id": "42", "since": {"42": "e:6"}}
    page.until("seen.filter(([what, status]) => status === 'recovered').length === 2")
    after = [["offline"], ["connecting"], ["online"], ["recovered", []]]
    statuses = [status[:1] if status[0] == "offline" else status for status in page.seen("status")]
    assert statuses == [["connecting"], ["online"], *after, *after]
    assert page.run("relay.status") == "online"


def test_each_id_resumes_from_its_own_position(fake, page, relay):
    page.open(relay.url)
    start(page, fake, {"a": ["e:1", False], "7": ["f:9", False]}, "relay.register(['a', 7])")
    fake.push("e:2", "a")
    page.pushed(1)
    fake.reconnect({"a": ["e:2", True], "7": ["f:9", True]})
    assert fake.waits_for("register", 2)[1] == {"id": ["a", "7"], "since": {"a": "e:2", "7": "f:9"}}


def test_nothing_is_handed_over_twice_and_a_new_epoch_starts_from_the_beginning(fake, page, relay):
    page.open(relay.url)
    start(page, fake, {"42": ["e:0", False]})
    for position in ("e:1", "e:2", "e:2", "e:1", "e:10", "e:9", "f:1", "f:1", "f:2"):
        fake.push(position)
    fake.push("e:1", "another")
    assert page.pushed(6) == ["e:1", "e:2", "e:10", "f:1", "f:2", "e:1"]


def test_a_push_that_overtakes_the_answer_is_not_asked_for_again(fake, page, relay):
    page.open(relay.url)
    fake.positions = None
    page.run("() => { listen(window.relay = Relay.connect(undefined, {reconnectDelay: 10})).register('42'); }")
    fake.waits_for("register", 1)
    fake.push("e:6")
    fake.send('430[{"ok":true,"ids":{"42":{"position":"e:5","recovered":false,"replayed":0}}}]')
    page.pushed(1)
    fake.reconnect({"42": ["e:6", True]})
    assert fake.waits_for("register", 2)[1]["since"] == {"42": "e:6"}


def test_lost_has_the_ids_and_recovered_is_not_fired(fake, page, relay):
    page.open(relay.url)
    start(page, fake, {"a": ["e:5", False], "b": ["e:5", False]}, "relay.register(['a', 'b'])")
    fake.reconnect({"a": ["e:5", True], "b": ["e:2", False]})
    page.until("seen.some(([what, status]) => status === 'lost')")
    assert page.seen("status")[-1] == ["lost", ["b"]]
    fake.push("e:3", "b")  # though that is before what was handed over
    assert page.pushed(1) == ["e:3"]
    assert page.run("relay.status") == "online" and not any("recovered" in status for status in page.seen("status"))


def test_a_since_of_the_page_overrides_what_the_tab_remembers(fake, page, relay):
    page.open(relay.url)
    start(page, fake, {"42": ["e:5", False]})
    page.open(relay.url)
    register = "relay.register('42', {since: 'e:3', token: 't'})"
    message = start(page, fake, {"42": ["e:5", True]}, register)
    assert message == {"id": "42", "token": "t", "since": {"42": "e:3"}}
    fake.push("e:6")
    fake.reconnect({"42": ["e:6", True]})
    assert fake.waits_for("register", 3)[2]["since"] == {"42": "e:6"}


def test_the_tabs_next_page_resumes_and_unregister_forgets(fake, page, relay):
    page.open(relay.url)
    start(page, fake, {"a": ["e:1", False], "b": ["e:2", False]}, "relay.register(['a', 'b'])")
    page.run("() => { relay.unregister('a'); }")
    page.open(relay.url)
    assert start(page, fake, {}, "relay.register(['a', 'b'])") == {"id": ["a", "b"], "since": {"b": "e:2"}}


def test_a_tab_keeps_the_newest_100_positions(fake, page, relay):
    page.open(relay.url)
    start(page, fake, {}, "relay.register('0')")
    for n in range(150):
        fake.push("e:1", str(n))
    fake.push("e:2", "60")
    page.pushed(151)
    page.open(relay.url)
    message = start(page, fake, {}, "relay.register(['49', '51', '60', '149'])")
    assert message["since"] == {"51": "e:1", "60": "e:2", "149": "e:1"}


@pytest.mark.parametrize(
    "broken",
    [
        "Object.defineProperty(window, 'sessionStorage', {get() { throw new DOMException('denied'); }})",
        "Object.defineProperty(window, 'sessionStorage', {value: null})",
        "Storage.prototype.setItem = () => { throw new DOMException('full'); }",
        'Storage.prototype.getItem = () => \'{"not": "ours\'',
    ],
)
def test_without_session_storage_a_page_still_recovers(fake, page, relay, broken):
    page.open(relay.url, before=broken)
    start(page, fake, {"42": ["e:5", False]})
    fake.push("e:6")
    assert page.pushed(1) == ["e:6"]
    fake.reconnect({"42": ["e:6", True]})
    assert fake.waits_for("register", 2)[1]["since"] == {"42": "e:6"}


def test_an_inbox_acknowledges_handled_publications_once_per_interval(fake, page, relay):
    page.open(relay.url)
    page.run("() => { window.done = []; }")
    answer = "listen(relay).on('push', () => new Promise((resolve) => done.push(resolve)))"
    message = start(page, fake, {"42": ["e:0", True]}, f"{answer}.register('42', {{inbox: true}})")
    assert message == {"id": "42", "since": {"42": "acked"}}
    for n in range(1, 6):
        fake.push(f"e:{n}")
    page.pushed(5)
    page.run("() => { done[1](); done[2](); }")  # but not the first
    page.run("() => { done[0](); }")
    assert fake.waits_for("ack", 1) == [{"id": "42", "position": "e:3"}]
    fake.reconnect({"42": ["e:5", True]})
    assert fake.waits_for("register", 2)[1] == {"id": "42", "since": {"42": "acked"}}
    for n in range(4, 7):
        fake.push(f"e:{n}")
    page.run("() => { done[3](); done[4](); }")
    wait_for(lambda: page.run("1") and fake.sent("ack")[-1] == {"id": "42", "position": "e:5"}, "the fifth")
    page.until("done.length === 6")
    page.run("() => { done[5](); }")
    wait_for(lambda: page.run("1") and fake.sent("ack")[-1] == {"id": "42", "position": "e:6"}, "the last")


@pytest.mark.parametrize("failure", ["throw new Error('mine')", "return Promise.reject(new Error('mine'))"])
def test_a_failed_handler_is_called_again_and_the_publication_is_acknowledged_then(
    fake, page, relay, page_errors, failure
):
    page.open(relay.url)
    handler = f"(data) => {{ keep('handled')(data); if (data === window.bad) {{ {failure}; }} }}"
    start(page, fake, {"42": ["e:0", True]}, f"relay.on('push', {handler}).register('42', {{inbox: true}})")
    page.run("() => { relay._options.reconnectDelay = 10; relay._options.reconnectDelayMax = 300; }")
    fake.push("e:1")
    assert fake.waits_for("ack", 1) == [{"id": "42", "position": "e:1"}]
    page.run("() => { window.bad = 'e:2'; }")
    fake.push("e:2")
    fake.push("e:3")
    page.until("seen.filter(([what, data]) => what === 'handled' && data === 'e:2').length > 2")
    assert len(fake.sent("ack")) == 1, "nothing after a failure is acknowledged"
    assert [data for [data] in page.seen("handled")].count("e:3") == 1, "and does not wait for it"
    error = page.seen("error")[0][0]
    assert error["error"] == "handler_failed" and error["ids"] == ["42"] and error["id"] == "e:2"
    page.run("() => { window.bad = ''; }")
    assert fake.waits_for("ack", 2)[1] == {"id": "42", "position": "e:3"}
    assert page.pushed(3) == ["e:1", "e:2", "e:3"], "a handler that did well is not called again"
    page_errors.clear()


def test_io_resumes_within_the_page_and_hands_over_once(fake, page, relay):
    warnings = []
    page.page.on("console", lambda message: warnings.append(message.text))
    fake.positions = {"42": ["e:5", False]}
    for _ in range(2):
        page.open(relay.url)
        page.run(
            """() => {
              window.socket = io({reconnectDelay: 10}).on("push", ({data}) => keep("push")(data));
              socket.emit("register", {id: 42, token: "t"});
            }"""
        )
        fake.waits_for("register", 1)
        assert fake.sent("register")[-1] == {"token": "t", "id": "42"}, "another page starts from the beginning"
    fake.push("e:6")
    page.pushed(1)
    fake.reconnect({"42": ["e:6", False]})
    wait_for(lambda: page.run("1") and "since" in fake.sent("register")[-1], "the registration")
    assert fake.sent("register")[-1] == {"token": "t", "id": "42", "since": {"42": "e:6"}}
    fake.push("e:6")
    fake.push("e:7")
    assert page.pushed(2) == ["e:6", "e:7"]
    assert any("lost" in text for text in warnings)
