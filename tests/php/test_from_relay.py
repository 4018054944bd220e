"""Relay.php verifies requests of the relay, and asks it for more than pushes."""

import json
import re
import socket
import time
import urllib.error
import urllib.request

import pytest
from conftest import ROOT, own_only
from phplab import CLIENT, reply

from pushrelay.client.signature import signature as relays_signature

SECRET = "0123456789" * 4
NEW = "abcdefghij" * 4
EVENTS = [
    {"id": "e1", "event": "online", "destination": "42", "at": 1790000000.123},
    {"id": "e2", "event": "join", "destination": "42", "member": {"id": "7", "info": {}}, "at": 1790000000.2},
]
ASKED = [{"id": "r1", "event": "request", "name": "cart/add", "data": {"sku": 7}, "sid": "s", "at": 1790000000.3}]
RECEIVER = f"""<?php
require '{CLIENT}';
try {{
    if ($_SERVER['REQUEST_URI'] === '/request') {{
        $request = Relay::request('{SECRET}');
        header('Content-Type: application/json');
        echo json_encode(['asked' => $request]);
    }} else {{
        $secrets = $_SERVER['REQUEST_URI'] === '/both' ? ['{NEW}', '{SECRET}'] : '{SECRET}';
        echo json_encode(array_column(Relay::webhook($secrets), 'id'));
    }}
}} catch (RelayException $e) {{
    error_log("caught: {{$e->error}}");
}}
"""


def signature(body, *secrets, at=None):
    return relays_signature(secrets, body, time.time() if at is None else at)


def body_of(events):
    return json.dumps({"events": events}).encode()


@pytest.fixture(scope="module")
def receiver(tmp_path_factory):
    """PHP's own web server with a script that receives what the relay sends."""
    from phplab import Php

    folder = tmp_path_factory.mktemp("receiver")
    php = Php(folder)
    (folder / "site").mkdir()
    (folder / "site" / "index.php").write_text(RECEIVER)
    with php.serve(folder / "site", workers=2) as url:
        yield url


def post(url, body, header):
    headers = {"Content-Type": "application/json", **({} if header is None else {"Relay-Signature": header})}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_events_with_a_right_signature_are_returned(receiver):
    body = body_of(EVENTS)
    assert post(receiver, body, signature(body, SECRET)) == (200, ["e1", "e2"])


def test_a_message_of_a_page_may_be_large(receiver):
    body = body_of([{"event": "send", "id": "e1", "data": "x" * 5_000_000}])
    assert post(receiver, body, signature(body, SECRET)) == (200, ["e1"])


def test_while_a_secret_is_replaced_both_are_accepted_on_either_side(receiver):
    body = body_of(EVENTS)
    assert post(receiver, body, signature(body, NEW, SECRET)) == (200, ["e1", "e2"])
    assert post(f"{receiver}/both", body, signature(body, SECRET))[0] == 200
    assert post(f"{receiver}/both", body, signature(body, NEW))[0] == 200
    assert post(receiver, body, signature(body, NEW))[0] == 403


@pytest.mark.parametrize(
    ("header", "error", "words"),
    [
        (None, "missing_signature", "only the relay may call this address"),
        ("", "missing_signature", "only the relay may call this address"),
        ("t=1,v2=ab", "missing_signature", "only the relay"),
        (f"t={10**13},v1=ab", "missing_signature", "only the relay"),
        ("v1=ab", "missing_signature", "only the relay"),
        ("t=NOW,v1=ab", "wrong_signature", "use the same text here and in the relay's setting"),
    ],
)
def test_a_request_without_a_right_signature_is_answered_with_403(receiver, header, error, words):
    header = header and header.replace("NOW", str(int(time.time())))
    status, answer = post(receiver, body_of(EVENTS), header)
    assert (status, answer["error"]) == (403, error) and words in answer["message"]


def test_a_body_that_was_changed_is_refused(receiver):
    header = signature(body_of(EVENTS), SECRET)
    assert post(receiver, body_of(EVENTS[:1]), header)[1]["error"] == "wrong_signature"


@pytest.mark.parametrize(("seconds", "words"), [(-310, "seconds ago"), (310, "seconds in the future")])
def test_an_old_request_is_refused_and_the_message_names_the_clock(receiver, seconds, words):
    body = body_of(EVENTS)
    status, answer = post(receiver, body, signature(body, SECRET, at=time.time() + seconds))
    assert (status, answer["error"]) == (403, "old_signature")
    assert words in answer["message"] and "by this machine's clock (" in answer["message"]
    assert post(receiver, body, signature(body, SECRET, at=time.time() + seconds * 0.9))[0] == 200


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"events": 7}', b'{"events": [7]}', b'{"events": {"a": {"event": "b"}}}']
)
def test_a_signed_body_without_events_is_answered_with_400(receiver, body):
    status, answer = post(receiver, body, signature(body, SECRET))
    assert (status, answer["error"]) == (400, "invalid_json")


def test_the_request_of_a_page_is_told_from_other_events(receiver):
    asked, events = body_of(ASKED), body_of(EVENTS)
    assert post(f"{receiver}/request", asked, signature(asked, SECRET)) == (200, {"asked": ASKED[0]})
    assert post(f"{receiver}/request", events, signature(events, SECRET)) == (200, {"asked": None})
    assert post(f"{receiver}/request", asked, signature(asked, NEW))[0] == 403


def test_a_framework_can_pass_the_body_and_the_header_and_sends_its_own_answer(php):
    body = body_of(EVENTS).decode()
    got = php.run(f"""
        $body = {json.dumps(body)};
        $right = '{signature(body.encode(), SECRET)}';
        $true = '{signature(body.encode(), "1")}';
        $array = '{signature(body.encode(), "Array")}';
        $wrong = [['', $right], [[false], $right], [true, $true], [[['{SECRET}']], $array], [new stdClass, $right]];
        foreach ([['{SECRET}', $right], ['{SECRET}', 'wrong'], ...$wrong] as [$secret, $header]) {{
            try {{ $got[] = count(Relay::webhook($secret, $body, $header)); }}
            catch (RelayException $e) {{ $got[] = [$e->error, $e->getCode()]; }}
        }}
        echo json_encode($got);""")
    assert got == [2, ["missing_signature", 403], *[["no_secret", 500]] * 5]


# --- What Relay.php asks ---


@own_only
@pytest.mark.parametrize("transport", ["curl", "streams"])
def test_the_presence_of_destinations_is_asked_in_as_many_requests_as_needed(relay, connect, php, transport):
    connect(relay.url, "42", "räum & co")
    names = "[42, 'räum & co', 'nobody'" + "".join(f", '{'x' * 100}{n}'" for n in range(120)) + "]"
    got, none, push = php.run(f"""
        $relay = new Relay('{relay.url}', ['transport' => '{transport}', 'budget' => 5]);
        $got = $relay->presence({names});
        echo json_encode([$got, $relay->presence([]), $relay->push('nobody', 1)]);""")
    assert {name: found["connections"] for name, found in got.items() if found["connections"]} == {
        "42": 1,
        "räum & co": 1,
    }
    assert len(got) == 123 and got["42"]["since"] > 1.7e9 and none == [] and push["id"]


@pytest.mark.parametrize("transport", ["curl", "streams"])
def test_the_members_of_a_large_room_arrive_whole_and_do_not_look_like_a_failure_of_the_relay(php, stranger, transport):
    members = [{"id": f"{number}", "info": {"name": "x" * 1000}, "since": 1.5} for number in range(5000)]
    body = json.dumps({"room": {"connections": 5000, "since": 1.5, "members": members}}).encode()
    page = stranger(lambda stranger, connection, request: connection.sendall(reply("200 OK", body)))
    got = php.run(f"""
        $relay = new Relay('{page.url}', ['transport' => '{transport}', 'budget' => 20]);
        for ($i = 0; $i < 4; $i++) {{
            $found = $relay->presence('room');
            $got[] = [count($found['room']['members'] ?? []), $relay->lastError()];
        }}
        echo json_encode($got);""")
    assert len(body) > 5_000_000 and got == [[5000, None]] * 4


def test_presence_names_what_is_wrong(php, stranger):
    page = stranger(lambda stranger, connection, request: connection.sendall(reply("200 OK", b"[]")))
    got = php.run(f"""
        $relay = new Relay('{page.url}', ['budget' => 5]);
        foreach ([[null], '', 'a'] as $names) $got[] = [$relay->presence($names), $relay->lastError()];
        echo json_encode($got);""")
    assert [answer for answer, _ in got] == [None] * 3
    assert got[0][1].startswith("invalid_destination: ") and got[2][1].startswith("not_the_relay (200): ")
    assert f"{page.url}/presence. Check" in got[2][1]


@own_only
@pytest.mark.parametrize("transport", ["curl", "streams"])
def test_everybody_who_is_present_comes_page_by_page_with_the_members(relay_with, connect, php, transport):
    relay = relay_with(secret=SECRET)
    token = php.run(f"""
        $relay = new Relay('{relay.url}', ['secret' => '{SECRET}']);
        $claims = ['ids' => ['*'], 'as' => ['id' => 7, 'info' => ['name' => 'Ann']], 'exp' => time() + 600];
        echo json_encode($relay->token($claims));""")
    client = connect(relay.url)
    names = ["10", "9", "a&b=c", "room-7", "räum+1"]
    assert client.call("register", {"id": names, "token": token})["ok"]
    all_, one, error = php.run(f"""
        $relay = new Relay('{relay.url}', ['transport' => '{transport}', 'budget' => 5]);
        foreach ($relay->presenceAll(2) as $name => $found) $all[] = [$name, $found];
        echo json_encode([$all, $relay->presence('room-7'), $relay->lastError()]);""")
    assert [name for name, _ in all_] == names and error is None
    assert all(found["connections"] == 1 for _, found in all_)
    (member,) = one["room-7"]["members"]
    assert (member["id"], member["info"]) == ("7", {"name": "Ann"}) and all_[3][1]["members"] == [member]
    client.drop()


def test_the_end_of_a_broken_listing_has_a_reason(php, refused):
    got = php.run(f"""
        $relay = new Relay('{refused}');
        foreach ($relay->presenceAll() as $found) $got[] = $found;
        echo json_encode([isset($got), $relay->lastError()]);""")
    assert not got[0] and got[1].startswith("unreachable: ")


@pytest.fixture
def refused():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{s.getsockname()[1]}"


@pytest.mark.parametrize("transport", ["curl", "streams"])
def test_rings_in_a_row_are_combined_and_the_last_one_is_never_left_out(php, stranger, transport):
    rung = reply("200 OK", b'{"ok":true}')
    relay = stranger(lambda stranger, connection, request: connection.sendall(rung))
    got = php.run(f"""
        $relay = new Relay('{relay.url}', ['transport' => '{transport}', 'budget' => 5]);
        for ($i = 0; $i < 20; $i++) $got[] = $relay->ring();
        echo json_encode($got);""")
    assert got == [True] * 20
    # Two, unless the machine is so busy that the rings take more than 0.05 seconds.
    assert 2 <= len(relay.requests) <= 4 and all(each.startswith(b"POST /ring ") for each in relay.requests)
    assert all(b"\r\nContent-Length: 0\r\n" in each for each in relay.requests)


def test_a_ring_that_nobody_hears_is_false_with_a_reason_and_soon_costs_nothing(php, refused):
    got = php.run(f"""
        $relay = new Relay('{refused}', ['key' => 'k', 'cooldown' => 60]);
        for ($i = 0; $i < 4; $i++) $got[] = [$relay->ring(), $relay->lastError()];
        echo json_encode($got);""")
    assert [is_rung for is_rung, _ in got] == [False] * 4
    assert got[0][1].startswith("unreachable: ") and got[3][1].startswith("breaker_open: ")
    assert "this request was not sent" in got[3][1]


# --- Tokens ---


def test_a_token_may_name_a_user_and_what_members_a_page_sees(php):
    import jwt

    token = php.run(f"""
        $relay = new Relay('http://127.0.0.1', ['secret' => '{SECRET}']);
        $as = ['id' => 42, 'info' => ['name' => 'Ann', 'tags' => []]];
        echo json_encode($relay->token(['presence' => ['room-*'], 'as' => $as, 'exp' => 2000000000]));""")
    claims = jwt.decode(token, SECRET, algorithms=["HS256"])
    assert claims["as"] == {"id": "42", "info": {"name": "Ann", "tags": []}} and claims["presence"] == ["room-*"]


@pytest.mark.parametrize(
    ("member", "words"),
    [
        ("'Ann'", "'as' must be ['id' => '42'"),
        ("['info' => []]", "'as' must be ['id' => '42'"),
        ("['id' => '']", "an id of 1 to 128 characters"),
        ("['id' => str_repeat('x', 129)]", "an id of 1 to 128 characters"),
        ("['id' => \"a\\n\"]", "an id of 1 to 128 characters"),
        ("['id' => 1.5]", "an id of 1 to 128 characters"),
        ("['id' => '42', 'name' => 'Ann']", "'as' must be ['id' => '42'"),
        ("['id' => '42', 'info' => 'Ann']", "the info in 'as' must have names"),
        ("['id' => '42', 'info' => ['Ann']]", "the info in 'as' must have names"),
        (
            "['id' => '42', 'info' => ['name' => str_repeat('x', 1014)]]",
            "has 1025 bytes as JSON, and the relay accepts",
        ),
    ],
)
def test_a_user_that_the_relay_would_refuse_is_an_exception(php, member, words):
    got = php.run(f"""
        $relay = new Relay('http://127.0.0.1', ['secret' => '{SECRET}']);
        try {{ $relay->token(['ids' => ['1'], 'as' => {member}, 'exp' => 2000000000]); }}
        catch (RelayException $e) {{ echo json_encode("$e->error: {{$e->getMessage()}}"); }}""")
    assert got.startswith("invalid_claims: ") and words in got


def test_the_longest_id_and_info_are_accepted_by_both(php):
    import jwt

    from pushrelay.access.member import member_of

    token = php.run(f"""
        $relay = new Relay('http://127.0.0.1', ['secret' => '{SECRET}']);
        $as = ['id' => str_repeat('ä', 128), 'info' => (object) ['n' => str_repeat('ü', 508)]];
        echo json_encode($relay->token(['ids' => ['1'], 'as' => $as, 'exp' => 2000000000]));""")
    member = member_of(jwt.decode(token, SECRET, algorithms=["HS256"]))
    assert member.id == "ä" * 128 and len(member.info_json.encode()) == 1024


# --- The documentation ---


def test_the_script_of_the_documentation_receives_requests_and_events(php, tmp_path):
    page = (ROOT / "docs/php.md").read_text()
    (code,) = re.findall(r"\n\n(    <\?php  // events\.php\n(?:    .*\n)+)", page)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.php").write_text(code.replace("\n    ", "\n").strip())
    flags = ("-d", f"include_path={CLIENT.parent}", "-d", f"error_log={tmp_path}/errors")
    with php.serve(tmp_path / "site", *flags, workers=1, RELAY_WEBHOOK_SECRET=SECRET) as url:
        asked, events = body_of(ASKED), body_of(EVENTS)
        assert post(url, asked, signature(asked, SECRET)) == (200, {"echo": {"sku": 7}})
        request = urllib.request.Request(url, events, {"Relay-Signature": signature(events, SECRET)})
        with urllib.request.urlopen(request) as answer:
            assert answer.read() == b""
        assert "e1: online" in (tmp_path / "errors").read_text()
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(urllib.request.Request(url, events, {"Relay-Signature": signature(events, NEW)}))
