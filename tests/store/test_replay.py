"""A newcomer is sent what it missed as fast as it reads, and then joins."""

import pytest

from pushrelay.store import Draft, open_broker


class Newcomer:
    """Takes as many publications as it has room for."""

    def __init__(self, broker, since, room=1000, **options):
        self.got, self.room, self.joined = [], room, False
        self.replay = broker.replay("42", f"{broker.epoch}:{since}", self.send, self.join, **options)

    def send(self, publication):
        if self.room == 0:
            return False
        self.room -= 1
        self.got.append(publication.data)
        return True

    def join(self):
        self.joined = True


@pytest.fixture
def broker():
    broker = open_broker("memory:", lambda publication, skip_sid: 0)
    broker.start()
    broker.publish([Draft("42", number) for number in range(5)])
    yield broker
    broker.close()


def test_a_newcomer_without_room_is_asked_again_and_gets_everything_once(broker):
    newcomer = Newcomer(broker, 1, room=2)
    assert not newcomer.replay.go_on() and newcomer.got == [1, 2] and not newcomer.joined
    broker.publish([Draft("42", "meanwhile")])
    assert not newcomer.replay.go_on()
    newcomer.room = 100
    assert newcomer.replay.go_on() and newcomer.joined
    assert newcomer.got == [1, 2, 3, 4, "meanwhile"]
    assert newcomer.replay.recovery() == (f"{broker.epoch}:6", True, 5)
    assert broker._stripe_of("42").live_queues == {}


def test_publications_that_are_not_meant_for_the_newcomer_are_left_out(broker):
    newcomer = Newcomer(broker, 4, room=0, sid="me")
    assert not newcomer.replay.go_on()
    broker.publish([Draft("42", "its own", skip_sid="me"), Draft("42", "for it")])
    newcomer.room = 100
    assert newcomer.replay.go_on() and newcomer.got == [4, "for it"]


def test_a_newcomer_that_was_in_leaves_before_anything_is_sent(broker):
    left = []
    newcomer = Newcomer(broker, 0, leave=lambda: left.append(list(newcomer.got)))
    assert newcomer.replay.go_on() and left == [[]] and newcomer.replay.has_left and newcomer.joined


def test_a_newcomer_that_was_in_stays_if_nothing_can_be_replayed(broker):
    newcomer = Newcomer(broker, 99, leave=lambda: pytest.fail("it left"))
    assert newcomer.replay.go_on() and not newcomer.joined and not newcomer.replay.has_joined
    assert not newcomer.replay.recovery().recovered


def test_an_epoch_that_begins_during_the_replay_is_a_loss(broker):
    newcomer = Newcomer(broker, 1, room=1)
    assert not newcomer.replay.go_on()
    broker._store.epoch = "another"
    newcomer.room = 100
    assert newcomer.replay.go_on() and newcomer.joined
    assert newcomer.replay.recovery() == ("another:5", False, 1)


def test_a_replay_can_be_closed_before_it_began_and_after_it_ended(broker):
    newcomer = Newcomer(broker, 1)
    newcomer.replay.close()
    assert newcomer.replay.go_on()
    newcomer.replay.close()
