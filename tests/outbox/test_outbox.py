"""Failures are reported with a sentence, and the outbox catches up. A ring is heard. One relay at a time takes rows."""

import contextlib
import json
import re
import socket
import threading
import time
import urllib.parse

import pymysql
import pytest
from cluster import Cluster
from conftest import DEADLINE, ROOT, own_only, wait_for
from mariadb import PASSWORD
from posting import wires
from redis_server import RedisServer

from pushrelay.errors import StoreError
from pushrelay.outbox import outbox, table
from pushrelay.outbox.taker import BATCH_ROWS


@pytest.fixture(autouse=True)
def report_at_once(monkeypatch):
    monkeypatch.setattr(outbox, "BRIEF_SECONDS", 0.0)


def session(monkeypatch, **variables):
    """Set variables of the relay's sessions to other values than usual."""
    isolation, others = table.SESSION
    for name, value in variables.items():
        others = others.replace(f" {name} = ", f" {name} = {value} + 0 * ")
    monkeypatch.setattr(table, "SESSION", (isolation, others))


def test_a_ring_is_heard_at_once_also_while_a_batch_is_under_way(site, run_outbox):
    running = run_outbox(site.url, outbox_interval="5").wait_until("sending")
    publish, under_way, go_on = running.broker.publish_pending_marked, threading.Event(), threading.Event()

    def publish_later(items, mark):
        under_way.set()
        assert go_on.wait(DEADLINE)
        publish(items, mark)

    running.broker.publish_pending_marked = publish_later
    began = time.monotonic()
    site.insert(("42", "first"))
    running.part.ring()
    assert under_way.wait(DEADLINE)
    site.insert(("42", "second"))
    running.part.ring()
    go_on.set()
    running.wait_for(2)
    assert time.monotonic() - began < 5


def test_refused_rows_are_reported_until_they_are_corrected(site, run_outbox):
    running = run_outbox(site.url).wait_until("sending")
    site.insert(("", "x"), ("42", "good"), ("42", "{", ("is_json", 1)))
    assert running.wait_for(1) == [("42", "good")]
    assert "The first is 1 (missing_destination: " in running.wait_for_trouble(
        "rows of relay_outbox cannot be pushed: correct"
    )
    assert running.part.facts()["refused"] == 2
    site.ask("DELETE FROM relay_outbox WHERE id != 1")
    site.ask("UPDATE relay_outbox SET destination = '7', error = NULL")
    assert running.wait_for(2)[1] == ("7", "x")


# Locks of others.


def test_rows_of_a_locked_table_are_pushed_when_the_lock_is_gone(site, run_outbox, monkeypatch):
    session(monkeypatch, lock_wait_timeout=1)
    running = run_outbox(site.url).wait_until("sending")
    locker = site.transaction()
    locker.run("LOCK TABLES relay_outbox WRITE")
    locker.insert("42", "x")
    assert "end the transaction that holds the lock" in running.wait_for_trouble("did not let the relay lock")
    locker.run("UNLOCK TABLES")
    locker.commit()
    assert running.wait_for(1) == [("42", "x")]


def test_a_locked_row_is_reported(site, run_outbox, monkeypatch):
    monkeypatch.setattr(outbox, "LOCKED_SECONDS", 0.0)
    site.insert(("a", "1"), ("b", "1"))
    locker = site.transaction()
    locker.run("SELECT * FROM relay_outbox WHERE id = 1 FOR UPDATE")
    running = run_outbox(site.url)
    assert "another connection has locked row 1" in running.wait_for_trouble("has locked row")
    locker.roll_back()
    assert running.wait_for(2) == [("b", "1"), ("a", "1")]
    wait_for(lambda: running.part.trouble is None, "the end of the trouble")


# Several relays.


def test_one_relay_takes_rows_and_the_next_one_continues_when_it_is_gone(site, run_outbox):
    first = run_outbox(site.url).wait_until("sending")
    second = run_outbox(site.url, broker=first.broker).wait_until("standby")
    assert "another relay, with a store of its own" in second.part.trouble
    site.insert(("42", "1"))
    first.wait_for(1)
    first.part.close()
    second.wait_until("sending")
    site.insert(("42", "2"))
    assert first.wait_for(2) == [("42", "1"), ("42", "2")]
    assert second.part.trouble is None


def test_a_relay_that_was_paused_is_disconnected_and_stores_nothing_twice(site, run_outbox, monkeypatch):
    session(monkeypatch, wait_timeout=1)
    paused, go_on = threading.Event(), threading.Event()
    first = run_outbox(site.url).wait_until("sending")
    publish = first.broker.publish_pending_marked

    def publish_late(items, mark):
        if threading.current_thread() is first.part._thread and not go_on.is_set():
            paused.set()
            assert go_on.wait(DEADLINE)
        publish(items, mark)

    first.broker.publish_pending_marked = publish_late
    site.insert(("42", "1"), ("42", "2"))
    assert paused.wait(DEADLINE)
    second = run_outbox(site.url, broker=first.broker)
    first.wait_for(2)
    go_on.set()
    wait_for(lambda: first.part._failure is not None or first.part._state == "standby", "the refusal")
    site.insert(("42", "3"))
    assert first.wait_for(3) == [("42", "1"), ("42", "2"), ("42", "3")]
    wait_for(lambda: site.waiting() == 0 and second.part.facts()["taken"] == 3, "the second to take all")
    first.wait_until("standby")
    behind = {family.name: family.values for family in first.part.metrics()}["relay_outbox_behind_seconds"]
    assert behind == 0, "rows wait for the other one"


def test_rows_stay_while_the_store_is_not_available(site, run_outbox):
    running = run_outbox(site.url).wait_until("sending")
    publish, calls = running.broker.publish_pending_marked, []

    def refuse(items, mark):
        calls.append(items)
        raise StoreError("the disk is full: free some space")

    running.broker.publish_pending_marked = refuse
    site.insert(("42", "x"))
    assert running.wait_for_trouble("the disk is full") and site.waiting() == 1
    wait_for(lambda: len(calls) > 2, "more attempts")
    running.broker.publish_pending_marked = publish
    assert running.wait_for(1) == [("42", "x")]
    wait_for(lambda: running.part.trouble is None, "the end of the trouble")


# A database that fails.


def test_a_server_that_is_too_slow_to_find_all_rows_is_asked_for_fewer(site, run_outbox, monkeypatch):
    monkeypatch.setattr("pushrelay.outbox.database.ANSWER_SECONDS", 1.5)
    slow = table.RANGES.replace("SELECT MIN(id)", "SELECT MIN(id) + IF(%d > 100000, SLEEP(2), 0)")
    monkeypatch.setattr(table, "RANGES", SlowRanges(slow))
    site.insert(*(("42", str(n)) for n in range(BATCH_ROWS)))
    assert run_outbox(site.url).data(BATCH_ROWS) == [str(n) for n in range(BATCH_ROWS)]


class SlowRanges(str):
    """A statement that has its one argument twice."""

    def __mod__(self, most):
        return super().__mod__((most, most))


def test_a_connection_that_is_killed_is_made_again(site, run_outbox):
    running = run_outbox(site.url).wait_until("sending")
    for n in range(3):
        for each in site.connections():
            with contextlib.suppress(pymysql.err.OperationalError):  # it has ended by itself
                site.ask(f"KILL {each}")
        site.insert(("42", n))
        running.wait_for(n + 1)
    assert running.data(3) == ["0", "1", "2"]


def test_the_database_may_end_and_come_back(mariadb, site, run_outbox):
    running = run_outbox(site.url).wait_until("sending")
    mariadb.kill()
    try:
        trouble = running.wait_for_trouble("cannot be reached")
        assert trouble.startswith(f"mysql://127.0.0.1:{mariadb.port}/{site.name} ")
        assert {family.name: family.values for family in running.part.metrics()}["relay_outbox_up"] == 0
    finally:
        mariadb.start()
    site.insert(("42", "x"))
    assert running.wait_for(1) == [("42", "x")]


def test_each_way_in_which_a_database_cannot_be_used_has_its_sentence(mariadb, site, run_outbox):
    def trouble(url, words):
        running = run_outbox(url)
        found = running.wait_for_trouble(words)
        running.part.close()
        assert PASSWORD not in found
        return found

    trouble(site.url.replace(PASSWORD, "wrong"), "does not accept the user or the password")
    trouble(site.url.replace(f"/{site.name}", "/other"), "does not let this user use the database")
    site.ask("ALTER TABLE relay_outbox ENGINE=MyISAM")
    assert "ENGINE=InnoDB" in trouble(site.url, "MyISAM")
    site.ask("ALTER TABLE relay_outbox ENGINE=InnoDB")
    site.ask("ALTER TABLE relay_outbox CHANGE ttl expires DOUBLE")
    site.insert(("42", "x"))
    trouble(site.url, "without a column that the relay needs")
    site.ask("RENAME TABLE relay_outbox TO elsewhere")
    assert "python relay.py outbox create" in trouble(site.url, "has no table relay_outbox")
    site.ask("RENAME TABLE elsewhere TO relay_outbox")
    site.ask("ALTER TABLE relay_outbox CHANGE expires ttl DOUBLE")
    mariadb.ask(f"REVOKE DELETE ON {site.name}.* FROM relay@'%'")
    assert "GRANT SELECT, UPDATE, DELETE" in trouble(site.url, "does not let this user do what the relay needs")


def test_a_database_that_takes_no_writes_is_named(mariadb, site, run_outbox):
    running = run_outbox(site.url).wait_until("sending")
    mariadb.ask("SET GLOBAL read_only = 1")
    try:
        site.insert(("42", "x"))
        running.wait_for_trouble("takes no writes (read_only)")
    finally:
        mariadb.ask("SET GLOBAL read_only = 0")
    wait_for(lambda: site.waiting() == 0, "an empty table")
    assert running.got == [("42", "x")]


def test_a_database_without_a_free_connection_is_named(mariadb, site, run_outbox):
    before = mariadb.ask("SELECT @@max_connections")[0][0]
    mariadb.ask("SET GLOBAL max_connections = 10")
    others = []
    try:
        with pytest.raises(Exception, match="Too many"):
            for _ in range(20):
                others.append(mariadb.connect(user="relay", password=PASSWORD))
        running = run_outbox(site.url)
        running.wait_for_trouble("takes no more connections")
    finally:
        for each in others:
            each.close()
        mariadb.ask(f"SET GLOBAL max_connections = {before}")
    site.insert(("42", "x"))
    assert running.wait_for(1) == [("42", "x")]


def test_a_server_that_never_answers_or_is_a_web_server_is_named(run_outbox, monkeypatch):
    monkeypatch.setattr("pushrelay.outbox.database.ANSWER_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"mysql://relay:x@127.0.0.1:{server.getsockname()[1]}/site"
        running = run_outbox(url)
        running.wait_for_trouble("did not answer in time")
        running.part.close()
        threading.Thread(target=answer_as_a_web_server, args=(server,), daemon=True).start()
        running = run_outbox(url)
        assert "correct the setting outbox" in running.wait_for_trouble("does not answer as a MySQL")
        running.part.close()
        server.shutdown(socket.SHUT_RDWR)


def answer_as_a_web_server(server):
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


def test_the_docs_list_the_metrics_of_an_outbox(site, run_outbox):
    section = (ROOT / "docs/metrics.md").read_text().partition("### With an outbox")[2].partition("###")[0]
    listed = re.findall(r"^\| `(relay_\w+)` \| (\w+)", section, re.MULTILINE)
    assert listed == [(family.name, family.kind) for family in run_outbox(site.url).part.metrics()]


# With a real relay.


@pytest.mark.parametrize("server", ["own"], indirect=True)
def test_a_relay_rings_and_reports_how_its_outbox_is(site, start_relay, server):
    site.ask("RENAME TABLE relay_outbox TO elsewhere")
    relay = start_relay(outbox=site.url, outbox_interval=5)

    def ready():
        return json.loads(relay.request("GET", "/health/ready")[2])

    wait_for(lambda: "has no table" in ready().get("trouble", {}).get("outbox", ""), "the trouble")
    wait_for(lambda: "outbox: mysql://" in relay.log.read_text(), "the line of the log")
    assert ready()["ready"] is True
    site.ask("RENAME TABLE elsewhere TO relay_outbox")
    wait_for(lambda: "trouble" not in ready(), "the end of the trouble")
    began = time.monotonic()
    site.insert(("42", "hello"))
    status, _, body = relay.request("POST", "/ring")
    assert (status, json.loads(body)) == (200, {"ok": True})

    def history():
        query = urllib.parse.urlencode({"destination": "42"})
        return json.loads(relay.request("GET", f"/history?{query}")[2])["publications"]

    wait_for(history, "the publication")
    assert time.monotonic() - began < 5
    wait_for(lambda: b'relay_outbox_rows_total{result="taken"} 1' in relay.request("GET", "/metrics")[2], "the count")
    assert relay.request("POST", "/ring", headers={"X-Forwarded-For": "192.0.2.1"})[0] in (401, 403)
    wait_for(lambda: "outbox works again" in relay.log.read_text(), "the line of the log")
    assert PASSWORD not in relay.log.read_text()
    assert relay.stop() == 0


@own_only
def test_a_ring_at_any_relay_reaches_the_one_that_takes_the_rows(site, tmp_path, server):
    """Without rings, each row but the first would take `interval` seconds."""
    interval, rows = 5, 6
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisServer(tmp_path / "redis"))
        settings = {"outbox": site.url, "outbox_interval": interval}
        takers = stack.enter_context(Cluster(tmp_path, redis.url, 2, **settings))
        (tmp_path / "other").mkdir()
        [other] = stack.enter_context(Cluster(tmp_path / "other", redis.url, 1))
        for each in (*takers, other):
            each.wait_until_ready()
        states = lambda: {state_of(each): each for each in takers}  # noqa: E731
        wait_for(lambda: states().keys() == {"sending", "standby"}, "one relay takes the rows")
        standby = states()["standby"]
        client = stack.enter_context(wires())(other.port)
        assert client.call("register", {"id": "42"})[1]["ok"]
        began = time.monotonic()
        for number in range(rows):
            site.insert(("42", str(number)))
            assert (standby, other)[number % 2].request("POST", "/ring")[0] == 200
            assert [each["data"] for each in client.events(1)] == [str(number)]
        assert time.monotonic() - began < (rows - 1) * interval / 2
        assert state_of(standby) == "standby"


def state_of(relay):
    return json.loads(relay.request("GET", "/status.json")[2])["backend"]["outbox"]["state"]
