"""The memory that clients cost if they do not read: for one client, for all together, and in the kernel."""

import contextlib
import pathlib
import resource

import pytest
from clients import Wire, open_websocket
from conftest import own_only

from pushrelay.engine.engine import Engine
from pushrelay.engine.packet import EncodedPacket
from pushrelay.engine.session import Session
from pushrelay.settings import Settings, SettingsError


def test_packets_for_a_polling_client_count_until_it_has_them_or_is_gone():
    engine = Engine()
    engine.start(None)
    try:
        for end in ("poll", "close", "crowd"):
            session = Session(engine, end)
            for _ in range(3):
                session.send(EncodedPacket("4" + "x" * 100_000))
            assert engine.outboxes.bytes == 6 * 100_011
            if end == "poll":
                assert len(session.poll(lambda: None)) == 3
            elif end == "close":
                session.close(reason="server disconnect")
            else:
                for _ in range(12):
                    session.send(EncodedPacket("4" + "x" * 100_000))
            assert engine.outboxes.bytes == 0 and not engine.outboxes._consumers
    finally:
        engine.shutdown()


def test_contradicting_bounds_stop_the_start():
    assert Settings(max_outboxes=2_048_576, max_outbox=1 << 20, max_body=1_000_000)
    with pytest.raises(SettingsError, match="max_outboxes"):
        Settings(max_outboxes=2_048_575, max_outbox=1 << 20, max_body=1_000_000)


def rss(relay):
    pages = int(pathlib.Path(f"/proc/{relay.process.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@own_only
def test_clients_that_read_nothing_stay_below_max_outboxes_and_others_stay_connected(start_relay):
    megabyte = 1 << 20
    relay = start_relay(max_outboxes=8 * megabyte)
    reading = Wire(relay.port)
    reading.call("register", {"id": "reads"})
    before = rss(relay)
    with contextlib.ExitStack() as opened:
        for number in range(40):
            opened.enter_context(open_websocket(relay.port, f"deaf-{number}", buffer=4096))
        for turn in range(8):
            for number in range(40):
                relay.push(f"deaf-{number}", f"{turn}" + "x" * 150_000)
            assert relay.push("reads", turn)["connections"] == 1
            assert rss(relay) - before < 8 * megabyte + 24 * megabyte, "40 of them could have 40 MiB waiting"
        assert [message["data"] for message in reading.events(8)] == [str(turn) for turn in range(8)]
        left = sum(relay.push(f"deaf-{number}", "x")["connections"] for number in range(40))
        assert left < 40, "some were closed"
