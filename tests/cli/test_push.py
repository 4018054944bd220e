"""`python relay.py push` prints the relay's receipt, and the reason if a push was not accepted."""

import json

import pytest
from conftest import free_port
from terminal import run


def test_a_push_prints_the_answer(relay, connect):
    client = connect(relay.url, "terminal")
    ran = run("push", "terminal", "hällo", f"--port={relay.port}")
    assert (ran.returncode, ran.stderr) == (0, "")
    answer = json.loads(ran.stdout)
    assert (answer["destination"], answer["connections"]) == ("terminal", 1)
    run("push", "terminal", "-", "--json", "--event=news", f"--url={relay.url}/push", text='{"n": [1, "ü"]}')
    assert client.wait(2)[0][1]["data"] == "hällo"
    assert client.got[1][0] == "news" and client.got[1][1]["data"] == {"n": [1, "ü"]}


def test_a_push_is_repeated_kept_and_waited_for_as_its_flags_demand(relay):
    url = f"--url={relay.url}"
    first, again = (json.loads(run("push", "kept", "x", "--id=once", url).stdout)["id"] for _ in range(2))
    assert first == again
    assert json.loads(run("push", "kept", "y", "--ttl=0", "--wait=0.1", url).stdout)["acked"] == 0
    history = json.loads(relay.request("GET", "/history?destination=kept")[2])
    assert [each["data"] for each in history["publications"]] == ["x"]


def test_a_refused_push_prints_the_reason_and_ends_with_1(relay):
    ran = run("push", "a", "x", "--event=connect", f"--url={relay.url}")
    assert (ran.returncode, ran.stdout) == (1, "") and "choose another" in ran.stderr


def test_without_a_relay_a_push_prints_a_hint_and_ends_with_1():
    ran = run("push", "a", "x", f"--port={free_port()}")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert len(ran.stderr.splitlines()) == 1 and "is the relay running" in ran.stderr


def test_another_program_in_place_of_the_relay_is_reported(serve):
    def site(environ, start_response):
        start_response("404 Not Found", [("Content-Type", "text/html")])
        return [b"<h1>Not found</h1>"]

    ran = run("push", "a", "x", f"--port={serve(site).port}")
    assert ran.returncode == 1 and "404" in ran.stderr


def test_a_page_in_place_of_the_relays_answer_is_a_failure(serve):
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


def test_control_characters_of_strangers_do_not_reach_the_terminal(serve):
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
