"""GET /status.json has every field, and stays small whatever strangers and settings do."""

import gzip
import json
import logging
import random
import string
import time

import pytest
import socketio

from pushrelay.core import Core
from pushrelay.settings import Settings
from pushrelay.settings.values import networks
from pushrelay.status import status
from pushrelay.status.report import Report
from pushrelay.status.rings import LENGTH, SERIES
from pushrelay.store.stripe import Pending


def made(**settings):
    """Return a core that was never started, with Socket.IO attached."""
    core = Core(Settings(broker="memory:", **settings))
    socketio.Server(client_manager=core.rooms, async_mode="threading")
    return core


@pytest.fixture
def core():
    return made()


def answer(core, is_local=True):
    return json.loads(core.status.answer(is_local, takes_gzip=False).body)


def test_a_relay_that_has_not_begun_has_every_field_and_no_figures(core):
    found = answer(core)
    assert found["state"]["ready"] is True or found["state"]["reason"]
    assert found["clients"]["now"] == 0 and found["clients"]["websocket_percent"] is None
    assert found["latency"] == {"p50": None, "p99": None, "p50_now": None, "p99_now": None}
    assert (found["restart"], found["store"]["redis"], found["problems"]) == (None, None, [])
    assert set(found["history"]["series"]) == set(SERIES)
    assert found["store"]["kind"] == "memory"


def test_both_kinds_of_callers_get_the_same_fields(core):
    assert set(answer(core)) == set(answer(core, is_local=False))


def test_an_answer_is_used_again_for_a_second(core, monkeypatch):
    monkeypatch.setattr(status, "FRESH", 3600.0)  # this machine may be busy
    assert core.status.answer(True, False).body is core.status.answer(True, False).body
    assert core.status.answer(True, True).body is core.status.answer(True, True).body


def test_the_reason_is_for_callers_on_this_machine(core):
    core.maintenance.trouble = "/srv/private.db: the disk is full: free some space"
    assert answer(core)["store"]["trouble"] == core.maintenance.trouble
    assert "private" not in json.dumps(answer(core, is_local=False))
    assert answer(core, is_local=False)["verdict"]["code"] == "store"


def test_the_answer_is_bounded_and_written_in_milliseconds():
    def word(length):
        return "".join(random.choices(string.ascii_letters, k=length))

    sites = tuple(f"https://{word(200)}.example" for _ in range(100))
    core = made(origins=sites, trusted_proxies=networks("10.0.0.0/8"))
    log = logging.Logger("pushrelay.test")
    log.addHandler(core.problems)
    for _ in range(100):
        log.error(word(5000))
        core.access.proxies_seen.add(word(50))
    counts = core.publisher.batcher.counts
    for _ in range(5000):
        counts.published_here("http", time.monotonic(), [Pending(word(400), "data")])
    recorder = core.status._from.recorder
    for _ in range(LENGTH):
        recorder.rings.add({name: random.randrange(1 << 31) for name in SERIES})
        recorder._mark("trouble", "Pushes were refused.")
    began = time.process_time()
    packed = core.status.answer(True, takes_gzip=True).body
    assert len(packed) < 64 << 10
    found = json.loads(gzip.decompress(packed))
    assert len(found["problems"]) == 20 and len(found["busiest"]["pushes"]) == 10
    assert len(found["access"]["origins"]) == 20 and len(found["history"]["marks"]) == 16
    assert time.process_time() - began < 1, "it takes some milliseconds"


def test_the_busiest_destinations_are_there_by_name(core):
    counts = core.publisher.batcher.counts
    counts.published_here(
        "http", time.monotonic(), [Pending("42", "data"), Pending("42", "data"), Pending("7", "data")]
    )
    facts = Report(core.status._from, is_local=True).facts()
    assert facts["busiest"]["pushes"] == [{"name": "42", "count": 2}, {"name": "7", "count": 1}]
    facts = Report(core.status._from, is_local=False).facts()
    assert facts["busiest"]["pushes"][0] == {"name": "4…", "count": 2}


class Outbox:
    """A part of the backend that does not work."""

    name = "outbox"
    is_on = True
    trouble = "no connection to db.internal:3306: check whether it is running"

    def facts(self):
        return {"summary": "3 rows taken", "taken": 3}


def test_parts_of_the_backend_are_shown_and_strangers_do_not_get_the_reason(core):
    assert answer(core)["backend"] == {}
    core = made()
    core.backend._all.append(Outbox())
    shown = {"summary": "3 rows taken", "taken": 3, "trouble": Outbox.trouble}
    assert answer(core)["backend"] == {"outbox": shown}
    assert answer(core)["verdict"]["code"] == "backend"
    assert "db.internal" not in json.dumps(answer(core, is_local=False))
