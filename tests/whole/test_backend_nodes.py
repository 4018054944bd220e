"""Three relays on one Redis serve one backend, and go on doing so while two of them are killed."""

import json
import threading
import time

import pytest
from cluster import Cluster
from conftest import DEADLINE, own_only, wait_for
from mariadb import MariaDB
from posting import wires
from receivers import SECRET, Receivers
from redis_server import RedisServer

from pushrelay.access.tokens import sign

TAKEOVER = 60.0  # seconds; 15 are promised, on a machine that has nothing else to do


def token(user=None, **claims):
    """Return a token for all ids, and for the members of all."""
    member = {"as": {"id": user}} if user else {}
    return sign({"ids": ["*"], "presence": ["*"], "exp": time.time() + 600, **member, **claims}, SECRET)


def enter(open_wire, node, user=None):
    """Return a client of a node that holds `room`, in the name of a user."""
    wire = open_wire(node.port)
    assert wire.call("register", {"id": "room", "token": token(user)})[1]["ok"]
    return wire


def backend(node):
    return json.loads(node.request("GET", "/status.json")[2])["backend"]


def the_one(nodes, is_it, what):
    """Wait until one of the nodes does something, and return it."""
    found = lambda: [node for node in nodes if is_it(node)]  # noqa: E731
    wait_for(lambda: len(found()) == 1, what, TAKEOVER)
    return found()[0]


def takes_rows(node):
    return backend(node)["outbox"]["state"] == "sending"


def sends(node):
    return json.loads(node.request("GET", "/webhooks")[2])["urls"][0]["state"] != "elsewhere"


class Watcher:
    """A page that watches the room. It knows the members from the list that it got and from the changes after it."""

    def __init__(self, wire):
        self._wire = wire
        _, answer = wire.call("presence", {"id": "room", "token": token()})
        self.members = {each["id"] for each in answer["members"]}
        self.joined, self.left = [], []

    def wait_for(self, members):
        """Read changes until these are the members."""
        while self.members != members:
            [packet] = self._wire.events(1)
            for event in packet["events"]:
                if "join" in event:
                    self.joined.append(event["join"]["id"])
                    self.members.add(self.joined[-1])
                else:
                    self.left.append(event["leave"])
                    self.members.remove(self.left[-1])


@pytest.fixture
def parts(tmp_path):
    with (
        RedisServer(tmp_path / "redis") as redis,
        MariaDB(tmp_path / "mariadb") as mariadb,
        Receivers(tmp_path) as hooks,
        wires() as open_wire,
    ):
        site = mariadb.site()
        settings = {
            "outbox": site.url,
            "webhook_url": f"{hooks.url('a')} events=join|leave",
            "request_url": hooks.url("b"),
            "webhook_secret": SECRET,
            "secret": SECRET,
            "presence_grace": "1s",
            "ping_timeout": 600,  # the clients read, and so answer pings, only when the test does
        }
        with Cluster(tmp_path, redis.url, 3, **settings) as nodes:
            nodes.wait_until_ready()
            yield nodes, site, hooks, open_wire


def more_than(items, count):
    """Wait until a list has some items more."""
    wait_for(lambda: len(items) > count, "more rows", DEADLINE)


@own_only
def test_outbox_webhooks_and_presence_go_on_when_two_of_three_relays_are_killed(server, parts):
    nodes, site, hooks, open_wire = parts
    first = the_one(nodes, takes_rows, "a relay takes the rows")
    rest = [node for node in nodes if node is not first]
    sender = the_one(nodes, sends, "a relay sends the events")
    second = rest[0] if sender is first else sender
    [last] = [node for node in rest if node is not second]
    reader = enter(open_wire, last, "reader")
    watcher = Watcher(open_wire(last.port))
    users = {node.name: enter(open_wire, node, node.name) for node in nodes}
    watcher.wait_for({"reader", *users})
    assert sorted(watcher.joined) == sorted(users)

    is_over = threading.Event()
    inserted, sent = [], []

    def write():
        while not is_over.wait(0.05):
            inserted.append(str(len(inserted)))
            site.insert(("room", inserted[-1]))

    def send():
        client = open_wire(last.port)
        while not is_over.wait(0.05):
            _, answer = client.call("send", {"name": "note", "data": len(sent)})
            assert answer["ok"], answer
            sent.append(len(sent))

    threads = [threading.Thread(target=each) for each in (write, send)]
    for each in threads:
        each.start()
    for victim in (first, second):
        more_than(inserted, len(inserted) + 10)
        victim.kill()
    wait_for(lambda: takes_rows(last) and sends(last), "the last relay does everything", TAKEOVER)
    more_than(inserted, len(inserted) + 10)
    is_over.set()
    for each in threads:
        each.join()

    got = [each["data"] for each in reader.events(len(inserted))]
    assert got == inserted, "each row once, in order"
    wait_for(lambda: not site.waiting(), "rows that are pushed are deleted")
    wait_for(lambda: len(hooks.events("b")) == len(sent), "all that was sent reaches PHP", TAKEOVER)
    assert [each["data"] for each in hooks.events("b")] == sent
    gone, stay = {first.name, second.name}, {"reader", last.name}
    watcher.wait_for(stay)
    assert set(watcher.left) == gone and len(watcher.left) == 2 and len(watcher.joined) == 3
    assert {each["id"] for each in room(last)["members"]} == stay
    wait_for(lambda: len(changes(hooks, "leave")) == 2, "PHP learns who is gone", TAKEOVER)
    assert sorted(changes(hooks, "join")) == sorted(stay | gone) and set(changes(hooks, "leave")) == gone
    assert not nodes.tracebacks()


def changes(hooks, kind):
    """Return the users of whom PHP was told this."""
    return [each["member"]["id"] for each in hooks.events("a") if each["event"] == kind]


def room(node):
    return json.loads(node.request("GET", "/presence?destination=room")[2])["room"]
