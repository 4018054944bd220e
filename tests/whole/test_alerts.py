"""The alerts of deploy/alerts.yml fire when their trouble comes, and each query of deploy/grafana.json has an answer.

Several relays get into trouble on purpose, and a real Prometheus scrapes them. Run it with -s to see the figure with
which each alert fired.
"""

import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from clients import PATH
from conftest import ROOT, Client, Relay, wait_for
from prometheus import ALERTS, WINDOW, Prometheus, expressions
from redis_server import RedisServer

DASHBOARD = json.loads((ROOT / "deploy/grafana.json").read_text())
pytestmark = pytest.mark.timed  # Prometheus must scrape in time
PATIENCE = 180.0  # seconds for all alerts together, on a busy machine


class ScarceRelay(Relay):
    """A relay that may open 100 files."""

    def command(self):
        return ["prlimit", "--nofile=100:100", *super().command()]


class Scene:
    """The relays, each with the trouble that it can have."""

    def __init__(self, folder, stack):
        self.stack = stack
        self.done = threading.Event()
        self.redis = stack.enter_context(RedisServer(folder / "redis", appendonly="yes"))

        self.spool = folder / "spool"
        self.spool.mkdir(mode=0o700)
        shared = {"broker": self.redis.url, "history_size": 1}
        starts = {
            "public": dict(
                max_outbox=65536,
                max_body=60_000,
                max_outboxes=1 << 20,
                push_keys="a" * 20,
                webhook_url="http://127.0.0.1:9/",
                webhook_secret="x" * 32,
            ),
            "stored": dict(durability="power", history_bytes=1 << 20, max_body=60_000, spool=self.spool),
            "scarce": dict(kind=ScarceRelay, threads=2),
            "asking": dict(
                auth_url="http://127.0.0.1:9/",
                request_url="http://127.0.0.1:9/",
                webhook_secret="x" * 32,
                outbox="mysql://relay:secret@127.0.0.1:9/site",
                ping_interval=0.3,
                ping_timeout=2,  # those that shall be answered are, also on a busy machine
            ),
            "first": shared,
            "second": {**shared, "max_connections": 2},
            "third": shared,
        }

        def start(name, kind=Relay, **settings):
            relay = kind(folder / name, server="own", **settings)
            stack.callback(relay.kill)
            setattr(self, name, relay)

        with ThreadPoolExecutor(3) as pool:
            for each in [pool.submit(start, name, **settings) for name, settings in starts.items()]:
                each.result()
        self.relays = [value for value in vars(self).values() if isinstance(value, Relay)]

    def hold(self, *sockets):
        for each in sockets:
            self.stack.callback(each.close)

    # Trouble for public pages and their pushes.

    def push_nonsense(self):
        for _ in range(5):
            assert self.public.request("POST", "/push", b"nonsense=1")[0] == 400

    def guess_keys(self):
        for each in range(25):
            headers = {"X-Forwarded-For": "192.0.2.7", "Authorization": f"Bearer {each}"}
            assert self.public.request("POST", "/push", b"destination=1&data=1", headers)[0] == 403

    def come_from_elsewhere(self):
        for _ in range(25):
            assert self.public.request("GET", PATH + "polling", headers={"Origin": "https://a.example"})[0] == 403

    def come_back_too_late(self):
        if not hasattr(self, "late"):
            self.late = Client(self.public.url)
            self.stack.callback(self.late.drop)
        assert self.late.call("register", {"id": "late", "since": "before:7"})["ok"]
        assert self.late.call("presence", {"id": "late"})["ok"]

    def fill_outboxes(self):
        if not hasattr(self, "silent"):
            self.silent = [silent_client(self.public, f"silent-{each}") for each in range(15)]
            for each in range(15):
                self.public.push(f"silent-{each}", "x" * 55_000)

    def read_nothing(self):
        for _ in range(25):
            silent_client(self.public, "slow")
        for _ in range(3):
            self.public.push("slow", "x" * 30_000)

    # Trouble of the store.

    def fill_store(self):
        for each in range(5):
            self.stored.push(f"full-{time.monotonic_ns()}-{each}", "x" * 55_000)

    def lock_briefly(self):
        with self.locked(1.0):
            self.stored.push_json(destination="42", data="late")  # refused if the lock ends too late

    def lock_for_long(self):
        waiting = []
        with self.locked(3.0):
            for _ in range(1100):
                waiting.append(socket.create_connection(("127.0.0.1", self.stored.port)))
                waiting[-1].sendall(
                    b"POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
                    b"Content-Length: 20\r\n\r\ndestination=1&data=1"
                )
        for each in waiting:
            each.close()

    @contextlib.contextmanager
    def locked(self, seconds):
        """Lock the store as another program may. The lock ends by itself, because pushes wait for it."""
        other = sqlite3.connect(f"{self.stored.log}.db", isolation_level=None, timeout=20, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(seconds, other.rollback)
        timer.start()
        try:
            yield
        finally:
            timer.join()
            other.close()

    def spool_while_locked(self):
        with self.locked(3.0):
            file = self.spool / f"{time.time_ns()}.json"
            file.with_suffix(".tmp").write_text('{"destination": "42", "data": "late"}')
            os.utime(file.with_suffix(".tmp"), (0, time.time() - 3600))
            file.with_suffix(".tmp").rename(file)

    # Trouble of one process.

    def connect_often(self):
        while len(getattr(self, "connections", ())) < 45:
            self.connections = [*getattr(self, "connections", ()), self.connection_to_scarce()]

    def connection_to_scarce(self):
        connection = socket.create_connection(("127.0.0.1", self.scarce.port))
        self.hold(connection)
        return connection

    def restart(self):
        self.scarce.kill()
        self.connections = []
        self.scarce.start()

    def do_nothing(self):
        pass

    def end(self):
        self.third.kill()

    # Trouble between the relay and PHP, and between the relay and its clients.

    def ask_in_vain(self):
        client = Client(self.asking.url)
        assert client.call("register", {"id": "1"})["error"] == "auth_not_available"
        assert client.call("request", {"name": "cart"})["error"] == "request_not_available"
        client.drop()

    def fall_asleep(self):
        for _ in range(5):
            assert self.asking.request("GET", PATH + "polling")[0] == 200

    def fill_second(self):
        for _ in range(2):
            client = Client(self.second.url, "1")
            self.stack.callback(client.drop)
        self.fill_second = self.do_nothing

    # Trouble of Redis.

    def cut(self):
        self.redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
        time.sleep(0.3)

    def slow_down(self):
        """Pause Redis for longer than the time between two beats: shorter pauses could fall between them each time."""
        self.redis.pause()
        time.sleep(1.2)
        self.redis.resume()
        time.sleep(0.3)

    def empty(self):
        self.redis.ask("FLUSHALL")

    def miss(self):
        """Cut off a relay that is stopped, and push more than the history keeps before it continues."""
        if not hasattr(self, "missing"):
            self.missing = Client(self.first.url, "1")
            self.stack.callback(self.missing.drop)
        self.first.process.send_signal(signal.SIGSTOP)
        try:
            self.redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
            for number in range(3):
                wait_for(lambda number=number: self.third.push_json(destination="1", data=number)[0] == 200)
        finally:
            self.first.process.send_signal(signal.SIGCONT)
        time.sleep(1)

    def kill_redis(self):
        self.redis.kill()
        time.sleep(2)
        self.redis.start()


# The alerts by the relay that they are about: what brings each one about, again and again until it fires. The last of a
# list may end what the others need.
TROUBLE = [
    [
        ("RelayPushesRefused", Scene.push_nonsense),
        ("RelayWrongKeys", Scene.guess_keys),
        ("RelayOriginsRefused", Scene.come_from_elsewhere),
        ("RelayHistoryTooShort", Scene.come_back_too_late),
        ("RelayWebhooksFail", Scene.come_back_too_late),
        ("RelayOutboxesFull", Scene.fill_outboxes),
        ("RelaySlowClients", Scene.read_nothing),
    ],
    [
        ("RelayStoreFull", Scene.fill_store),
        ("RelayPushesSlow", Scene.lock_briefly),
        ("RelayPushesQueue", Scene.lock_for_long),
        ("RelayPushesFail", Scene.lock_for_long),
        ("RelayNotReady", Scene.lock_for_long),
        ("RelaySpoolDown", Scene.spool_while_locked),
        ("RelaySpoolBehind", Scene.spool_while_locked),
    ],
    [
        ("RelayConnectionsNearLimit", Scene.connect_often),
        ("RelayThreadsBusy", Scene.do_nothing),
        ("RelayRestarts", Scene.restart),
    ],
    [
        ("RelayAuthFails", Scene.ask_in_vain),
        ("RelayRequestsFail", Scene.ask_in_vain),
        ("RelayPingTimeouts", Scene.fall_asleep),
        ("RelayOutboxDown", Scene.do_nothing),
        ("RelayOutboxBehind", Scene.do_nothing),
    ],
    [
        ("RelayClientsNearLimit", lambda scene: scene.fill_second()),
        ("RelayRedisCuts", Scene.cut),
        ("RelayResyncsFail", Scene.miss),
        ("RelayNodesMissing", Scene.end),
        ("RelayDown", Scene.do_nothing),
        ("RelayRedisSlow", Scene.slow_down),
        ("RelayEpochChanged", Scene.empty),
        ("RelayRedisDown", Scene.kill_redis),
    ],
]
# It needs an error in the program.
NOT_ON_PURPOSE = {"RelayErrors"}


def silent_client(relay, *ids):
    """Open a session over long polling that registers ids, and never polls again."""
    opened = relay.request("GET", PATH + "polling")[2].decode()
    path = f"{PATH}polling&sid={json.loads(opened[1:])['sid']}"
    relay.request("POST", path, b"40")
    relay.request("POST", path, f'420["register",{json.dumps({"id": list(ids)})}]'.encode())
    received = ""
    while '430[{"ok":true' not in received:
        received = relay.request("GET", path)[2].decode()


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alerts")
    with contextlib.ExitStack() as stack:
        scene = Scene(folder, stack)
        scene.prometheus = Prometheus(folder, scene.relays)
        stack.callback(scene.prometheus.close)
        yield scene


def test_each_alert_fires_when_its_trouble_comes(scene):
    figures, failures = {}, []

    def bring_about(troubles):
        try:
            for alert, trouble in troubles:
                while alert not in figures and not scene.done.is_set():
                    trouble(scene)
                    time.sleep(0.2)
        except BaseException as failure:
            failures.append((troubles[0][0], failure))
            raise

    wanted = {alert for troubles in TROUBLE for alert, _ in troubles}
    assert wanted == set(expressions()) - NOT_ON_PURPOSE
    threads = [threading.Thread(target=bring_about, args=(troubles,)) for troubles in TROUBLE]
    for thread in threads:
        thread.start()

    def all_fired():
        for alert, figure in scene.prometheus.firing().items():
            if alert not in figures:
                figures[alert] = figure
        return failures or wanted <= set(figures)

    try:
        with contextlib.suppress(AssertionError):
            wait_for(all_fired, "all alerts", PATIENCE)
    finally:
        scene.done.set()
        for thread in threads:
            thread.join()
    for alert, figure in figures.items():
        print(f"{alert:26} {figure:10.4g}   {expressions()[alert]}")
    assert not failures and not wanted - set(figures), (failures, wanted - set(figures))


def test_each_query_of_the_dashboard_and_of_the_alerts_has_series(scene):
    """After the test above: all that can be counted has been."""
    queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    queries += [each["expr"] for each in DASHBOARD["annotations"]["list"]]
    # The condition of an alert: without its threshold it has a value.
    queries += [re.sub(r" (>|==) [\d.]+$", "", each) for each in expressions().values()]
    assert len(queries) > 80
    without = []
    for query in queries:
        asked = query.replace("$job", "relay").replace("$instance", ".*").replace("$__rate_interval", WINDOW)
        asked = re.sub(r"\[\d+m\]", "[5m]", asked).replace(f"[{WINDOW}]", "[5m]")
        if not scene.prometheus.query(asked):
            without.append(query)
    assert not without


def test_the_rules_are_sound_and_each_alert_is_explained():
    found = subprocess.run(["promtool", "check", "rules", ROOT / "deploy/alerts.yml"], capture_output=True, text=True)
    assert found.returncode == 0 and "SUCCESS" in found.stdout, found.stdout + found.stderr
    explained = re.findall(r"^### (Relay\w+)$", (ROOT / "docs/metrics.md").read_text(), re.M)
    assert explained == list(expressions())
    for name in explained:
        rule = ALERTS.partition(f"alert: {name}\n")[2].partition("- alert:")[0]
        assert f"runbook: docs/metrics.md#{name.lower()}\n" in rule + "\n"
        assert re.search(r"summary: .", rule) and re.search(r"description: .", rule) and "severity: " in rule


def test_the_dashboard_can_be_imported():
    """Grafana is not in Debian; these are the properties that its import needs or warns about."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 25
    assert DASHBOARD["uid"] == "relay" and "id" not in DASHBOARD and DASHBOARD["schemaVersion"] >= 36
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "instance"] and variables["datasource"]["type"] == "datasource"
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
        for target in panel.get("targets", ()):
            assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["type"] == "row" or panel["description"].endswith(".")
