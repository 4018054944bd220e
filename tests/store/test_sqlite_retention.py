"""Forgetting a destination leaves every other one, and every position that a client knows, as it is."""

import pytest
from stores import killed

from pushrelay.errors import StoreError
from pushrelay.store import Draft


@pytest.fixture
def path(tmp_path):
    return tmp_path / "relay.db"


def forgetting(open_at, path, now):
    """Return a broker that forgets destination 42, of five publications, at its next sweep."""
    broker = open_at(path, clock=lambda: now[0], history_ttl=10)
    broker.publish([Draft("42", n) for n in range(5)])
    broker.flush()
    now[0] += 1000
    broker.sweep()
    now[0] += 2 * broker._archive.limits.forget_after
    return broker


def test_a_new_destination_is_read_before_its_commit_while_another_is_forgotten(tmp_path, open_at):
    now = [1_000_000.0]
    broker = forgetting(open_at, tmp_path / "relay.db", now)
    broker.publish([Draft("new", "x")])
    seen, update = [], broker._store._commit

    def look_and_commit():
        seen.append(broker.history("new", f"{broker.epoch}:0"))
        update()

    broker._store._commit = look_and_commit
    broker.sweep()
    seen.append(broker.history("new", f"{broker.epoch}:0"))
    assert [([each.data for each in one.publications], one.recovered) for one in seen] == [(["x"], True)] * 2


def test_a_client_can_rely_on_the_first_position_of_a_new_destination_after_a_kill(tmp_path, open_at):
    now = [1_000_000.0]
    broker = forgetting(open_at, tmp_path / "relay.db", now)
    broker.publish([Draft("another", "x")])
    broker.sweep()  # forgets 42
    told = broker.position("new")
    again = open_at(killed(tmp_path / "relay.db", tmp_path / "copy.db"), clock=lambda: now[0], history_ttl=10)
    again.publish([Draft("new", n) for n in range(7)])
    history = again.history("new", told)
    assert history.recovered and [each.data for each in history.publications] == list(range(7))


def test_a_destination_is_still_there_when_forgetting_it_fails(tmp_path, open_at):
    now = [1_000_000.0]
    broker = open_at(tmp_path / "relay.db", clock=lambda: now[0], history_ttl=10)
    broker.publish([Draft("42", "x")])
    broker.flush()
    now[0] += 1000
    broker.sweep()
    commit, broker._store._files.commit = broker._store._files.commit, lambda: 1 / 0
    now[0] += 2 * broker._archive.limits.forget_after
    with pytest.raises(StoreError):
        broker.sweep()  # it would have been forgotten by this
    broker._store._files.commit = commit
    assert broker.publish([Draft("42", "y")])[0].position == f"{broker.epoch}:2"
    broker.flush()
    assert [each.data for each in broker.history("42").publications] == ["y"]
