"""Members over HTTP, their limit, the end of their rights, and the figures that the relay shows."""

import json
import threading
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from audience import SECRET, Page, token, wait_until_at
from clients import Wire
from conftest import own_only, wait_for


class Site(BaseHTTPRequestHandler):
    """The site behind auth_url, which gives everybody the same claims."""

    def do_GET(self):
        body = json.dumps(self.server.claims).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def site():
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def relay(clocked_relay):
    return clocked_relay(secret=SECRET, presence_grace=0.2, max_members=5)


def presence(relay, *names):
    query = urllib.parse.urlencode([("destination", each) for each in names])
    status, _, body = relay.request("GET", f"/presence?{query}")
    return status, json.loads(body)


def ids_at(relay, name):
    return {each["id"] for each in presence(relay, name)[1][name].get("members", ())}


def test_programs_get_the_members_of_a_destination(relay):
    page = Page(relay.port, "shop", "hall", user=42, info={"name": "Ann"})
    Page(relay.port, "shop")
    _, found = presence(relay, "shop", "hall", "nowhere")
    (member,) = found["shop"]["members"]
    assert found["shop"]["connections"] == 2 and found["shop"]["since"] <= member["since"] + 0.001
    assert (member["id"], member["info"]) == ("42", {"name": "Ann"}) and member in found["hall"]["members"]
    assert found["nowhere"] == {"connections": 0}
    page.close()
    wait_for(lambda: "members" not in presence(relay, "shop")[1]["shop"])


def test_the_member_beyond_max_members_is_refused_and_nothing_is_registered(relay):
    pages = [Page(relay.port, "full", user=number) for number in range(5)]
    late = Page(relay.port, user="late")
    answer = late.register("elsewhere", "full")
    assert answer["error"] == "too_many_members" and "max_members" in answer["message"]
    assert ids_at(relay, "full") == set("01234")
    assert relay.push("elsewhere", 1)["connections"] == 0 and relay.push("full", 1)["connections"] == 5
    again = Page(relay.port, "full", user=0)
    assert Page(relay.port).register("full")["ok"], "without a user"
    pages[1].close()
    wait_for(lambda: late.register("elsewhere", "full")["ok"])
    assert ids_at(relay, "full") == {"0", "2", "3", "4", "late"} and again


def test_a_user_whose_token_expires_leaves(relay):
    seen = Page(relay.port).watch("brief")
    expires = relay.now() + 60
    page = Page(relay.port, "brief", user="ann", expires=expires)
    wait_until_at(seen, "ann")
    relay.advance(61)
    wait_until_at(seen)
    assert wait_for(lambda: page.got)[0][1]["ids"] == ["brief"]


def test_a_watch_ends_with_the_right_to_it_and_the_page_learns_that(relay):
    watcher = Page(relay.port, expires=relay.now() + 60)
    seen, other = watcher.watch("timed"), Page(relay.port).watch("timed")
    relay.advance(61)
    event, message = wait_for(lambda: watcher.got)[0]
    assert (event, message["error"], message["ids"], message["presence"]) == (
        "relay_error",
        "token_expired",
        [],
        ["timed"],
    )
    page = Page(relay.port, "timed", user="ann")
    wait_until_at(other, "ann")
    assert not seen.history
    watcher.token = page.token
    assert watcher.watch("timed").ids == {"ann"}


def test_the_answer_has_the_seconds_until_the_right_ends(relay):
    watcher = Page(relay.port, expires=relay.now() + 600)
    answer = watcher.call("presence", {"id": "room", "token": watcher.token}, watches="room")
    assert 500 < answer["expires_in"] <= 600


def test_the_first_lists_after_a_start_wait_for_the_pages_that_come_back(start_relay):
    relay = start_relay(secret=SECRET, presence_grace=2)
    first = Page(relay.port)
    with ThreadPoolExecutor() as threads:
        answers = [threads.submit(first.watch, name) for name in ("room", "hall")]
        Page(relay.port, "room", user="ann")
        seen, other = (each.result() for each in answers)
    assert (seen.ids, other.ids) == ({"ann"}, set()) and not seen.history
    assert Page(relay.port).watch("room").ids == {"ann"}


def test_a_register_with_a_new_token_prolongs_a_watch(relay):
    watcher = Page(relay.port, "own", expires=relay.now() + 60)
    seen = watcher.watch("long")
    watcher.token = token(presence="l*")
    assert watcher.register("own")["ok"]
    relay.advance(61)
    Page(relay.port, "long", user="ann")
    wait_until_at(seen, "ann")
    assert not watcher.got


def test_users_whose_connections_are_closed_leave(relay):
    seen = Page(relay.port).watch("room")
    Page(relay.port, "room", user="ann")
    wait_until_at(seen, "ann")
    relay.request("DELETE", "/connections?destination=room")
    wait_until_at(seen)


def test_without_a_secret_a_token_names_nobody(relay_with):
    relay = relay_with()
    page = Page(relay.port, "open", user="ann")
    assert page.call("presence", {"id": "open"})["members"] == [] and ids_at(relay, "open") == set()


@own_only
def test_users_whose_connections_are_half_open_leave(relay_with):
    relay = relay_with(secret=SECRET, presence_grace=0, ping_interval=0.5, ping_timeout=1.5)
    wire = Wire(relay.port)
    wire.call("register", {"id": "room", "token": token(user="ann")})
    assert ids_at(relay, "room") == {"ann"}
    wait_for(lambda: ids_at(relay, "room") == set(), "the end of a client that answers no ping")
    wire.close()


@own_only
def test_metrics_and_status_show_members_and_watchers(relay):
    Page(relay.port).watch("metered")
    Page(relay.port, "metered", user="ann")
    metrics = relay.request("GET", "/metrics")[2].decode()
    lines = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
    assert float(lines["relay_members"]) >= 1 and float(lines["relay_presence_watchers"]) >= 1
    assert float(lines['relay_member_changes_total{change="join"}']) >= float(lines["relay_members"])
    status = json.loads(relay.request("GET", "/status.json")[2])
    assert "members" in status["backend"]["presence"]["summary"]


def test_auth_url_may_name_users_and_give_the_right_to_watch(relay_with, site):
    site.claims = {"ids": ["room"], "as": {"id": 42, "info": []}, "presence": ["room"]}
    relay = relay_with(auth_url=f"http://127.0.0.1:{site.server_address[1]}/", auth_cache=0, presence_grace=0)
    page, watcher = Page(relay.port), Page(relay.port)
    seen = watcher.watch("room")
    assert page.register("room")["ok"]
    wait_until_at(seen, 42)
    assert watcher.call("presence", {"id": "hall"})["error"] == "not_allowed"
    site.claims = {"ids": ["room"], "as": "42"}
    assert Page(relay.port).register("room")["error"] == "auth_not_available"
