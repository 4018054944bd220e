"""A loss is reported once for each client and destination."""

from pushrelay.webhooks import losses as module
from pushrelay.webhooks.losses import Losses


def test_a_loss_is_reported_once_for_each_client_and_destination():
    losses = Losses()
    assert losses.add("42", "e:1", "sid1") and not losses.add("42", "e:2", "sid1")
    assert losses.add("42", "e:1", "sid2") and losses.add("7", "acked", "sid1")
    events = losses.take()
    assert [(each.kind, each.body) for each in events] == [
        ("lost", '{"destination":"42","since":"e:1"}'),
        ("lost", '{"destination":"42","since":"e:1"}'),
        ("lost", '{"destination":"7","since":"acked"}'),
    ]
    assert losses.take() == []


def test_losses_that_nobody_takes_are_dropped_and_counted(monkeypatch):
    monkeypatch.setattr(module, "MOST_WAITING", 2)
    monkeypatch.setattr(module, "MOST_REMEMBERED", 3)
    losses = Losses()
    for number in range(5):
        losses.add("42", "e:1", f"sid{number}")
    assert len(losses.take()) == 2 and losses.dropped == 3
    assert losses.add("42", "e:1", "sid0")  # long ago
