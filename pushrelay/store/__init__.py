"""Publications: numbered, stored, handed out in order, replayed."""

from pushrelay.errors import StoreError as StoreError
from pushrelay.errors import StoreInUse as StoreInUse

from .broker import Broker as Broker
from .open import open_broker as open_broker
from .publication import Draft as Draft
