"""POSTs whose packets are handled in turns."""

import threading

import pytest
from conftest import DEADLINE

from pushrelay.engine.engine import Engine
from pushrelay.engine.posting import Posting
from pushrelay.engine.session import Session


@pytest.fixture
def engine():
    engine = Engine()
    engine.got = []
    engine.on("message", lambda sid, data: engine.got.append(data))
    engine.start(None)
    yield engine
    engine.shutdown()


def test_many_packets_take_several_turns_and_keep_their_order(engine):
    session, done = Session(engine, "busy"), threading.Event()
    assert session.begin_post()
    posting = Posting(session, [f"4{n}" for n in range(200)], engine.poller, "a share")
    assert not posting.take_turn() and len(engine.got) < 200
    posting.finish_later(lambda were_valid: were_valid and done.set())
    assert done.wait(DEADLINE) and engine.got == [str(n) for n in range(200)]
    assert session.begin_post(), "the next POST may come"


def test_an_invalid_packet_in_a_later_turn_closes_the_session(engine):
    session, results = Session(engine, "wrong"), []
    session.begin_post()
    posting = Posting(session, ["4x"] * 100 + ["9"], engine.poller, None)
    ended = threading.Event()
    assert not posting.take_turn()
    posting.finish_later(lambda were_valid: (results.append(were_valid), ended.set()))
    assert ended.wait(DEADLINE) and results == [False] and session.closed


def test_without_a_poller_one_turn_handles_everything(engine):
    session = Session(engine, "plain")
    session.begin_post()
    assert Posting(session, ["4x"] * 100, None, None).take_turn() and len(engine.got) == 100
