"""A MariaDB for all tests of the outbox, and outboxes that run in this process."""

import contextlib

import pytest
from conftest import wait_for
from mariadb import MariaDB

from pushrelay.outbox.outbox import Outbox
from pushrelay.push.counts import PushCounts
from pushrelay.settings import load
from pushrelay.store import open_broker


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory):
    quick = {"innodb_flush_log_at_trx_commit": 2, "innodb_doublewrite": 0, "sync_frm": 0}  # tests do not cut the power
    with MariaDB(tmp_path_factory.mktemp("mariadb"), **quick) as server:
        yield server


@pytest.fixture
def site(mariadb):
    """A new database with an outbox."""
    return mariadb.site()


class Running:
    """An outbox that is started, its broker, and what was delivered: (destination, data), in order."""

    def __init__(self, url, broker=None, **settings):
        self.got = []
        self.broker = broker or open_broker("memory:", self.deliver, history_size=10_000)
        if broker is None:
            self.broker.start()
        self.settings = load({}, {"config": "/dev/null", "outbox": url, "outbox_interval": "20ms", **settings})
        self.part = Outbox(self.settings, self.broker, PushCounts())

    def deliver(self, publication, skip_sid):
        self.got.append((publication.destination, publication.data))
        return 1

    def start(self):
        self.part.start()
        return self

    def data(self, count):
        """Wait for at least `count` deliveries; return the data of all."""
        return [data for _, data in self.wait_for(count)]

    def wait_for(self, count):
        """Wait for at least `count` deliveries; return all."""
        wait_for(lambda: len(self.got) >= count, f"delivery {count}, got {self.got[-5:]}")
        return self.got

    def wait_until(self, state):
        wait_for(lambda: self.part._state == state, f"{state}, not {self.part._state}: {self.part.trouble}")
        return self

    def wait_for_trouble(self, words):
        wait_for(lambda: words in (self.part.trouble or ""), f"trouble with {words!r}, not {self.part.trouble!r}")
        return self.part.trouble


@pytest.fixture
def run_outbox():
    """Start outboxes that stop with the test: run_outbox(site.url, broker=broker)."""
    with contextlib.ExitStack() as started:

        def run(url, **options):
            running = Running(url, **options)
            started.callback(running.part.close)
            return running.start()

        yield run
