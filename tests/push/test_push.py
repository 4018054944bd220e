"""POST /push over HTTP: the pushes that it takes, the answers, and the refusals."""

import http.client
import json
import socket
import subprocess
import urllib.parse

import pytest
from conftest import DEADLINE, need

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}
TEXTS = {
    "plain": "hello",
    "empty": "",
    "unicode": "Grüße, Ελλάδα, 日本語, עברית",
    "emoji": "👍🏽 family 👨‍👩‍👧‍👦 flag 🇺🇳",
    "quotes": """it's "quoted" \\ and `so` on""",
    "newlines": "one\ntwo\r\nthree\ttab\x00nul\u2028ls",
    "separators": "a=b&c=d%20+;#?",
    "html": "<script>alert(1)</script>",
    "64 KiB": "0123456789abcdef" * 4096,
    "64 KiB of emoji": "🎈" * 16384,
}


def test_a_form_push_is_answered_with_destination_position_and_connections(relay, connect):
    client = connect(relay.url, "form-42")
    answer = relay.push("form-42", "hello")
    assert list(answer) == ["destination", "id", "connections"]
    assert answer["destination"] == "form-42" and answer["connections"] == 1
    assert client.wait(1) == [("push", {"data": "hello", "id": answer["id"], "destination": "form-42"})]


def test_curl_pushes_with_two_fields(relay, connect):
    need(subprocess.run(["which", "curl"], capture_output=True).returncode == 0, "curl")
    client = connect(relay.url, "curl-1")
    command = ["curl", "-sS", "-d", "destination=curl-1", "-d", "data=from curl", relay.url + "/push"]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert answer["connections"] == 1
    assert client.data(1) == ["from curl"]


@pytest.mark.parametrize("kind", ["form", "multipart", "json"])
@pytest.mark.parametrize("name", TEXTS)
def test_text_arrives_byte_for_byte(relay, connect, kind, name):
    text = TEXTS[name]
    destination = f"text-{kind}-{name}"
    client = connect(relay.url, destination)
    if kind == "form":
        body, headers = urllib.parse.urlencode({"destination": destination, "data": text}).encode(), FORM
    elif kind == "json":
        body, headers = json.dumps({"destination": destination, "data": text}).encode(), JSON
    else:
        body, headers = multipart(destination=destination, data=text)
    status, _, answer = relay.request("POST", "/push", body, headers)
    assert status == 200, answer
    assert client.data(1) == [text]


def multipart(**fields):
    parts = [f'--cut\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
    return ("".join(parts) + "--cut--\r\n").encode(), {"Content-Type": "multipart/form-data; boundary=cut"}


VALUES = [None, True, 0, -1.5, 1e300, 12345678901234567890, [], {}, {"__proto__": [1, {"ä": None}]}, ["text", 2]]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_json_data_arrives_as_the_same_value(relay, connect, value):
    client = connect(relay.url, "json-value")
    assert relay.push_json(destination="json-value", data=value)[0] == 200
    assert client.data(1) == [value]


def test_json_utf8_without_escapes_arrives(relay, connect):
    client = connect(relay.url, "raw")
    body = '{"destination": "raw", "data": "日本 👍"}'.encode()
    assert relay.request("POST", "/push", body, {"Content-Type": "application/json; charset=utf-8"})[0] == 200
    assert client.data(1) == ["日本 👍"]


@pytest.mark.parametrize(
    ("a", "b", "body"),
    [
        ("brackets-a", "brackets-b", "destination[]=brackets-a&destination[]=brackets-b&data=x"),
        ("numbers-a", "numbers-b", "destination%5B0%5D=numbers-a&destination%5B1%5D=numbers-b&data=x"),
        ("bare-a", "bare-b", "destination=bare-a&destination=bare-b&data=x"),
        ("again-a", "again-b", "destination[]=again-a&destination[]=again-b&destination[]=again-a&data=x"),
    ],
)
def test_several_destinations_in_a_form_are_each_answered(relay, connect, a, b, body):
    clients = connect(relay.url, a), connect(relay.url, b)
    status, _, answer = relay.request("POST", "/push", body.encode(), FORM)
    assert status == 200
    assert [(each["destination"], each["connections"]) for each in json.loads(answer)] == [(a, 1), (b, 1)]
    assert [client.data(1) for client in clients] == [["x"], ["x"]]


def test_several_destinations_in_json_are_each_answered(relay, connect):
    client = connect(relay.url, "list-c", 7)
    status, answers = relay.push_json(destination=["list-c", 7, "list-nobody"], data="x")
    assert status == 200
    assert [(a["destination"], a["connections"]) for a in answers] == [("list-c", 1), ("7", 1), ("list-nobody", 0)]
    assert client.data(2) == ["x", "x"]


def test_a_list_of_one_is_answered_with_a_list(relay):
    assert isinstance(relay.push_json(destination=["one"], data="x")[1], list)
    assert isinstance(json.loads(relay.request("POST", "/push", b"destination[]=one&data=x", FORM)[2]), list)


def test_a_push_with_an_event_name_reaches_the_page_as_that_event(relay, connect):
    client = connect(relay.url, "event")
    answer = relay.push("event", "x", event="order:paid")
    assert client.wait(1) == [("order:paid", {"data": "x", "id": answer["id"], "destination": "event"})]


def test_the_socket_named_in_except_is_left_out(relay, connect):
    first, second = connect(relay.url, "except"), connect(relay.url, "except")
    assert relay.push("except", "not you", **{"except": first.socket.get_sid()})["connections"] == 1
    assert relay.push("except", "all of you")["connections"] == 2
    assert second.data(2) == ["not you", "all of you"]
    assert first.data(1) == ["all of you"]


def test_ids_count_up_within_a_destination(relay):
    answers = [relay.push("counted", "x")["id"].split(":") for _ in range(3)]
    assert len({epoch for epoch, _ in answers}) == 1
    assert [offset for _, offset in answers] == ["1", "2", "3"]


def test_the_root_takes_the_pushes_of_the_first_server(relay, connect):
    client = connect(relay.url, "root")
    status, headers, body = relay.request(
        "POST", "/", b"destination=root&data=old&more=ignored", {"Content-Type": "text/x"}
    )
    assert (status, body) == (200, b"")
    assert headers["Relay-Connections"] == "1"
    _, message = client.wait(1)[0]
    assert message == {"data": "old", "id": headers["Relay-Id"], "destination": "root"}


@pytest.mark.parametrize(
    "path", ["/static//relay.js", "/static//evil.example/", "//evil.example/", "/push/", "/health//live"]
)
def test_no_answer_is_a_redirect(relay, path):
    with socket.create_connection(("127.0.0.1", relay.port), DEADLINE) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n".encode())
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        assert (answer.status, answer.getheader("Location")) == (404, None)
        assert json.loads(answer.read())["error"] == "not_found"


@pytest.mark.parametrize("kind", [FORM, JSON], ids=["form", "JSON"])
def test_a_push_to_the_root_is_delivered_whatever_other_fields_it_has(relay, connect, kind):
    """Otherwise a program with an `id` of its own would lose its second push as a repetition of the first."""
    destination = f"root-{kind['Content-Type']}"
    client = connect(relay.url, destination)
    fields = {"destination": destination, "data": "x", "id": "7", "event": "connect", "ttl": "soon", "wait": "x"}
    fields |= {"except": client.socket.get_sid(), "more": "ignored"}
    body = urllib.parse.urlencode(fields) + "&more=twice" if kind == FORM else json.dumps(fields)
    for _ in range(2):
        status, headers, _ = relay.request("POST", "/", body.encode(), {**kind, "Idempotency-Key": "k"})
        assert (status, headers["Relay-Connections"]) == (200, "1")
    assert [event for event, _ in client.wait(2)] == ["push", "push"]
    history = json.loads(relay.request("GET", f"/history?destination={destination}")[2])
    assert len(history["publications"]) == 2


REFUSED = [
    ("nothing at all", FORM, b"", 400, "missing_destination"),
    ("no destination", FORM, b"data=x", 400, "missing_destination"),
    ("an empty destination", FORM, b"destination=&data=x", 400, "missing_destination"),
    ("no data", FORM, b"destination=a", 400, "missing_data"),
    ("an array as data", FORM, b"destination=a&data[x]=1", 400, "invalid_data"),
    ("an array in addition to data", FORM, b"destination=a&data=1&data[x]=1", 400, "invalid_data"),
    ("data twice", FORM, b"destination=a&data=x&data=y", 400, "invalid_form"),
    ("a field nobody knows", FORM, b"destination=a&data=x&evnet=y", 400, "unknown_field"),
    ("a wait beyond the limit", FORM, b"destination=a&data=x&wait=31", 400, "invalid_wait"),
    ("a wait of no time", FORM, b"destination=a&data=x&wait=soon", 400, "invalid_wait"),
    ("a negative ttl", FORM, b"destination=a&data=x&ttl=-1", 400, "invalid_ttl"),
    ("a ttl without end", FORM, b"destination=a&data=x&ttl=inf", 400, "invalid_ttl"),
    ("true as ttl", JSON, b'{"destination": "a", "data": 1, "ttl": true}', 400, "invalid_ttl"),
    ("an empty idempotency key", FORM, b"destination=a&data=x&id=", 400, "invalid_id"),
    ("too long an idempotency key", FORM, b"destination=a&data=x&id=" + b"k" * 256, 400, "invalid_id"),
    (
        "a batch that is too large",
        JSON,
        json.dumps([{"destination": "a", "data": 1}] * 1001).encode(),
        400,
        "too_many_pushes",
    ),
    ("Latin-1 in a form", FORM, b"destination=a&data=%FC", 400, "invalid_form"),
    ("raw Latin-1 in a form", FORM, b"destination=a&data=\xfc", 400, "invalid_form"),
    ("fields without end", FORM, b"a=1&" * 2000, 400, "invalid_form"),
    ("a control character in the destination", FORM, b"destination=a%0Ab&data=x", 400, "invalid_destination"),
    ("a destination too long", FORM, b"destination=" + b"a" * 257 + b"&data=x", 400, "invalid_destination"),
    ("an event of Socket.IO's own", FORM, b"destination=a&data=x&event=disconnect", 400, "invalid_event"),
    ("an event of the relay's own", FORM, b"destination=a&data=x&event=relay_drain", 400, "invalid_event"),
    ("a newline in the event", FORM, b"destination=a&data=x&event=a%0D%0Ab", 400, "invalid_event"),
    ("an empty event", FORM, b"destination=a&data=x&event=", 400, "invalid_event"),
    (
        "1,001 destinations",
        JSON,
        json.dumps({"destination": list(range(1001)), "data": 1}).encode(),
        400,
        "too_many_destinations",
    ),
    ("no destinations", JSON, b'{"destination": [], "data": 1}', 400, "missing_destination"),
    ("JSON cut short", JSON, b'{"destination": "a"', 400, "invalid_json"),
    ("empty JSON", JSON, b"", 400, "invalid_json"),
    ("JSON that is a string", JSON, b'"a"', 400, "invalid_json"),
    ("JSON in Latin-1", JSON, b'{"destination": "a", "data": "\xfc"}', 400, "invalid_json"),
    ("NaN", JSON, b'{"destination": "a", "data": NaN}', 400, "invalid_json"),
    ("Infinity", JSON, b'{"destination": "a", "data": [-Infinity]}', 400, "invalid_json"),
    ("1e999", JSON, b'{"destination": "a", "data": 1e999}', 400, "invalid_data"),
    ("a lone surrogate", JSON, b'{"destination": "a", "data": "\\ud83d"}', 400, "invalid_data"),
    ("a lone surrogate in a key", JSON, b'{"destination": "a", "data": {"\\ud83d": 1}}', 400, "invalid_data"),
    ("JSON too deep", JSON, b'{"destination": "a", "data": ' + b"[" * 200_000, 400, "invalid_json"),
    ("a number of 5,000 digits", JSON, b'{"destination": "a", "data": ' + b"1" * 5000 + b"}", 400, "invalid_data"),
    ("true as destination", JSON, b'{"destination": true, "data": 1}', 400, "invalid_destination"),
    ("null as destination", JSON, b'{"destination": null, "data": 1}', 400, "invalid_destination"),
    ("a fraction as destination", JSON, b'{"destination": 1.5, "data": 1}', 400, "invalid_destination"),
    ("an object as destination", JSON, b'{"destination": {"a": 1}, "data": 1}', 400, "invalid_destination"),
    ("a list within the list", JSON, b'{"destination": [["a"]], "data": 1}', 400, "invalid_destination"),
    ("a surrogate as destination", JSON, b'{"destination": "\\udc00", "data": 1}', 400, "invalid_destination"),
    ("a number as event", JSON, b'{"destination": "a", "data": 1, "event": 5}', 400, "invalid_event"),
    (
        "half a surrogate pair as except",
        JSON,
        b'{"destination": "a", "data": 1, "except": "\\ud800"}',
        400,
        "invalid_except",
    ),
    ("a number as except", JSON, b'{"destination": "a", "data": 1, "except": 5}', 400, "invalid_except"),
    ("a type nobody knows", {"Content-Type": "text/csv"}, b"a,b", 415, "unsupported_media_type"),
    ("another charset", {"Content-Type": "application/json; charset=latin1"}, b"{}", 415, "unsupported_media_type"),
    ("a multipart body without boundary", {"Content-Type": "multipart/form-data"}, b"--x--", 400, "invalid_form"),
    ("too large a body", FORM, b"destination=a&data=" + b"x" * 1_000_000, 413, "too_large"),
]


@pytest.mark.parametrize(("headers", "body", "status", "error"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_bad_input_is_refused_with_its_code_and_a_message(relay, headers, body, status, error):
    got, answer_headers, answer = relay.request("POST", "/push", body, headers)
    answer = json.loads(answer)
    assert (got, answer["error"]) == (status, error), answer
    assert list(answer) == ["error", "message"] and len(answer["message"]) > 15
    assert answer_headers["Content-Type"] == "application/json"
    assert relay.push("still-there", "x")["connections"] == 0


def test_a_refused_push_reaches_nobody(relay, connect):
    client = connect(relay.url, "refused-a")
    assert relay.push_json(destination=["refused-a", "b\n"], data="x")[0] == 400
    relay.push("refused-a", "the next")
    assert client.data(1) == ["the next"]


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/push", 405, "method_not_allowed"),
        ("PUT", "/", 405, "method_not_allowed"),
        ("DELETE", "/static/relay.js", 405, "method_not_allowed"),
    ],
)
def test_wrong_addresses_and_methods_are_answered_in_json(relay, method, path, status, error):
    got, headers, body = relay.request(method, path)
    assert (got, json.loads(body)["error"]) == (status, error)
    assert status != 405 or headers["Allow"]


def test_health_reports_that_the_relay_is_live(relay):
    assert relay.request("GET", "/health/live")[0] == 200


@pytest.mark.parametrize("path", ["/static/relay.js", "/socket.io/socket.io.js"])
def test_the_browser_client_is_served_at_all_its_addresses(relay, path):
    status, headers, body = relay.request("GET", path)
    assert status == 200 and headers["Content-Type"].startswith("text/javascript")
    assert b"Relay" in body


def raw(relay, request, deadline=5.0):
    """Send bytes and read the head of the answer."""
    with socket.create_connection(("127.0.0.1", relay.port), deadline) as s:
        s.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer and (part := s.recv(65536)):
            answer += part
        return answer


def test_a_body_that_would_be_refused_gets_no_100_continue(relay):
    head = "POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\nExpect: 100-continue\r\n\r\n"
    assert raw(relay, head.encode()).startswith(b"HTTP/1.1 413 "), "without a byte of the body"


def test_a_body_that_fits_gets_one_100_continue(relay):
    head = "POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\nConnection: close\r\n"
    head += "Expect: 100-continue\r\n\r\n"
    with socket.create_connection(("127.0.0.1", relay.port), 5) as s:
        s.sendall(head.encode())
        assert s.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        s.sendall(b"destination=a&data=x")
        answer = b""
        while part := s.recv(65536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 200 "), answer


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-For: 9.9.9.9",
        "x-forwarded-host: a",
        "X-Forwarded-Proto: https",
        "Forwarded: for=a",
        "X-Real-IP: 9.9.9.9",
    ],
)
def test_a_push_through_a_proxy_is_not_local(relay, header):
    name, value = header.split(": ")
    status, _, body = relay.request("POST", "/push", b"destination=a&data=x", {name: value})
    assert (status, json.loads(body)["error"]) == (401, "missing_key")


@pytest.mark.parametrize("path", ["/push", "/"])
def test_a_push_from_another_machine_is_refused(start_relay, path):
    relay = start_relay(host="0.0.0.0")
    relay.url = relay.url.replace("127.0.0.1", own_address())
    status, _, body = relay.request("POST", path, b"destination=a&data=x")
    assert (status, json.loads(body)["error"]) == (401, "missing_key")


def own_address():
    """Return an address of this machine that is not loopback. Connecting UDP sends nothing; it only picks a route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect(("192.0.2.1", 9))
        except OSError:
            need(False, "a network besides loopback")
        return s.getsockname()[0]


def test_a_foreign_page_in_a_local_browser_may_not_push(relay):
    status, _, body = relay.request("POST", "/push", b"destination=a&data=x", {"Origin": "https://evil.example"})
    assert (status, json.loads(body)["error"]) == (403, "origin_not_allowed")
    assert relay.request("POST", "/push", b"destination=a&data=x", {"Origin": "http://127.0.0.1"})[0] == 200
