"""A page asks PHP through the relay, and gets PHP's answer, or a clear error."""

import contextlib
import json
import signal
import socket
import threading
import time

import pytest
from clients import Wire, event
from conftest import DEADLINE, free_port, own_only, wait_for
from php_site import SECRET, Site

from pushrelay.access.tokens import sign
from pushrelay.client.signature import signature

TOKEN_SECRET = "token-secret-with-32-characters--"


@pytest.fixture(scope="module")
def site():
    with contextlib.closing(Site()) as site:
        yield site


@pytest.fixture(scope="module")
def asked(relay_with, site):
    """A relay whose pages may ask the site."""
    return relay_with(
        request_url=site.url,
        webhook_secret=SECRET,
        request_timeout=2,
        threads=2,
        request_concurrency=4,
        max_answer=100_000,
        max_event_rate=1000,
        max_message=200_000,
    )


@pytest.fixture
def page(asked, connect):
    return connect(asked.url)


def ask(page, name, data=None):
    return page.call("request", {"name": name, "data": data})


def test_a_page_gets_what_php_answers(page):
    for data in (None, 7, "ß→😀", {"sku": [7, {"deep": True}]}, ""):
        assert ask(page, "echo", data) == {"ok": True, "answer": data}


def test_an_empty_answer_is_null(page):
    assert ask(page, "empty") == ask(page, "status:204") == {"ok": True, "answer": None}


def test_php_gets_the_event_the_browser_and_a_signature(asked, site, connect):
    page = connect(asked.url, "room-7", headers={"Cookie": "PHPSESSID=abc", "User-Agent": "Firefox"})
    before = time.time()
    assert ask(page, "echo", {"a": 1})["ok"]
    got = site.got()[-1]
    (asked_for,) = got["events"]
    assert asked_for.pop("id") and before - 5 < asked_for.pop("at") < time.time() + 5
    assert asked_for == {
        "event": "request",
        "name": "echo",
        "data": {"a": 1},
        "ids": ["room-7"],
        "sid": page.socket.get_sid(),
    }
    headers = got["headers"]
    assert headers["cookie"] == "PHPSESSID=abc" and headers["user-agent"] == "Firefox"
    assert headers["content-type"] == "application/json"
    sent_at = float(headers["relay-signature"].partition(",")[0].removeprefix("t="))
    assert headers["relay-signature"] == signature([SECRET], got["body"].encode(), sent_at)


@own_only
def test_php_learns_the_user_that_the_token_names(relay_with, site, connect):
    relay = relay_with(request_url=site.url, webhook_secret=SECRET, secret=TOKEN_SECRET)
    page = connect(relay.url)
    assert ask(page, "echo", 1)["ok"]
    assert "as" not in site.got()[-1]["events"][0], "it has shown no token yet"
    claims = {"ids": ["42"], "as": {"id": 5, "info": {"name": "Eve"}}}
    assert page.call("register", {"id": "42", "token": sign(claims, TOKEN_SECRET)})["ok"]
    assert ask(page, "echo", 2)["ok"]
    last = site.got()[-1]["events"][0]
    assert (last["as"], last["ids"]) == ({"id": "5", "info": {"name": "Eve"}}, ["42"])


# The name and the data of a request; the error and the status of the answer, and a part of its message.
ERRORS = [
    ("status:401", None, "not_allowed", 401, "log in first"),
    ("status:403", None, "not_allowed", 403, "does not allow"),
    ("no-such-name", None, "unknown_request", 404, "no such request"),
    ("refuse:422", {"message": "The sku is wrong."}, "invalid_request", 422, "The sku is wrong."),
    ("refuse:400", {"error": "No sku!"}, "invalid_request", 400, "No sku!"),
    ("refuse:409", {"error": "sold_out", "message": "None left."}, "sold_out", 409, "None left."),
    ("refuse:422", ["a list"], "invalid_request", 422, "does not accept"),
    ("status:410", None, "request_failed", 410, "410"),
    ("status:500", None, "request_failed", 500, "may have been carried out"),
    ("throw", None, "request_failed", 200, "is not JSON"),  # PHP prints the exception
    ("html", None, "request_failed", 200, "is not JSON"),
    ("warning", None, "request_failed", 200, "is not JSON"),
    ("redirect", None, "request_failed", 302, "redirects (302)"),
]


def test_what_php_refuses_or_fails_at_is_a_clear_error(page):
    for name, data, error, status, message in ERRORS:
        answer = ask(page, name, data)
        assert (answer["ok"], answer["error"], answer["status"]) == (False, error, status), name
        assert message in answer["message"], name
        assert "hunter2" not in answer["message"] and "secret stack" not in answer["message"], name


def test_a_site_that_wants_less_names_the_time_to_wait(page):
    answer = ask(page, "busy")
    assert (answer["error"], answer["status"], answer["retry_after"]) == ("too_many_requests", 429, 7)


def test_an_answer_may_be_as_large_as_max_answer(page):
    assert len(ask(page, "large:99998")["answer"]) == 99_998  # and its two quotes
    for size in (99_999, 10_000_000):
        assert ask(page, f"large:{size}")["error"] == "answer_too_large"


@own_only
def test_a_site_that_takes_too_long_is_a_timeout_and_others_do_not_wait_for_it(page):
    late = threading.Thread(target=lambda: answers.append(ask(page, "sleep:4")))
    answers = []
    late.start()
    assert ask(page, "echo", 1)["ok"] and page.call("register", {"id": "42"})["ok"] and not answers
    late.join(DEADLINE)
    assert answers[0]["error"] == "request_timeout" and "2 s" in answers[0]["message"] and "status" not in answers[0]


@own_only
def test_a_site_that_cannot_be_reached_is_trouble_until_it_answers(relay_with, connect):
    port = free_port()
    relay = relay_with(request_url=f"http://me:word@127.0.0.1:{port}/relay.php?key=1", webhook_secret=SECRET)
    page = connect(relay.url)
    for _ in range(3):
        answer = ask(page, "echo")
        assert answer["error"] == "request_not_available" and "nothing was sent" in answer["message"]
    ready = json.loads(relay.request("GET", "/health/ready")[2])
    assert ready["ready"] and "Connection refused" in ready["trouble"]["requests"]
    assert "check the host and the port in request_url" in ready["trouble"]["requests"]
    wait_for(lambda: "requests: the last requests of pages to " in relay.log.read_text(), "the line in the log")
    assert "word" not in relay.log.read_text() and "key=1" not in relay.log.read_text()
    with socket.create_server(("127.0.0.1", port)) as listener:

        def serve():
            sock, _ = listener.accept()
            with sock:
                while not sock.recv(65536).endswith(b"}"):
                    pass
                sock.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

        threading.Thread(target=serve, daemon=True).start()
        assert ask(page, "echo") == {"ok": True, "answer": None}
    assert "trouble" not in json.loads(relay.request("GET", "/health/ready")[2])


def test_the_log_shows_how_an_answer_begins_that_is_not_json(page, asked):
    ask(page, "html")
    wait_for(lambda: "not JSON, and begins with: <h1>Welcome</h1> pass" in asked.log.read_text(), "the line")
    assert "have your script print one JSON value" in asked.log.read_text()


def test_a_request_that_makes_no_sense_is_refused_and_not_sent(page, site):
    before = len(site.got())
    for message in ("echo", {}, {"name": ""}, {"name": "a" * 129}, {"name": "a\nb"}, {"name": 7}):
        assert page.call("request", message)["error"] == ("invalid_name" if message != "echo" else "invalid_message")
    assert page.call("request", {"name": "echo", "payload": 1})["error"] == "unknown_field"
    assert ask(page, "a" * 128)["error"] == "unknown_request", "that name is not too long"
    assert len(site.got()) == before + 1


def test_a_relay_without_a_request_url_refuses_requests_and_messages(relay, connect):
    page = connect(relay.url)
    for name in ("request", "send"):
        answer = page.call(name, {"name": "echo"})
        assert answer["error"] == "no_request_url" and "request_url" in answer["message"]
    assert b"relay_requests_total" not in relay.request("GET", "/metrics")[2]


def test_metrics_count_requests_by_their_result(page, asked):
    ask(page, "echo"), ask(page, "status:403"), ask(page, "status:500")
    text = asked.request("GET", "/metrics")[2].decode()
    for result in ("answered", "refused", "failed"):
        count = float(text.partition(f'relay_requests_total{{result="{result}"}} ')[2].split("\n")[0])
        assert count >= 1
    assert "relay_request_seconds_bucket" in text and 'relay_queue_length{queue="requests"} 0' in text


# On the relay's own server.


@pytest.fixture
def wire(asked):
    """A client that reads only when the test wants it, and handles nothing on its own."""
    with contextlib.closing(Wire(asked.port)) as wire:
        yield wire


other = wire


def ask_many(wire, names):
    """Send requests at once, each with its number for its data."""
    for number, name in enumerate(names):
        wire.send(event("request", {"name": name, "data": number}, number))


def answers_of(wire, count):
    """Return the answers to that many requests, by number, in the order in which they came."""
    answers = {}
    while len(answers) < count:
        number, _, rest = wire.packet()[2:].partition("[")
        answers[int(number)] = json.loads("[" + rest)[0]
    return answers


def metric(relay, name):
    text = relay.request("GET", "/metrics")[2].decode()
    return float(text.partition(f"\n{name} ")[2].split("\n")[0])


@own_only
def test_a_page_may_have_16_requests_under_way_and_they_hold_neither_threads_nor_others(asked, site, wire, other):
    before = metric(asked, "relay_threads")
    ask_many(wire, ["hold:many"] * 2 + ["echo"] * 15)
    assert answers_of(wire, 1)[16]["error"] == "too_many_requests"
    wait_for(lambda: site.names()[-2:] == ["hold:many"] * 2, "the requests that one page may have sent")
    ask_many(other, ["echo"])
    assert answers_of(other, 1)[0]["ok"], "half of request_concurrency is for others"
    assert other.call("register", {"id": "held"})[1]["ok"] and asked.push("held", 1)["connections"] == 1
    assert other.events(1)[0]["data"] == "1"
    # Those of request_concurrency, and of the server, which starts its own when they are needed.
    assert metric(asked, "relay_threads") <= before + 4 + 2
    site.release("many")
    assert all(answer["answer"] == number for number, answer in answers_of(wire, 16).items())
    ask_many(wire, ["echo"])
    assert answers_of(wire, 1)[0]["ok"]


@own_only
def test_a_request_of_a_client_that_left_before_its_turn_is_not_sent(asked, site, wire, other):
    dropped = metric(asked, 'relay_requests_total{result="dropped"}')
    ask_many(wire, ["hold:left"] * 2), ask_many(other, ["hold:left"] * 2)
    wait_for(lambda: site.names()[-4:] == ["hold:left"] * 4, "four busy workers")
    with contextlib.closing(Wire(asked.port)) as leaving:
        leaving.send(event("request", {"name": "gone"}, 1))
        wait_for(lambda: metric(asked, 'relay_queue_length{queue="requests"}') == 1, "a request that waits")
    wait_for(lambda: metric(asked, 'relay_requests_total{result="dropped"}') > dropped, "the end of the request")
    site.release("left")
    assert all(answer["ok"] for each in (wire, other) for answer in answers_of(each, 2).values())
    assert "gone" not in site.names()


@own_only
def test_a_full_queue_turns_requests_away_and_clients_take_turns(start_relay, site):
    relay = start_relay(request_url=site.url, webhook_secret=SECRET, request_concurrency=1, max_requests=12)
    with contextlib.closing(Wire(relay.port)) as busy, contextlib.closing(Wire(relay.port)) as other:
        ask_many(busy, ["hold:full"])
        wait_for(lambda: site.names()[-1:] == ["hold:full"], "a busy worker")
        for number in range(1, 8):  # one more than half of the queue
            busy.send(event("request", {"name": "echo", "data": number}, number))
        refusal = answers_of(busy, 1)[7]
        assert refusal["error"] == "too_many_requests" and "max_requests" in refusal["message"]
        other.send(event("request", {"name": "echo", "data": "other"}, 1))
        wait_for(lambda: metric(relay, 'relay_queue_length{queue="requests"}') == 7, "seven requests that wait")
        site.release("full")
        assert answers_of(other, 1)[1]["ok"] and len(answers_of(busy, 7)) == 7
    order = [got["events"][0]["data"] for got in site.got()[-7:]]
    assert order.index("other") <= 1, order


@pytest.fixture(scope="module")
def strict(relay_with, site):
    """A relay that allows clients little."""
    return relay_with(
        request_url=site.url, webhook_secret=SECRET, max_event_rate=1, register_timeout=1, max_message=1_000_000
    )


@own_only
def test_data_counts_for_the_event_rate(strict):
    with contextlib.closing(Wire(strict.port)) as wire:
        wire.send(event("request", {"name": "echo", "data": "x" * 900_000}, 1))
        wire.send(event("request", {"name": "echo"}, 2))
        assert answers_of(wire, 2)[2]["error"] == "too_many_events"


@own_only
def test_a_client_that_only_asks_need_not_register(strict):
    with contextlib.closing(Wire(strict.port)) as asking, contextlib.closing(Wire(strict.port)) as idle:
        ask_many(asking, ["echo"])
        assert answers_of(asking, 1)[0]["ok"]
        assert "register_timeout" in idle.packet()
        ask_many(asking, ["echo"])
        assert answers_of(asking, 1)[0]["ok"]


@own_only
def test_a_reload_changes_and_removes_the_address(tmp_path, start_relay, site, connect):
    ini = tmp_path / "relay.ini"
    ini.write_text(f"[relay]\nport = 0\nwebhook_secret = {SECRET}\n")
    relay = start_relay(config=ini)
    page = connect(relay.url)
    assert ask(page, "echo")["error"] == "no_request_url"
    for url, answered in ((site.url, True), ("", False)):
        ini.write_text(f"[relay]\nport = 0\nwebhook_secret = {SECRET}\nrequest_url = {url}\n")
        relay.process.send_signal(signal.SIGHUP)
        wait_for(lambda: ask(page, "echo")["ok"] is answered, "the new settings")  # noqa: B023


@own_only
def test_a_thousand_requests_at_once_are_all_answered(asked):
    with contextlib.ExitStack() as opened:
        wires = [opened.enter_context(contextlib.closing(Wire(asked.port))) for _ in range(60)]
        for wire in wires:
            ask_many(wire, ["echo"] * 16)
        assert asked.push("42", "in between")["id"]
        for wire in wires:
            assert all(answer["answer"] == number for number, answer in answers_of(wire, 16).items())


# Messages.


def sent(site, id_):
    """Return the event with this id and the headers of its request, once PHP has got it."""

    def found():
        events = [(event, got["headers"]) for got in site.got() for event in got["events"] if event["id"] == id_]
        return events[0] if events else None

    return wait_for(found, f"the message {id_}")


def test_a_message_is_stored_and_then_delivered_without_cookies(asked, site, connect):
    page = connect(asked.url, "room-7", headers={"Cookie": "PHPSESSID=abc"})
    message = {"name": "echo", "data": {"seen": 7}, "id": f"one-of-{asked.port}"}
    assert page.call("send", message) == {"ok": True, "id": message["id"]}
    assert page.call("send", message)["ok"], "a repeat"
    received, headers = sent(site, message["id"])
    assert received.pop("at")
    assert received == {**message, "event": "send", "ids": ["room-7"], "sid": page.socket.get_sid()}
    assert "cookie" not in headers and "relay-signature" in headers
    last = page.call("send", {"name": "echo"})
    sent(site, last["id"])
    times = [event["id"] for got in site.got() for event in got["events"]].count(message["id"])
    assert times == 1 and metric(asked, 'relay_sends_total{result="repeated"}') == 1


@own_only
def test_a_message_that_was_acknowledged_survives_kill_9(start_relay, site, connect):
    relay = start_relay(request_url=f"http://127.0.0.1:{free_port()}/relay.php", webhook_secret=SECRET)
    answer = connect(relay.url).call("send", {"name": "echo", "data": "survives"})
    relay.kill()
    relay.settings["request_url"] = site.url
    relay.start()
    assert sent(site, answer["id"])[0]["data"] == "survives"
