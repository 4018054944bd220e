"""GET /metrics of a real relay: what docs/metrics.md promises, counted right, and readable to whom it should be."""

import ast
import json
import re
import threading

from conftest import ROOT, own_only, wait_for
from prometheus_client.parser import text_string_to_metric_families
from redis_server import RedisServer

from pushrelay.engine.errors import CODES as HANDSHAKE_CODES
from pushrelay.errors import CODES
from pushrelay.server.request_error import CODES as REQUEST_CODES

DOC = (ROOT / "docs/metrics.md").read_text()


def families(relay, **options):
    status, _, body = relay.request("GET", "/metrics", **options)
    assert status == 200, body
    return {family.name: family for family in text_string_to_metric_families(body.decode())}


def values(relay):
    """Return all values by the name and the values of the labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families(relay).values()
        for sample in family.samples
    }


# Sections about what a relay has only with some settings.
PARTS = re.findall(r"^### (With .*)$", DOC, re.M)


def documented(*left_out):
    """Return the metrics that docs/metrics.md lists: the type, and the labels, by name; without some sections."""
    found = {}
    for section in re.split(r"^### ", DOC.partition("\n## Alerts")[0], flags=re.M)[1:]:
        if section.splitlines()[0] not in left_out:
            for name, kind, labels in re.findall(r"^\| `(relay_\w+)` \| (\w+) \|(.*?)\| ", section, re.M):
                names = {each.partition("`")[2].partition("`")[0] for each in labels.split(";")} - {""}
                found[name] = (kind, names)
    return found


def samples_of(found):
    """Return the metrics in the form of documented()."""
    hidden = {"le"}
    return {
        name + ("_total" if family.type == "counter" else ""): (
            family.type,
            {label for sample in family.samples for label in sample.labels} - hidden,
        )
        for name, family in found.items()
        if name.startswith("relay_")
    }


@own_only
def test_the_docs_list_the_metrics_that_there_are(relay_with, tmp_path):
    tmp_path.chmod(0o700)
    nowhere = "http://127.0.0.1:9/"
    relay = relay_with(
        auth_url=nowhere, request_url=nowhere, webhook_url=nowhere, webhook_secret="x" * 32, spool=tmp_path
    )
    assert samples_of(families(relay)) == documented("With Redis", "With an outbox", "With presence")


@own_only
def test_the_docs_list_the_metrics_of_a_relay_on_redis(relay_with, tmp_path):
    with RedisServer(tmp_path, appendonly="yes") as redis:
        relay = relay_with(broker=redis.url)
        relay.push("42", "a")
        assert samples_of(families(relay)) == documented("Store", *(each for each in PARTS if each != "With Redis"))
        assert values(relay)["relay_redis_up",] == values(relay)["relay_nodes",] == 1
        assert relay.stop() == 0, "while there is a Redis"


def test_each_metric_has_a_meaning_in_the_docs_and_names_are_as_prometheus_wants_them():
    listed = documented()
    assert len(listed) > 35
    assert all((kind == "counter") == name.endswith("_total") for name, (kind, _) in listed.items())
    assert not [name for name in listed if re.search("_(ms|millis|minutes|kb|mb|count|sum|bucket)$", name)]


# Relays of their own, because clients of earlier tests may still be leaving the shared one.


def test_pushes_clients_and_recoveries_are_counted(relay_with, connect):
    relay = relay_with()
    before = values(relay)
    client = connect(relay.url, "metrics-1", "metrics-2")
    first = relay.push("metrics-1", "a")["id"]
    relay.push_json(destination=["metrics-1", "metrics-2", "metrics-3"], data=1)
    client.wait(3)
    assert relay.push_json(destination="metrics-1", data=1, whatever=2)[0] == 400
    assert client.call("register", {"id": "metrics-1", "since": "long-gone:1"})["ok"]
    other = connect(relay.url)
    assert other.call("register", {"id": "metrics-1", "since": first})["ids"]["metrics-1"]["replayed"] == 1
    after = values(relay)

    def grown(*name):
        return after[name] - before[name]

    assert grown("relay_pushes_total", "accepted", "http") == 2
    assert grown("relay_pushes_total", "refused", "http") == 1
    assert grown("relay_refusals_total", "unknown_field") == 1
    assert (grown("relay_publications_total"), grown("relay_deliveries_total")) == (4, 3)
    assert grown("relay_publish_seconds_count") == 2
    assert grown("relay_recoveries_total", "none") == 2
    assert (grown("relay_recoveries_total", "lost"), grown("relay_recoveries_total", "recovered")) == (1, 1)
    assert grown("relay_replayed_total") >= 1
    assert (grown("relay_clients", "websocket"), grown("relay_registrations")) == (2, 3)
    assert after["relay_ready",] == 1 and 0 < after["relay_store_bytes",] < after["relay_store_limit_bytes",]


def test_pushes_of_pages_are_counted(relay_with, connect):
    relay = relay_with(socket_push="yes")
    client = connect(relay.url, "42")
    assert client.call("push", {"destination": "42", "data": 1})["ok"]
    assert not client.call("push", {"destination": "42"})["ok"]
    found = values(relay)
    assert found["relay_pushes_total", "accepted", "socket"] == found["relay_pushes_total", "refused", "socket"] == 1
    assert found["relay_refusals_total", "missing_data"] == 1


@own_only
def test_the_end_of_a_client_is_counted_by_its_reason(relay_with, connect):
    relay = relay_with()
    before = values(relay)
    connect(relay.url, "metrics-gone").drop()
    connect(relay.url, "metrics-closed", transport="polling")
    assert relay.request("DELETE", "/connections?destination=metrics-closed")[0] == 200

    def grown(*name):
        return values(relay)[name] - before[name]

    wait_for(lambda: grown("relay_disconnects_total", "transport close") == 1)
    wait_for(lambda: grown("relay_disconnects_total", "client disconnect") == 1, "it closes when it is disconnected")
    assert grown("relay_connects_total", "websocket") == grown("relay_connects_total", "polling") == 1


def test_every_error_code_of_the_relay_is_counted_by_its_name():
    known = {*CODES, *HANDSHAKE_CODES, *REQUEST_CODES}
    used = {code for file in (ROOT / "pushrelay").rglob("*.py") for code in codes_in(ast.parse(file.read_text()))}
    assert len(used) > 50 and used <= known, f"add {used - known} to CODES in pushrelay/errors.py"


def codes_in(tree):
    """Yield the code of each Refused and RequestError that is made in a source file."""
    place = {"Refused": 1, "RequestError": 1, "bad": 0, "LimitReached": 1}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in place:
            argument = node.args[place[node.func.id]] if len(node.args) > place[node.func.id] else None
            if isinstance(argument, ast.Constant):
                yield argument.value


KEY, PUSH_KEY = "a-key-for-prometheus-4711", "a-key-for-programs-081515"


def test_a_key_of_metrics_keys_reads_the_metrics_and_does_nothing_else(relay_with):
    relay = relay_with(metrics_keys=f"prometheus:{KEY}", push_keys=PUSH_KEY)
    elsewhere = {"X-Forwarded-For": "192.0.2.7"}

    def status(method, path, key, body=None):
        return relay.request(method, path, body, {**elsewhere, "Authorization": f"Bearer {key}"})[0]

    assert status("GET", "/metrics", KEY) == status("GET", "/metrics", PUSH_KEY) == 200
    assert status("GET", "/metrics", "wrong") == 403
    assert relay.request("GET", "/metrics", headers=elsewhere)[0] == 401
    assert (
        status("POST", "/push", KEY, b"destination=42&data=1") == status("GET", "/history?destination=42", KEY) == 403
    )
    assert status("DELETE", "/connections?destination=42", KEY) == status("GET", "/presence?destination=42", KEY) == 403


def test_strangers_cannot_create_series(relay_with):
    relay = relay_with()
    before = len(values(relay))
    for path in ("/metrics/x", "/nowhere", "/socket.io/?EIO=9&transport=smoke"):
        for method in ("GET", "BREW"):
            relay.request(method, path, headers={"Origin": f"https://{method.lower()}.example"})
    assert len(values(relay)) <= before + 1, "one for the code of everything that is in no table"


def test_scrapes_under_load_are_complete_and_lose_no_push(relay):
    """Three scrapers while pushes come: each answer is whole, and the counters never go back."""
    before, seen, done = values(relay)["relay_publications_total",], [], threading.Event()

    def scrape():
        mine = []
        while not done.is_set():
            mine.append(values(relay)["relay_publications_total",])
        seen.append(mine)

    threads = [threading.Thread(target=scrape) for _ in range(3)]
    for thread in threads:
        thread.start()
    batch = json.dumps([{"destination": f"metrics-{each}", "data": each} for each in range(100)]).encode()
    for _ in range(30):
        assert relay.request("POST", "/push", batch, {"Content-Type": "application/json"})[0] == 200
    done.set()
    for thread in threads:
        thread.join()
    assert values(relay)["relay_publications_total",] - before == 3000
    assert len(seen) == 3 and all(mine == sorted(mine) for mine in seen)
