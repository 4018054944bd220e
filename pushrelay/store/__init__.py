"""Publications: numbered, stored, handed out in order, replayed.

A program that embeds the store needs the names below:

    broker = open_broker("sqlite:relay.db", deliver)
    broker.start()
    [receipt] = broker.publish([Draft("42", {"a": 1})])
"""

from pushrelay.errors import StoreError as StoreError
from pushrelay.errors import StoreInUse as StoreInUse

from .broker import Broker as Broker
from .open import open_broker as open_broker
from .publication import Draft as Draft
