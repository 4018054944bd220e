"""Every refusal is logged once a minute for each cause, with what to do about it."""

import io
import json
import re

import mistakes
import pytest
from answering import answer_of
from conftest import own_only, wait_for

from pushrelay.engine.engine import Engine
from pushrelay.engine.errors import origin_message
from pushrelay.engine.limits import ClientLimiter
from pushrelay.log.limiter import LogLimiter
from pushrelay.log.refusals import RefusalLog
from pushrelay.wsgi.base_path import at_base_path

AT = "/socket.io/?EIO=4&transport="


@pytest.fixture(scope="module")
def shop():
    """The request handler of an engine to which only https://shop.example may connect."""
    engine = Engine(cors_allowed_origins=lambda origin, environ: origin == "https://shop.example")
    yield engine.handle_request
    engine.shutdown()


@pytest.fixture
def engine():
    engine = Engine()
    yield engine
    engine.shutdown()


def test_an_origin_that_cannot_be_listed_is_in_the_log_with_what_to_do_about_it(shop, caplog):
    for origin, advice in (("*", "omit the header"), ("", "omit the header"), ("null", "web server")):
        assert answer_of(shop, "GET", HTTP_ORIGIN=origin)[0] == 403
        assert advice in caplog.records[-1].getMessage() and "setting origins" in caplog.records[-1].getMessage()


def test_a_page_whose_origin_cannot_be_listed_is_not_advised_to_list_it():
    for origin in ("null", "*"):
        assert origin_message(origin).startswith(f"pages of {origin} may not connect: ")
        assert "add this origin" not in origin_message(origin)
    listed = origin_message("http://shop.test")
    assert "add this origin to the relay's setting origins" in listed and "python relay.py doctor" in listed


@own_only
@pytest.mark.parametrize(
    "path",
    [
        "1/?t=1700000000000",
        "1/websocket/abc",
        "?EIO=2&transport=polling&j=0",
        "?EIO=3&transport=polling",
        "?transport=websocket",
    ],
)
def test_a_client_that_is_too_old_is_named_as_such_however_it_asks(relay, path):
    status, _, body = relay.request("GET", f"/socket.io/{path}")
    assert (status, json.loads(body)["code"]) == (400, 5)


def test_an_address_with_too_many_clients_is_in_the_log_with_the_proxy_as_a_possible_cause(caplog):
    engine = Engine(admission=ClientLimiter(10, 1, address_of=lambda environ: environ["REMOTE_ADDR"]))
    statuses = [answer_of(engine.handle_request, "GET", REMOTE_ADDR="192.0.2.1")[0] for _ in range(3)]
    engine.shutdown()
    assert statuses == [200, 429, 429] and len(caplog.records) == 1
    assert all(each in caplog.text for each in ("192.0.2.1", "max_per_address", "trusted_proxies"))


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory):
    relay = mistakes.start(tmp_path_factory.mktemp("mistaken") / "log", 3600)
    yield mistakes.Mistakes(relay)
    assert relay.stop() == 0 and "Traceback" not in relay.log.read_text(), relay.log.read_text()


@pytest.mark.parametrize("mistake", list(mistakes.LINES))
def test_a_refusal_is_in_the_log_once_with_what_to_do(mistaken, mistake):
    what, advice = mistakes.LINES[mistake]

    def found():
        return [
            line for _, line in mistakes.lines_of(mistaken.relay) if re.search(what, line) and re.search(advice, line)
        ]

    make = getattr(mistaken, mistake)
    make()
    wait_for(found, f"a line with {what} and {advice}")
    before = len(found())
    if mistake not in mistakes.SLOW:
        make()
        make()
    assert len(found()) == before


@pytest.mark.timed  # it waits for minutes that are two seconds long
def test_no_cause_is_in_the_log_more_than_once_a_minute_and_what_was_left_out_is_counted(tmp_path):
    relay = mistakes.start(tmp_path / "log", 2)
    names = [name for name in mistakes.LINES if name not in mistakes.SLOW]
    try:
        found = mistakes.run(relay, 5, 2, 0, names)
    finally:
        relay.stop()
    assert min(map(len, found.values())) > 1, {name: len(lines) for name, lines in found.items()}
    assert "more of the same since" in found["wrong_origin"][-1]


@pytest.mark.parametrize("server", ["werkzeug"], indirect=True, scope="session")
def test_with_werkzeug_the_same_refusals_are_in_the_log(relay_with):
    relay = relay_with(secret=mistakes.SECRET, id_cookie="PHPSESSID", push_keys="web:2bd806c97f0e00af1a1fc332")
    made = mistakes.Mistakes(relay)
    statuses = [
        relay.request("GET", f"{AT}polling", headers={"Origin": origin})[0] for origin in (mistakes.SHOP, "null")
    ]
    assert statuses == [400, 400]
    names = ["wrong_secret", "missing_cookie", "wrong_key", "no_key", "old_client", "wrong_path", "push_by_get"]
    for name in (*names, "unknown_namespace", "unknown_session", "no_upgrade", "unknown_transport") * 2:
        getattr(made, name)()
    expected = {advice: ("", advice) for advice in ("several relays", "docs/apache.md", "polling or")}
    for name in ("wrong_origin", "no_origin", *names, "unknown_namespace"):
        what, advice = (re.escape(each) if "|" not in each else each for each in mistakes.LINES[name])
        expected[name] = ("unsupported version" if name == "old_client" else what, advice)

    def found(name):
        what, advice = expected[name]
        lines = [line for _, line in mistakes.lines_of(relay)]
        return [line for line in lines if re.search(what, line) and re.search(advice, line)]

    wait_for(lambda: all(found(name) for name in expected), "all lines")
    for name in expected:
        assert len(found(name)) == 1, (name, found(name))


def test_below_a_base_path_requests_outside_it_are_logged(caplog):
    app = at_base_path(
        lambda environ, start_response: [], "/relay", RefusalLog(LogLimiter(), lambda environ: None).log_request
    )
    for _ in range(2):
        assert answer_of(app, "GET", REMOTE_ADDR="192.0.2.1")[0] == 404
    (line,) = [record.getMessage() for record in caplog.records]
    assert "GET /socket.io/ from 192.0.2.1" in line and "base_path" in line


def test_a_client_that_comes_back_to_a_session_that_ended_here_is_not_logged(engine, caplog):
    def ask(method, sid="", body=b""):
        query = f"EIO=4&transport=polling{sid and '&sid=' + sid}"
        more = {"QUERY_STRING": query, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        return answer_of(engine.handle_request, method, **more)[0]

    assert ask("GET") == 200
    (sid,) = engine.sockets
    assert ask("POST", sid, b"1") == 200
    assert ask("GET", sid) == 400 and not caplog.records
    other = ("y" if sid[0] == "x" else "x") + sid[1:]
    assert ask("GET", other) == 400 and "several relays" in caplog.text
