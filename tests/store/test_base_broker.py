"""The part that all brokers share. tests/store/test_broker.py has the promises of every broker."""

import pytest

from pushrelay.store import open_broker
from pushrelay.store.base_broker import BaseBroker, require_pushed


def test_every_broker_of_the_relay_has_the_same_base():
    for url in ("memory:", "sqlite:relay.db", "redis://127.0.0.1:1/0"):
        assert isinstance(open_broker(url, lambda publication, skip_sid: 0), BaseBroker)


def test_an_acknowledgement_of_the_future_is_refused_with_what_to_do():
    require_pushed(3, 3)
    with pytest.raises(ValueError, match="acknowledge the id that came with the push"):
        require_pushed(4, 3)
