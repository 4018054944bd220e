"""The event `presence`: a list of members, and every change from then on, for pages that may see it."""

import json
import shutil
import subprocess
import textwrap

import pytest
from audience import SECRET, Page, token, wait_until_at
from clients import TESTS
from conftest import ROOT, need, own_only, wait_for

from pushrelay.presence.watching import Watching
from pushrelay.settings import Settings


@pytest.fixture(scope="module")
def relay(relay_with):
    return relay_with(secret=SECRET, presence_grace=0.2)


@pytest.fixture
def page(relay):
    """Open pages that are closed with the test, and check that none of them got an event that did not fit."""
    pages = []

    def open_(*ids, at=relay, **options):
        pages.append(Page(at.port, *ids, **options))
        return pages[-1]

    yield open_
    for each in pages:
        each.close()
    assert not [error for each in pages for error in each.errors]


def test_a_page_gets_the_members_and_every_change_from_then_on(page):
    ann = page("room-1", user="ann", info={"name": "Änn"})
    seen = ann.watch("room-1")
    (member,) = seen.members.values()
    assert member["id"] == "ann" and member["info"] == {"name": "Änn"} and member["since"] > 1_700_000_000
    bob = page("room-1", user=7)
    wait_until_at(seen, "ann", 7)
    assert seen.members["7"]["info"] == {}
    bob.close()
    wait_until_at(seen, "ann")
    assert seen.history == [("join", "7"), ("leave", "7")]


def test_pages_without_a_user_are_not_listed(page):
    watcher = page()
    seen = watcher.watch("room-2")
    page("room-2")
    page("room-2", user="ann")
    wait_until_at(seen, "ann")


def test_a_user_counts_once_however_many_tabs(page):
    seen = page().watch("room-3")
    tabs = [page("room-3", user="ann") for _ in range(3)]
    wait_until_at(seen, "ann")
    for tab in tabs[:2]:
        tab.close()
    page("room-3", user="bob")
    wait_until_at(seen, "ann", "bob")
    tabs[2].close()
    wait_until_at(seen, "bob")
    assert seen.history == [("join", "ann"), ("join", "bob"), ("leave", "ann")]


def test_a_page_change_causes_no_leave(page, relay_with):
    patient = relay_with(secret=SECRET, presence_grace=60)
    seen = page(at=patient).watch("room-4")
    for _ in range(4):
        page("room-4", at=patient, user="ann").close()
    page("room-4", at=patient, user="bob").close()
    wait_until_at(seen, "ann", "bob")
    assert seen.history == [("join", "ann"), ("join", "bob")]


def test_whoever_unregisters_leaves_and_may_come_back(page):
    ann = page("room-5", user="ann")
    seen = page().watch("room-5")
    ann.call("unregister", {"id": "room-5"})
    wait_until_at(seen)
    assert ann.register("room-5")["ok"]
    wait_until_at(seen, "ann")
    assert ann.register("room-5")["ok"] and ann.register("room-5", since="acked")["ok"]
    page("room-5", user="bob")
    wait_until_at(seen, "ann", "bob")
    assert seen.history == [("leave", "ann"), ("join", "ann"), ("join", "bob")]


def test_the_last_register_decides_about_the_user_of_a_page_and_the_info(page):
    tab = page("room-6", user="ann", info={"mood": "fine"})
    page("room-6", user="ann", info={"mood": "fine"})
    seen = page().watch("room-6")
    since = seen.members["ann"]["since"]
    tab.token = token(user="ann", info={"mood": "better"})
    tab.register("room-6")
    wait_for(lambda: seen.members["ann"]["info"] == {"mood": "better"})
    assert seen.members["ann"]["since"] == since and seen.history == [("join", "ann")]
    tab.token = token(user="bob")
    tab.register("room-6")
    wait_until_at(seen, "ann", "bob")
    tab.token = token()
    tab.register("room-6")
    wait_until_at(seen, "ann")


def test_several_watchers_that_began_at_different_times_see_the_same(page):
    first = page("room-17", user="a").watch("room-17")
    watchers = [first]
    for number in range(12):
        page("room-17", user=f"user-{number}")
        watchers.append(page().watch("room-17"))
    for seen in watchers:
        wait_until_at(seen, "a", *(f"user-{number}" for number in range(12)))
    assert len({seen.version for seen in watchers}) == 1


def test_a_page_that_asks_again_gets_a_new_list_and_goes_on_from_there(page):
    watcher = page()
    for number in range(20):
        page("room-8", user=str(number))
        seen = watcher.watch("room-8")
        assert str(number) in seen.ids
    wait_until_at(seen, *range(20))


def test_a_page_ends_its_watch(page, relay):
    watcher, other = page(), page()
    watcher.watch("room-9")
    seen = other.watch("room-9")
    assert watcher.call("presence", {"id": "room-9", "watch": False}) == {"ok": True, "id": "room-9"}
    page("room-9", user="ann")
    wait_until_at(seen, "ann")
    assert not watcher.errors and not watcher.replicas["room-9"].history
    assert watcher.call("presence", {"id": "never watched", "watch": False})["ok"]


@own_only
def test_the_code_of_the_documentation_runs_on_socket_io_client(page, relay):
    need(shutil.which("node") and (TESTS / "node_modules/socket.io-client").exists(), "socket.io-client in Node")
    text = (ROOT / "docs/presence.md").read_text()
    start = text.index('    socket.emit("presence"')
    code = textwrap.dedent(text[start : text.index("\n\n", start)])
    script = f"""
        const socket = require("socket.io-client").io("{relay.url}", {{transports: ["websocket"]}});
        const token = "{token(presence="room-7")}", emit = socket.emit.bind(socket);
        const print = value => console.log(JSON.stringify(value));
        socket.emit = (name, message, answer) => emit(name, message, got => {{ answer(got); print(got); }});
        {code}
        socket.on("relay_presence", print);"""
    node = subprocess.Popen(["node", "-e", script], stdout=subprocess.PIPE, text=True, cwd=TESTS)
    answer = json.loads(node.stdout.readline())
    page("room-7", user="ann")
    message = json.loads(node.stdout.readline())
    node.kill()
    assert answer["members"] == [] and message["version"] == answer["version"] + 1
    assert message["events"][0]["join"]["id"] == "ann"


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("room", "invalid_message"),
        ({}, "missing_id"),
        ({"id": ["room"]}, "invalid_id"),
        ({"id": 2**60}, "invalid_id"),
        ({"id": ""}, "missing_destination"),
        ({"id": {}}, "invalid_destination"),
        ({"id": "room", "watch": 1}, "invalid_message"),
        ({"id": "room"}, "missing_token"),
        ({"id": "room", "token": "x.y.z"}, "invalid_token"),
        ({"id": "room", "token": token()}, "not_allowed"),
        ({"id": "room", "token": token(presence="hall")}, "not_allowed"),
        ({"id": "room", "token": token(presence="room", exp=1)}, "token_expired"),
    ],
)
def test_a_page_without_the_right_is_refused(page, message, error):
    answer = page(presence=None).call("presence", message)
    assert (answer["ok"], answer["error"]) == (False, error) and len(answer["message"]) > 10


def test_the_rights_of_the_last_register_count_without_a_token(page):
    watcher = page("mine", presence="room-*")
    assert watcher.call("presence", {"id": "room-10"})["members"] == []
    assert watcher.call("presence", {"id": "hall"})["error"] == "not_allowed"


def test_a_socket_watches_at_most_max_ids_destinations(page):
    watcher = page()
    for number in range(100):
        assert watcher.call("presence", {"id": f"many-{number}", "token": watcher.token})["ok"]
    assert watcher.call("presence", {"id": "many-7", "token": watcher.token})["ok"]
    assert watcher.call("presence", {"id": "one more", "token": watcher.token})["error"] == "too_many_ids"
    assert watcher.register(*(f"held-{number}" for number in range(100)))["ok"], "watches do not count as ids"
    watcher.call("presence", {"id": "many-7", "watch": False})
    assert watcher.call("presence", {"id": "one more", "token": watcher.token})["ok"]


class Counter:
    """It stands for the rooms, the views and the door of Watching, and notes what they are asked for."""

    def __init__(self):
        self.calls = []

    def get_rooms(self, sid, namespace):
        return []

    def ask(self, destination, ask):
        ask.charge(163_840)

    def __getattr__(self, name):
        return lambda *arguments: self.calls.append((name, *arguments))


def test_long_lists_use_up_the_allowance_of_a_page():
    counter = Counter()
    Watching(counter, counter, counter, Settings).handle({"id": "room"}, "sid", {}, None)
    assert counter.calls[0] == ("await_allowance", "sid") and counter.calls[-1] == ("charge", "sid", 10.0)
