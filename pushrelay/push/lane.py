"""The lane: pushes that the server hands over as a body, without a WSGI environ, a request or a response for each.

A program sends the same header with every push. The server remembers that header by its bytes (see server.Server), so
everything that depends only on the header is decided once: whether it is a push, who may send it, and how to read its
body. For each push only the body remains, which makes it two to three times as fast.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from pushrelay.access.callers import Caller
from pushrelay.answers import JSON_HEADERS
from pushrelay.errors import Refused, StoreError
from pushrelay.names import USUAL_EVENT, event_of
from pushrelay.server.conversation import Conversation
from pushrelay.store.stripe import Pending

from .body import Body, reader_of, usual_reader_of
from .fields import Push, pushes_of
from .publisher import Publisher, Pushes, items_of, json_of

MOST_GROWTH = 6  # maximum bytes that one byte of text takes as JSON: a control character becomes \u0001
MOST_ADDRESSES = 64  # remembered for one header; callers at further addresses are checked for every push


def lane_for(
    publisher: Publisher, environ: dict[str, Any], at_root: bool = False, is_open: Callable[[], bool] = lambda: True
) -> Callable[[bytes, Conversation], bool] | None:
    """Return Lane.take() for pushes with this header, or None if each of them needs the app.

    `environ` is the header's. `at_root` is true for pushes to the server's root. While `is_open()` is false, the app
    answers all pushes.
    """
    # An idempotency key belongs to one push, so its header is not repeated.
    if "HTTP_IDEMPOTENCY_KEY" in environ or "HTTP_CONTENT_ENCODING" in environ:
        return None
    if int(environ.get("CONTENT_LENGTH") or 0) > publisher.settings.max_body:
        return None
    try:
        read = reader_of(environ.get("CONTENT_TYPE", ""), at_root)
    except Refused:
        return None
    return Lane(publisher, environ, at_root, is_open, read).take


class Lane:
    """Publishes and answers the pushes that come with one header. Any thread may call it.

    The answers equal those of Publisher.answer(). The app answers pushes that wait for an acknowledgement, and those
    that are refused, for example because a key exceeds its rate.
    """

    __slots__ = (
        "_environ",
        "_batcher",
        "_is_open",
        "_read_usual",
        "_let_in",
        "_longest",
        "_publisher",
        "_read",
        "_at_root",
    )

    def __init__(
        self,
        publisher: Publisher,
        environ: dict[str, Any],
        at_root: bool,
        is_open: Callable[[], bool],
        read: Callable[[bytes], Body],
    ):
        """`environ` is the header's. `read` reads a body of its Content-Type: see reader_of()."""
        settings = publisher.settings
        # As JSON, the data of a longer body might exceed max_body.
        is_short = int(environ.get("CONTENT_LENGTH") or 0) * MOST_GROWTH <= settings.max_body
        self._publisher = publisher
        self._environ = environ
        self._at_root = at_root
        self._is_open = is_open
        self._read = read
        self._batcher = publisher.batcher
        self._read_usual = usual_reader_of(environ.get("CONTENT_TYPE", "")) if is_short and not at_root else None
        self._longest = settings.max_id_length
        self._let_in: dict[str, Caller] = {}  # by address: the caller with this header

    def take(self, body: bytes, conversation: Conversation) -> bool:
        """Park the request and publish what its body asks for; return False if the app must answer instead."""
        peer, batcher = conversation.connection.peer, self._batcher
        address = peer[0] if type(peer) is tuple else ""
        if not self._is_open() or batcher.is_full():
            return False
        try:
            usual = self._read_usual(body) if self._read_usual is not None else None
            if usual is None:
                return self._take_any(body, address, conversation)
            destination, text, event = usual
            if event != USUAL_EVENT:
                event_of(event)
            caller = self._let_in.get(address) or self._let_in_from(address)
        except (Refused, ValueError):
            return False
        if len(destination) > self._longest or not destination.isprintable():
            return False
        if caller.bucket is not None and caller.bucket.take():
            return False
        item = Pending(destination, None, event, text=text)
        conversation.park()
        batcher.add([item], partial(self._answer, item, address, conversation), conversation.connection.poller)
        return True

    def _take_any(self, body: bytes, address: str, conversation: Conversation) -> bool:
        """Take a push or a batch in a body of any type."""
        publisher = self._publisher
        try:
            caller = self._let_in.get(address) or self._let_in_from(address)
            pushes = pushes_of(self._read(body), publisher.settings, self._at_root)
            items = items_of(pushes, self._at_root)
            if not items or (isinstance(pushes, Push) and pushes.wait):
                return False
            self._batcher.check_room(items)
            caller.charge(len(items))
        except Exception:  # the app fails in the same way, sends the response and logs it
            return False
        if isinstance(pushes, list):
            publisher.log_refused(self._environ_from(address), pushes)
        done = partial(self._answer_any, pushes, items, address, conversation)
        if isinstance(pushes, Push) and not (pushes.several or pushes.key or self._at_root):
            done = partial(self._answer, items[0], address, conversation)
        conversation.park()
        self._batcher.add(items, done, conversation.connection.poller)
        return True

    def _answer(self, item: Pending, address: str, conversation: Conversation, error: StoreError | None) -> None:
        """Answer a push to one destination when it is published, or when the store failed."""
        if error is None:
            conversation.answer("200 OK", JSON_HEADERS, json_of(item).encode())
        else:
            conversation.answer(*self._publisher.answer_to_failed(error, self._environ_from(address)))

    def _answer_any(
        self, pushes: Pushes, items: list[Pending], address: str, conversation: Conversation, error: StoreError | None
    ) -> None:
        """Answer any other push, or a batch."""
        publisher, environ = self._publisher, self._environ_from(address)
        if error is None:
            conversation.answer(*publisher.answer_to_published(pushes, items, self._at_root, environ))
        else:
            conversation.answer(*publisher.answer_to_failed(error, environ, pushes))

    def _let_in_from(self, address: str) -> Caller:
        """Return who pushes with this header from this address, and remember it. Raises Refused."""
        caller = self._publisher.access.may_push(self._environ_from(address))
        if len(self._let_in) < MOST_ADDRESSES:
            self._let_in[address] = caller
        return caller

    def _environ_from(self, address: str) -> dict[str, Any]:
        return {**self._environ, "REMOTE_ADDR": address}
