"""Presence, requests and messages of relay.js in Chromium, with PHP at the other end."""

import contextlib
import json

import pytest
from chromium import Chromium
from conftest import own_only, wait_for
from php_site import SECRET as SITE_SECRET
from php_site import Site
from tcp_proxy import TcpProxy

from pushrelay.access.tokens import sign

SECRET = "the-first-secret-of-this-relay-0123456789"

# A page of a user, which notes who comes and goes.
PAGE = """<!doctype html><title>room</title><script src="/static/relay.min.js"></script><script>
const events = [];
const relay = Relay.connect("/");
const names = () => room.members.map(({ id, info }) => id + info.name).sort().join();
let room;
async function enter(token) {
  await relay.register("room-7", { token });
  room = await relay.presence("room-7");
  room.on("join", ({ id }) => events.push("+" + id)).on("leave", ({ id }) => events.push("-" + id));
  return names();
}
const refused = (promise) => promise.then(() => null, ({ code, status, message }) => [code, status, message]);
</script>"""


def token(user, name):
    return sign({"ids": ["room-7"], "presence": ["room-*"], "as": {"id": user, "info": {"name": name}}}, SECRET)


@pytest.fixture
def open_tab(tmp_path):
    chromium = Chromium(tmp_path / "profile")
    yield chromium.open
    chromium.close()


@pytest.fixture
def site():
    with contextlib.closing(Site(workers=4)) as site:
        yield site


@own_only
def test_pages_see_each_others_users_and_ask_php(start_relay, open_tab, site):
    settings = {"secret": SECRET, "request_url": site.url, "webhook_secret": SITE_SECRET, "presence_grace": 6}
    relay = start_relay(**settings)
    with TcpProxy(relay.port) as proxy:
        proxy.serve("/page", PAGE)

        def enter(user, name, tab):
            tab.goto(f"{proxy.url}/page")
            return tab.evaluate(f"enter({json.dumps(token(user, name))})")

        ann, bob = open_tab(), open_tab()
        assert enter("1", "Ann", ann) == "1Ann"
        assert enter("2", "Bob", bob) == "1Ann,2Bob"
        ann.wait_for_function("names() === '1Ann,2Bob'")

        # Bob goes to another page, and later away. Until then Ann hears of no leave.
        assert enter("2", "Bob", bob) == "1Ann,2Bob"
        assert ann.evaluate("events") == ["+2"]
        # The connection of Ann ends: the list is the same afterwards.
        proxy.cut()
        ann.wait_for_function("relay.status === 'online'")
        ann.evaluate("relay.request('echo', 1)")
        bob.goto("about:blank")

        assert ann.evaluate("relay.request('echo', {sku: [7, 'ü']})") == {"sku": [7, "ü"]}
        assert ann.evaluate("relay.request('empty')") is None
        assert ann.evaluate("refused(relay.request('status:404'))")[:2] == ["unknown_request", 404]
        refusal = ["sold_out", 409, "None is left."]
        body = json.dumps({"error": refusal[0], "message": refusal[2]})
        assert ann.evaluate(f"refused(relay.request('refuse:409', {body}))") == refusal
        assert ann.evaluate("refused(relay.request('hold:late', 1, { timeout: 50 }))")[0] == "timeout"
        site.release("late")

        sent = ann.evaluate("Promise.all([1, 2, 3].map((n) => relay.send('seen', n)))")
        wait_for(lambda: len(messages(site)) == 3, "the messages")
        assert [event["data"] for event in messages(site)] == [1, 2, 3]
        assert [event["id"] for event in messages(site)] == [each["id"] for each in sent]
        assert messages(site)[0]["as"]["id"] == "1"

        ann.wait_for_function("events.length > 1")
        assert ann.evaluate("[events, names()]") == [["+2", "-2"], "1Ann"]


def messages(site):
    """Return the messages that PHP got, each once."""
    events = {event["id"]: event for got in site.got() for event in got["events"] if event["event"] == "send"}
    return list(events.values())
