"""The broker is opened when it is first needed, swept while it is open, and its trouble is reported once."""

import threading

import pytest
from conftest import DEADLINE, wait_for
from stores import push

from pushrelay.errors import StoreError
from pushrelay.store import maintenance as maintenance_module
from pushrelay.store import open_broker
from pushrelay.store.maintenance import Maintenance


@pytest.fixture
def path(tmp_path):
    return tmp_path / "relay.db"


def test_requests_wait_for_a_relay_that_is_about_to_close_the_store(path, open_at, caplog):
    """As at a reload in gunicorn: the new process starts before the old one has closed the store."""
    before = open_at(path)
    position = push(before, "x")[0].position
    broker = open_broker(f"sqlite:{path}", lambda publication, skip_sid: 0)
    broker._store._files.busy_seconds = 0.1
    maintenance = Maintenance(broker, patience=DEADLINE)
    request = threading.Thread(target=maintenance.ensure_open)
    request.start()
    try:
        request.join(1)
        assert request.is_alive() and maintenance.trouble is None
        before.close()
        request.join(DEADLINE)
        assert maintenance.started and maintenance.trouble is None and "refused" not in caplog.text
        assert broker.position("42") == position
    finally:
        maintenance.close()


def test_requests_stop_waiting_for_a_relay_that_keeps_the_store(path, open_at):
    open_at(path)
    broker = open_broker(f"sqlite:{path}", lambda publication, skip_sid: 0)
    broker._store._files.busy_seconds = 0.1
    maintenance = Maintenance(broker, patience=0.2)
    maintenance.ensure_open()
    assert not maintenance.started and "another relay" in maintenance.trouble
    maintenance.close()


class Sick:
    """A broker whose store cannot be written, until a test heals it."""

    def __init__(self):
        self.error = StoreError("the disk is full")
        self.closed = False

    def start(self):
        pass

    def sweep(self):
        if self.error:
            raise self.error
        return False

    def flush(self):
        pass

    def close(self):
        self.closed = True


def test_trouble_is_logged_when_it_begins_and_when_it_ends(caplog, monkeypatch):
    monkeypatch.setattr(maintenance_module, "EVERY", 0.01)
    broker = Sick()
    maintenance = Maintenance(broker)
    maintenance.start()
    try:
        wait_for(lambda: maintenance.trouble == "the disk is full", "the trouble")
        broker.error = None
        wait_for(lambda: maintenance.trouble is None, "its end")
    finally:
        maintenance.close()
    assert broker.closed
    assert caplog.text.count("pushes are refused: the disk is full") == 1
    assert caplog.text.count("the store is back") == 1


def test_each_second_is_called_and_its_failure_ends_nothing(caplog, monkeypatch):
    monkeypatch.setattr(maintenance_module, "EVERY", 0.01)
    calls = []

    def each_second():
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError

    broker = Sick()
    broker.error = None
    maintenance = Maintenance(broker, each_second)
    maintenance.start()
    try:
        wait_for(lambda: len(calls) > 2, "more calls")
    finally:
        maintenance.close()
    assert "maintenance failed" in caplog.text


def test_it_can_be_closed_before_it_started():
    broker = Sick()
    Maintenance(broker).close()
    assert not broker.closed
