"""A push over HTTP, from the request to the answer: may they, what do they ask, publish it, say what became of it."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from pushrelay.access.callers import Access, Caller
from pushrelay.answers import JSON_HEADERS, PRIVATE, Answer, json_answer, refusal, store_away
from pushrelay.errors import Refused, StoreError, bad
from pushrelay.json_text import encode, quote
from pushrelay.log.refusals import RefusalLog
from pushrelay.settings import Settings
from pushrelay.store import Broker
from pushrelay.store.dispatch import KeyUse, Pending
from pushrelay.store.publication import offset_of

from .batching import Gathering
from .body import Body, reader_of, usual_reader_of
from .fields import Push, pushes_of, read_pushes
from .waiters import Held, Waiter, Waiters

Pushes = Push | list[Push | Refused]  # a request's push, or its batch
MOST_GROWTH = 6  # bytes that a byte of text takes as JSON at most: a control character is \u0001
MOST_LET_IN = 64  # addresses that are remembered for one header; behind them each is asked about every time


REUSED = Refused(
    422,
    "id_reused",
    "this idempotency key (id, or Idempotency-Key) was used in the last five minutes for a push with other data or "
    "another event, ttl or except: nothing was published. Use a new key for each push, and repeat a push unchanged",
)


def _always() -> bool:
    return True


class Publisher:
    """Answers pushes. `settings` are the relay's, `access` says who pushes; any thread may call it.

    `refusal_log` gets the requests that are refused.
    """

    def __init__(self, broker: Broker, settings: Settings, access: Access, refusal_log: RefusalLog):
        self.waiters = Waiters(settings.max_waiting)
        self._access = access
        self._refusal_log = refusal_log
        self._broker = broker
        self._gathering = Gathering(broker)
        self._settings = settings

    def answer(self, environ: dict[str, Any], seed: bool = False, conversation: Any = None) -> Answer | None:
        """What a POST to /push is answered with, or at the server's root (`seed`).

        With a `conversation` (see http1.Conversation) no thread waits for the store or for an acknowledgement: the
        request is answered through that, and None is returned.
        """
        pushes: Pushes | None = None
        try:
            caller = self._access.may_push(environ)
            pushes = read_pushes(environ, self._settings, seed)
            items = items_of(pushes, seed)
            if isinstance(pushes, list):
                self._note_refused(environ, pushes)
            caller.charge(len(items))
            if conversation is None:
                return self._publish_here(pushes, items, seed, environ)
            return self._publish_soon(pushes, items, seed, conversation, environ)
        except Refused as error:
            self._refusal_log.log_request(environ, error)
            return refusal(error)
        except StoreError as error:
            return self._not_taken(error, environ, pushes)

    def _note_refused(self, environ: dict[str, Any], pushes: list[Push | Refused]) -> None:
        """Note what is refused of a batch, each error once."""
        errors = {push.error: push for push in pushes if isinstance(push, Refused)}
        for error in errors.values():
            self._refusal_log.log_request(environ, error)

    def shortcut(
        self, environ: dict[str, Any], seed: bool = False, is_open: Callable[[], bool] = _always
    ) -> Callable[[bytes, Any], bool] | None:
        """Return Lane.take() for the pushes that come with this header (see server.Server).

        Returns None if all of them have to go through the app. While `is_open()` is false, they do so too.
        """
        # An idempotency key belongs to one push, so its header does not come again.
        if "HTTP_IDEMPOTENCY_KEY" in environ or "HTTP_CONTENT_ENCODING" in environ:
            return None
        if int(environ.get("CONTENT_LENGTH") or 0) > self._settings.max_body:
            return None
        try:
            read = reader_of(environ.get("CONTENT_TYPE", ""), seed)
        except Refused:
            return None
        return Lane(self, environ, seed, is_open, read).take

    def publish(self, push: Push) -> list[dict[str, Any]]:
        """Publish in this thread, without regard to `wait`; what the publisher is told about each destination."""
        items = items_of(push)
        self._broker.publish_pending(items)
        if items[0].is_reused:
            raise Refused(REUSED.status, REUSED.error, REUSED.message)
        receipts = [item.receipt() for item in items]
        return [
            {"destination": item.destination, "id": receipt.position, "connections": receipt.connections}
            for item, receipt in zip(items, receipts, strict=True)
        ]

    def _publish_here(self, pushes: Pushes, items: list[Pending], seed: bool, environ: dict[str, Any]) -> Answer:
        """Publish, and wait, in this thread."""
        if isinstance(pushes, list) or not pushes.wait:
            self._broker.publish_pending(items)
            return self._written(pushes, items, seed, environ)
        waiter, held = self.waiters.enter(pushes.destinations), Held()
        try:
            self._broker.publish_pending(items)
            if items[0].is_reused:
                waiter.finish()
                return self._reused(environ)
            self._expect(waiter, items, held.answer)
        except BaseException:
            waiter.finish()
            raise
        return self._written(pushes, items, seed, environ, held.wait(waiter, pushes.wait))

    def _publish_soon(
        self, pushes: Pushes, items: list[Pending], seed: bool, conversation: Any, environ: dict[str, Any]
    ) -> Answer | None:
        """Park the request, publish together with what else has come, and answer it then."""
        if not items:
            return self._written(pushes, items, seed, environ)
        self._gathering.check_room(items)
        if isinstance(pushes, Push) and pushes.wait:
            self._wait(pushes, seed, conversation, items, environ)
            return None

        def told(error: StoreError | None) -> None:
            if error is None:
                conversation.answer(*self._written(pushes, items, seed, environ))
            else:
                conversation.answer(*self._not_taken(error, environ, pushes))

        conversation.park()
        self._gathering.add(items, told, conversation.connection.poller)
        return None

    def _wait(self, push: Push, seed: bool, conversation: Any, items: list[Pending], environ: dict[str, Any]) -> None:
        """The same for a push that waits for an acknowledgement."""
        waiter = self.waiters.enter(push.destinations)
        poller = conversation.connection.poller

        def told(error: StoreError | None) -> None:
            if error is not None:
                waiter.finish()
                conversation.answer(*self._not_taken(error, environ))
                return
            if items[0].is_reused:
                waiter.finish()
                conversation.answer(*self._reused(environ))
                return
            timer = poller.call_later(push.wait, waiter.finish)

            def answer(acked: dict[str, int]) -> None:
                timer.cancel()
                conversation.answer(*self._written(push, items, seed, environ, acked))

            self._expect(waiter, items, answer)

        conversation.park(waiter.finish)
        self._gathering.add(items, told, poller)

    def _written(
        self,
        pushes: Pushes,
        items: list[Pending],
        seed: bool,
        environ: dict[str, Any],
        acked: dict[str, int] | None = None,
    ) -> Answer:
        """The answer to pushes that were published as these items."""
        if isinstance(pushes, list):
            if any(item.is_reused for item in items):
                self._refusal_log.log_request(environ, REUSED)
            return json_answer(f"[{','.join(_each_written(pushes, items))}]")
        if items[0].is_reused:
            return self._reused(environ)
        if not seed:
            return json_answer(_json_of(pushes, items, acked))
        # PHP prints what it gets back, so the body is empty and the facts are headers.
        receipts = [item.receipt() for item in items]
        facts = [
            ("Relay-Id", ", ".join(receipt.position for receipt in receipts)),
            ("Relay-Connections", ", ".join(str(receipt.connections) for receipt in receipts)),
        ]
        return Answer("200 OK", (("Content-Type", "text/plain; charset=utf-8"), *PRIVATE, *facts), b"")

    def _reused(self, environ: dict[str, Any]) -> Answer:
        """The answer to a push whose key was used with other contents."""
        self._refusal_log.log_request(environ, REUSED)
        return refusal(REUSED)

    def _not_taken(self, error: StoreError, environ: dict[str, Any], pushes: Pushes | None = None) -> Answer:
        what = "the batch was not taken, none of it" if isinstance(pushes, list) else "the push was not taken"
        return refusal(store_away(error, f"{what}; send it again later", self._access.is_local(environ)))

    def _expect(self, waiter: Waiter, items: list[Pending], answer: Callable[[dict[str, int]], None]) -> None:
        receipts = [item.receipt() for item in items]
        for destination, receipt in zip(waiter.destinations, receipts, strict=True):
            if receipt.repeated:  # it may have been acknowledged before it is asked about again
                with contextlib.suppress(StoreError):  # it was taken, and so it waits
                    waiter.note(destination, offset_of(self._broker.acked(destination)), "somebody")
        waiter.expect(receipts, answer)


class Lane:
    """Takes the pushes that come with one header, which the server knows by its bytes. Any thread may call it.

    It publishes and answers as Publisher.answer() does, without an environ, a request or a response for each push. The
    app answers refused pushes and those that wait for an acknowledgement.
    """

    __slots__ = (
        "_environ",
        "_gathering",
        "_is_open",
        "_let_in",
        "_longest",
        "_publisher",
        "_read",
        "_read_usual",
        "_seed",
    )

    def __init__(
        self,
        publisher: Publisher,
        environ: dict[str, Any],
        seed: bool,
        is_open: Callable[[], bool],
        read: Callable[[bytes], Body],
    ):
        """`environ` is the header's; `read` reads a body of its Content-Type (see bodies.reader_of)."""
        settings = publisher._settings
        # As JSON, a longer body might take more bytes than a push may.
        is_short = int(environ.get("CONTENT_LENGTH") or 0) * MOST_GROWTH <= settings.max_body
        self._publisher = publisher
        self._environ = environ
        self._seed = seed
        self._is_open = is_open
        self._read = read
        self._gathering = publisher._gathering
        self._read_usual = usual_reader_of(environ.get("CONTENT_TYPE", "")) if is_short and not seed else None
        self._longest = settings.max_id_length
        self._let_in: dict[str, Caller] = {}  # by address: the caller with this header

    def take(self, body: bytes, conversation: Any) -> bool:
        """Park the request and publish what its body asks for. Return False if the app has to answer it."""
        peer, gathering = conversation.connection.peer, self._gathering
        address = peer[0] if type(peer) is tuple else ""
        if not self._is_open() or gathering.is_full():
            return False
        try:
            usual = self._read_usual(body) if self._read_usual is not None else None
            if usual is None:
                return self._take_any(body, address, conversation)
            caller = self._let_in.get(address) or self._let_in_from(address)
        except (Refused, ValueError):
            return False
        destination, text = usual
        if len(destination) > self._longest or not destination.isprintable():
            return False
        if caller.bucket is not None and caller.bucket.take():
            return False
        item = Pending(destination, None, text=text)
        conversation.park()
        gathering.add([item], partial(self._answer, item, address, conversation), conversation.connection.poller)
        return True

    def _take_any(self, body: bytes, address: str, conversation: Any) -> bool:
        """Take a push, or a batch, in any type of body."""
        publisher = self._publisher
        try:
            caller = self._let_in.get(address) or self._let_in_from(address)
            pushes = pushes_of(self._read(body), publisher._settings, self._seed)
            items = items_of(pushes, self._seed)
            if not items or (isinstance(pushes, Push) and pushes.wait):
                return False
            self._gathering.check_room(items)
            caller.charge(len(items))
        except Exception:  # the app gets the same error: it sends the response and logs it
            return False
        if isinstance(pushes, list):
            publisher._note_refused(self._environ_from(address), pushes)
        told = partial(self._answer_any, pushes, items, address, conversation)
        if isinstance(pushes, Push) and not (pushes.several or pushes.key or self._seed):
            told = partial(self._answer, items[0], address, conversation)
        conversation.park()
        self._gathering.add(items, told, conversation.connection.poller)
        return True

    def _answer(self, item: Pending, address: str, conversation: Any, error: StoreError | None) -> None:
        """Answer a push to one destination, once it is published or could not be stored."""
        if error is None:
            conversation.answer("200 OK", JSON_HEADERS, _json_of_item(item).encode())
        else:
            conversation.answer(*self._publisher._not_taken(error, self._environ_from(address)))

    def _answer_any(
        self, pushes: Pushes, items: list[Pending], address: str, conversation: Any, error: StoreError | None
    ) -> None:
        publisher, environ = self._publisher, self._environ_from(address)
        if error is None:
            conversation.answer(*publisher._written(pushes, items, self._seed, environ))
        else:
            conversation.answer(*publisher._not_taken(error, environ, pushes))

    def _let_in_from(self, address: str) -> Caller:
        """Return the caller with this header at this address, and remember it. Raises Refused."""
        caller = self._publisher._access.may_push(self._environ_from(address))
        if len(self._let_in) < MOST_LET_IN:
            self._let_in[address] = caller
        return caller

    def _environ_from(self, address: str) -> dict[str, Any]:
        return {**self._environ, "REMOTE_ADDR": address}


def items_of(pushes: Pushes, seed: bool = False) -> list[Pending]:
    """Return what to publish, in order; nothing for the pushes of a batch that are refused.

    Raises Refused (400) for a batch at the server's root (`seed`).
    """
    if isinstance(pushes, Push):
        push = pushes
        use = None if push.key is None else KeyUse(push.text, push.event, push.ttl, push.skip_sid)
        more = push.event, push.ttl, push.key, push.skip_sid, push.text or None, use
        return [Pending(each, push.data, *more) for each in push.destinations]
    if seed:
        bad("invalid_json", "send batches to /push: the answer of this address has no room for one")
    return [item for push in pushes if isinstance(push, Push) for item in items_of(push)]


def _each_written(pushes: list[Push | Refused], items: list[Pending]) -> Iterator[str]:
    """The answers to a batch: each push's own."""
    left = iter(items)
    for push in pushes:
        if isinstance(push, Push):
            its = [next(left) for _ in push.destinations]
            yield encode(REUSED.body()) if its[0].is_reused else _json_of(push, its)
        else:
            yield encode(push.body())


def _json_of(push: Push, items: list[Pending], acked: dict[str, int] | None = None) -> str:
    """Return what encode() would make of publish()'s answers, in a tenth of the time."""
    if not push.several and acked is None:
        return _json_of_item(items[0])
    answers = [_json_of_item(item, None if acked is None else acked[item.destination]) for item in items]
    return f"[{','.join(answers)}]" if push.several else answers[0]


def _json_of_item(item: Pending, acked: int | None = None) -> str:
    told = item if item.first is None else item.first
    more = "" if acked is None else f',"acked":{acked}'
    return f'{{"destination":{quote(item.destination)},"id":"{told.position}","connections":{told.connections}{more}}}'
