"""Work for the moment when the lock of the link is released: stripes to drain, and calls to make."""

import logging
from collections.abc import Callable
from typing import Any

from pushrelay.store.stripe import Stripe

log = logging.getLogger(__name__)


class Work:
    """Collected while the lock is held. Deliveries may take long, and publishers' answers may publish again."""

    __slots__ = ("_calls", "_stripes")

    def __init__(self) -> None:
        self._stripes: dict[Stripe, None] = {}
        self._calls: list[Callable[[], Any]] = []

    def drain(self, stripe: Stripe | None) -> None:
        """Have a stripe drained, if there is one."""
        if stripe is not None:
            self._stripes[stripe] = None

    def call(self, function: Callable[[], Any]) -> None:
        """Have a function called, after all stripes have been drained."""
        self._calls.append(function)

    def run(self) -> None:
        """Do it."""
        for stripe in self._stripes:
            with stripe:
                stripe.drain()
        for function in self._calls:
            try:
                function()
            except Exception:
                log.exception("something that Redis's answer called for failed")
