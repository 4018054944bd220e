"""Webhooks: a real relay, and receivers in PHP that verify each request with Relay::webhook()."""

import json
import signal
import time

import pytest
from conftest import own_only, wait_for
from receivers import SECRET, Receivers
from terminal import run

from pushrelay.access.tokens import sign
from pushrelay.client.signature import signature

pytestmark = own_only
TOKEN_SECRET = "77aa66bb55cc44dd33ee22ff11009988"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with Receivers(tmp_path_factory.mktemp("site"), workers=6) as receivers:
        yield receivers


@pytest.fixture
def hook(site, request):
    """The name of a receiver of this test alone."""
    return request.node.name.partition("[")[0][5:60]


class Hooked:
    """A relay with webhooks, whose settings are in a file that the test changes."""

    def __init__(self, start_relay, folder, **settings):
        self.file = folder / "my.ini"
        self.settings = {"webhook_secret": SECRET, "presence_grace": "200ms", **settings}
        self.write()
        self.relay = start_relay(config=self.file)

    def write(self):
        lines = [f"{name} = {value}\n" for name, value in self.settings.items()]
        self.file.write_text("[relay]\n" + "".join(lines))

    def reload(self, **settings):
        self.settings |= settings
        self.write()
        before = self.relay.log.read_text().count("were reloaded")
        self.relay.process.send_signal(signal.SIGHUP)
        wait_for(lambda: self.relay.log.read_text().count("were reloaded") > before, "the reload")

    def command(self, *words):
        """Run `relay.py webhooks`, and return what it prints."""
        ran = run("webhooks", *words, f"--config={self.file}", f"--port={self.relay.port}")
        assert ran.returncode == 0, ran
        return ran.stdout

    def state(self, label="1"):
        """Return the state of a URL."""
        urls = json.loads(self.relay.request("GET", "/webhooks")[2])["urls"]
        return next(each for each in urls if each["url"] == label)


@pytest.fixture
def hooked(start_relay, tmp_path):
    return lambda **settings: Hooked(start_relay, tmp_path, **settings)


# The events that PHP gets.


@pytest.fixture(scope="module")
def shared(site, relay_with):
    """A relay for the tests of single events, with a receiver for each."""
    filters = {
        "places": "ids=place-*",
        "users": "events=join|leave",
        "expired": "events=expired",
        "lost": "events=lost",
    }
    urls = ", ".join(f"{site.url(name)} {each}" for name, each in filters.items())
    settings = {"webhook_url": urls, "request_url": site.url("sends"), "webhook_secret": SECRET}
    return relay_with(**settings, presence_grace="200ms", history_size=1, secret=TOKEN_SECRET)


@pytest.fixture
def register(shared, connect):
    """Register ids with a token on a new connection."""

    def register(*ids, client=None, since=None, **claims):
        client = client or connect(shared.url)
        token = sign({"ids": ["*"], "exp": time.time() + 60, **claims}, TOKEN_SECRET)
        client.answer = client.call("register", {"id": list(ids), "token": token, "since": since})
        assert client.answer["ok"], client.answer
        return client

    return register


def test_php_learns_who_is_online(site, register):
    first, second = register("place-42", "place-7"), register("place-42")
    site.wait("places", [("online", "place-42"), ("online", "place-7")])
    first.call("unregister", {"id": "place-7"})
    site.wait("places", [("online", "place-42"), ("online", "place-7"), ("offline", "place-7")])
    first.drop()
    second.drop()
    site.wait("places", [*site.seen("places")[:3], ("offline", "place-42")])
    [event, *_] = site.events("places")
    assert event.keys() == {"id", "event", "at", "destination"} and abs(event["at"] - time.time()) < 60


def test_php_learns_which_users_are_there(site, register):
    user = {"id": "7", "info": {"name": "Ann"}}
    pages = [register("room", **{"as": user}) for _ in range(2)]
    site.wait("users", [("join", "room")])
    for each in pages:
        each.drop()
    site.wait("users", [("join", "room"), ("leave", "room")])
    assert [each["member"] for each in site.events("users")] == [user, user]


def test_php_learns_what_was_never_acknowledged(site, shared, register):
    client = register("inbox", since="acked")
    acked = shared.push("inbox", "a", ttl=20)["id"]
    assert client.call("ack", {"id": "inbox", "position": acked})["ok"]
    client.drop()
    last = shared.push("inbox", "b", ttl=1)["id"]
    site.wait("expired", [("expired", "inbox")])
    [event] = site.events("expired")
    assert (event["from"], event["to"], event["count"]) == (last, last, 1)


def test_php_learns_who_lost_something(site, shared, register):
    since = shared.push("full", "a")["id"]
    for each in range(100):
        shared.push("full", each)
    client = register("other")
    for other in ("no position", "\ud800:1", f"{'x' * 1000}:1"):
        register("other", client=client, since=other)
    register("full", client=client, since=since)
    assert client.answer["ids"]["full"]["recovered"] is False
    register("full", client=client, since=since)  # the same again
    site.wait("lost", [("lost", "full")])
    assert site.events("lost")[0]["since"] == since


def test_php_gets_what_pages_send_by_the_same_way(site, register):
    client = register("42")
    answers = [client.call("send", {"name": "cart/add", "data": {"n": number}}) for number in range(3)]
    site.wait("sends", [("send", "cart/add")] * 3)
    events = site.events("sends")
    assert [each["id"] for each in events] == [each["id"] for each in answers]
    assert [each["data"] for each in events] == [{"n": 0}, {"n": 1}, {"n": 2}]


# A receiver that fails, and a relay that is killed.


def test_each_event_arrives_in_order_though_php_fails_and_the_relay_is_killed(site, hook, hooked, connect):
    site.url(hook)
    site.behave(hook, "500")
    hooks = hooked(webhook_url=site.url(hook), presence_grace=0)
    relay, wanted = hooks.relay, []
    for number in range(3):
        client = connect(relay.url, f"{number}")
        client.drop()
        wanted += [("online", f"{number}"), ("offline", f"{number}")]
        wait_for(lambda: hooks.state()["waiting"] == len(wanted), "both events are queued")  # noqa: B023
    site.wait_for_status(hook, 500)
    relay.kill()
    site.behave(hook, "200")
    relay.start()
    site.wait(hook, wanted)
    assert not [each for each in site.requests(hook) if each["status"] == 403]


def test_after_a_restart_nobody_is_online_twice(site, hook, hooked, connect):
    hooks = hooked(webhook_url=site.url(hook), presence_grace=0)
    connect(hooks.relay.url, "42")
    site.wait(hook, [("online", "42")])
    for number, end in enumerate((hooks.relay.kill, hooks.relay.stop), 1):
        end()
        hooks.relay.start()
        connect(hooks.relay.url, "42", f"{number}")
        wait_for(lambda: ("online", f"{number}") in site.seen(hook), "a new one is online")  # noqa: B023
    assert site.seen(hook) == [("online", "42"), ("online", "1"), ("online", "2")]


def test_a_url_that_is_slow_delays_no_other_and_no_push(site, hook, hooked, connect):
    slow, fast = f"{hook}-slow", f"{hook}-fast"
    dead = "http://127.0.0.1:9/dead.php"
    urls = f"{site.url(slow)}, {dead}, {site.url(fast)} ids=room-*|7"
    site.behave(slow, "slow")
    hooks = hooked(webhook_url=urls)
    connect(hooks.relay.url, "42", "room-1", "7")
    site.wait(fast, [("online", "room-1"), ("online", "7")])
    began = time.monotonic()
    hooks.relay.push("42", "x")
    assert time.monotonic() - began < 6, "the slow one takes 8 s"
    wait_for(lambda: hooks.state("2")["state"] == "failing", "the dead one fails")
    assert "no connection to it" in hooks.state("2")["error"]
    wait_for(lambda: hooks.state("3")["sent"] == 2, "PHP's answer")
    ready = json.loads(hooks.relay.request("GET", "/health/ready")[2])
    assert ready["ready"] is True


def test_a_url_that_answers_410_gets_nothing_until_it_is_resumed(site, hook, hooked, connect):
    site.url(hook)
    site.behave(hook, "410")
    hooks = hooked(webhook_url=site.url(hook))
    connect(hooks.relay.url, "42")
    site.wait_for_status(hook, 410)
    wait_for(lambda: hooks.state()["state"] == "unsubscribed", "it is unsubscribed")
    hooks.relay.kill()
    hooks.relay.start()
    wait_for(lambda: hooks.state()["state"] == "unsubscribed", "it still is")
    trouble = json.loads(hooks.relay.request("GET", "/health/ready")[2])["trouble"]["webhooks"]
    assert "has unsubscribed (status 410)" in trouble
    site.behave(hook, "200")
    assert "1: it gets events again" in hooks.command("resume", site.url(hook))
    connect(hooks.relay.url, "7")
    wait_for(lambda: ("online", "7") in site.seen(hook), "new events arrive")


# Signatures.


def test_a_wrong_signature_and_an_old_one_are_refused(site, hook, server):
    body = b'{"events":[]}'
    now = time.time()
    assert site.post(hook, body, signature([SECRET], body, now)) == 200
    assert site.post(hook, body, signature(["another" + SECRET], body, now)) == 403
    assert site.post(hook, body + b" ", signature([SECRET], body, now)) == 403
    assert site.post(hook, body, signature([SECRET], body, now - 400)) == 403
    assert site.post(hook, body, "") == 403


def test_a_secret_is_replaced_without_a_gap(site, hook, hooked, connect):
    new = "another-" + SECRET
    hooks = hooked(webhook_url=site.url(hook))
    connect(hooks.relay.url, "1")
    site.wait(hook, [("online", "1")])
    hooks.reload(webhook_secret=f"{new}, {SECRET}")
    connect(hooks.relay.url, "2")
    site.wait(hook, [("online", "1"), ("online", "2")])
    site.know(hook, new)
    connect(hooks.relay.url, "3")
    site.wait(hook, [("online", "1"), ("online", "2"), ("online", "3")])
    hooks.reload(webhook_secret=new)
    connect(hooks.relay.url, "4")
    site.wait(hook, [("online", f"{number}") for number in range(1, 5)])
    assert {each["status"] for each in site.requests(hook)} == {200}


# Settings, and the command.


def test_a_reload_switches_webhooks_on_and_off(site, hook, hooked, connect):
    hooks = hooked()
    connect(hooks.relay.url, "before")
    hooks.reload(webhook_url=site.url(hook))
    site.wait(hook, [("online", "before")])
    connect(hooks.relay.url, "on")
    site.wait(hook, [("online", "before"), ("online", "on")])
    hooks.settings.pop("webhook_url")
    hooks.reload()
    assert json.loads(hooks.relay.request("GET", "/webhooks")[2]) == {"sender": "", "urls": []}
    connect(hooks.relay.url, "off")
    hooks.reload(webhook_url=f"{site.url(hook)} ids=o*")
    site.wait(hook, [("online", "before"), ("online", "on"), ("online", "off")])


def test_the_command_shows_what_waits_retries_and_drops(site, hook, hooked, connect):
    site.url(hook)
    site.behave(hook, "500")
    hooks = hooked(webhook_url=site.url(hook))
    connect(hooks.relay.url, "1")
    wait_for(lambda: hooks.state()["failed"] >= 1, "it has failed")
    shown = hooks.command()
    assert f"1: {site.url(hook)}: it takes no events: it answered with status 500" in shown
    assert "1 waiting" in shown and "0 sent" in shown
    failed = hooks.state()["failed"]
    assert hooks.command("retry") == "1: the next attempt is made now\n"
    wait_for(lambda: hooks.state()["failed"] > failed, "another attempt")
    _, _, body = hooks.relay.request("DELETE", f"/webhooks?before={time.time() - 3600}")
    assert json.loads(body) == {"ok": True, "dropped": {"1": 0}}
    assert hooks.command("drop", "1") == "1: 1 event dropped\n"
    assert hooks.state()["waiting"] == 0
    site.behave(hook, "200")
    connect(hooks.relay.url, "2")
    site.wait(hook, [("online", "2")])
    wait_for(lambda: (hooks.state()["sent"], hooks.state()["waiting"]) == (1, 0), "PHP's answer")
    metrics = hooks.relay.request("GET", "/metrics")[2].decode()
    assert 'relay_webhook_sent_total{url="1"} 1.0' in metrics and 'relay_webhook_queued{url="1"} 0.0' in metrics
    status = json.loads(hooks.relay.request("GET", "/status.json")[2])["backend"]["webhooks"]
    assert status["summary"] == "1 URL, 0 events waiting, 1 sent" and status["trouble"] is None


def test_a_wrong_request_is_refused_and_changes_nothing(shared):
    for method, query, status, error in (
        ("POST", "action=retry&url=9", 404, "unknown_url"),
        ("POST", "action=resume", 400, "invalid_action"),
        ("POST", "action=sell", 400, "invalid_action"),
        ("POST", "action=retry&color=red", 400, "unknown_field"),
        ("DELETE", "", 400, "invalid_action"),
        ("DELETE", "before=yesterday", 400, "invalid_action"),
        ("DELETE", "before=nan", 400, "invalid_action"),
    ):
        got, _, body = shared.request(method, f"/webhooks?{query}")
        assert (got, json.loads(body)["error"]) == (status, error), (method, query)
