"""A push over HTTP, from the request to the answer: may they, what do they ask, publish it, say what became of it."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from json.encoder import encode_basestring as quote
from typing import Any, NamedTuple

from .access import Access, Caller
from .bodies import USUAL_FORM, is_form
from .broker import Broker
from .errors import Refused, bad
from .gathering import Gathering
from .handout import Item, KeyUse
from .headers import PRIVATE
from .publication import StoreError, encode, offset_of
from .pushes import Push, read_pushes
from .refusals import Refusals
from .settings import Settings
from .waiters import Held, Waiter, Waiters

Pushes = Push | list[Push | Refused]  # a request's push, or its batch
MOST_GROWTH = 6  # bytes that a byte of text takes as JSON at most: a control character is \u0001
MOST_LET_IN = 64  # addresses that are remembered for one header; behind them each is asked about every time


class Answer(NamedTuple):
    """A whole response."""

    status: str
    headers: Sequence[tuple[str, str]]  # without Content-Length
    body: bytes


REUSED = Refused(
    422,
    "id_reused",
    "this idempotency key (id, or Idempotency-Key) was used in the last five minutes for a push with other data or "
    "another event, ttl or except: nothing was published. Use a new key for each push, and repeat a push unchanged",
)
_JSON_HEADERS = (("Content-Type", "application/json"), *PRIVATE)


class Publisher:
    """Answers pushes. `settings` are the relay's, `access` says who pushes; any thread may call it.

    `refusals` gets the requests that are refused.
    """

    def __init__(self, broker: Broker, settings: Settings, access: Access, refusals: Refusals):
        self.waiters = Waiters(settings.max_waiting)
        self._access = access
        self._refusals = refusals
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
            if seed and isinstance(pushes, list):
                bad("invalid_json", "send batches to /push: the answer of this address has no room for one")
            items = items_of(pushes)
            if isinstance(pushes, list):
                self._note_refused(environ, pushes)
            caller.charge(len(items))
            if conversation is None:
                return self._publish_here(pushes, items, seed, environ)
            return self._publish_soon(pushes, items, seed, conversation, environ)
        except Refused as error:
            self._refusals.note_request(environ, error)
            return refusal(error)
        except StoreError as error:
            return self._not_taken(error, environ, pushes)

    def _note_refused(self, environ: dict[str, Any], pushes: list[Push | Refused]) -> None:
        """Note what is refused of a batch, each error once."""
        errors = {push.error: push for push in pushes if isinstance(push, Refused)}
        for error in errors.values():
            self._refusals.note_request(environ, error)

    def shortcut(self, environ: dict[str, Any]) -> Callable[[bytes, Any], bool] | None:
        """What takes the pushes that come with this very header (see server.Server); None where there is no such thing.

        It knows plain forms of a destination and data, and leaves all others to answer(), which says the same of them.
        """
        # A body that might take more as JSON than a push may is answer()'s to look at.
        is_large = int(environ.get("CONTENT_LENGTH") or 0) * MOST_GROWTH > self._settings.max_body
        has_more = "HTTP_IDEMPOTENCY_KEY" in environ or "HTTP_CONTENT_ENCODING" in environ
        if is_large or has_more or not is_form(environ):
            return None
        let_in: dict[str, Caller] = {}  # by address, who it was with this header
        longest, gathering = self._settings.max_id_length, self._gathering

        def take(body: bytes, conversation: Any) -> bool:
            peer, usual = conversation.connection.peer, USUAL_FORM.fullmatch(body)
            address = peer[0] if type(peer) is tuple else ""
            if usual is None or gathering.is_full():
                return False
            try:
                if (caller := let_in.get(address)) is None:
                    caller = self._access.may_push({**environ, "REMOTE_ADDR": address})
                    if len(let_in) < MOST_LET_IN:
                        let_in[address] = caller
                destination, data = usual[1].decode(), usual[2].decode()
            except (Refused, UnicodeDecodeError):
                return False
            if len(destination) > longest or not destination.isprintable():
                return False
            if caller.bucket is not None and caller.bucket.take():
                return False  # answer() says how long it has to wait
            item = Item(destination, data)

            def told(error: StoreError | None) -> None:
                if error is None:
                    conversation.answer("200 OK", _JSON_HEADERS, _json_of_item(item).encode())
                else:
                    conversation.answer(*self._not_taken(error, {**environ, "REMOTE_ADDR": address}))

            conversation.park()
            gathering.add([item], told, conversation.connection.poller)
            return True

        return take

    def publish(self, push: Push) -> list[dict[str, Any]]:
        """Publish in this thread, without regard to `wait`; what the publisher is told about each destination."""
        items = items_of(push)
        self._broker.publish_items(items)
        if items[0].is_reused:
            raise Refused(REUSED.status, REUSED.error, REUSED.message)
        receipts = [item.receipt() for item in items]
        return [
            {"destination": item.destination, "id": receipt.position, "connections": receipt.connections}
            for item, receipt in zip(items, receipts, strict=True)
        ]

    def _publish_here(self, pushes: Pushes, items: list[Item], seed: bool, environ: dict[str, Any]) -> Answer:
        """Publish, and wait, in this thread."""
        if isinstance(pushes, list) or not pushes.wait:
            self._broker.publish_items(items)
            return self._written(pushes, items, seed, environ)
        waiter, held = self.waiters.enter(pushes.destinations), Held()
        try:
            self._broker.publish_items(items)
            if items[0].is_reused:
                waiter.finish()
                return self._reused(environ)
            self._expect(waiter, items, held.answer)
        except BaseException:
            waiter.finish()
            raise
        return self._written(pushes, items, seed, environ, held.wait(waiter, pushes.wait))

    def _publish_soon(
        self, pushes: Pushes, items: list[Item], seed: bool, conversation: Any, environ: dict[str, Any]
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

    def _wait(self, push: Push, seed: bool, conversation: Any, items: list[Item], environ: dict[str, Any]) -> None:
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
        items: list[Item],
        seed: bool,
        environ: dict[str, Any],
        acked: dict[str, int] | None = None,
    ) -> Answer:
        """The answer to pushes that were published as these items."""
        if isinstance(pushes, list):
            if any(item.is_reused for item in items):
                self._refusals.note_request(environ, REUSED)
            return _json_answer(f"[{','.join(_each_written(pushes, items))}]")
        if items[0].is_reused:
            return self._reused(environ)
        if not seed:
            return _json_answer(_json_of(pushes, items, acked))
        # PHP prints what it gets back, so the body is empty and the facts are headers.
        receipts = [item.receipt() for item in items]
        facts = [
            ("Relay-Id", ", ".join(receipt.position for receipt in receipts)),
            ("Relay-Connections", ", ".join(str(receipt.connections) for receipt in receipts)),
        ]
        return Answer("200 OK", (("Content-Type", "text/plain; charset=utf-8"), *PRIVATE, *facts), b"")

    def _reused(self, environ: dict[str, Any]) -> Answer:
        """The answer to a push whose key was used with other contents."""
        self._refusals.note_request(environ, REUSED)
        return refusal(REUSED)

    def _not_taken(self, error: StoreError, environ: dict[str, Any], pushes: Pushes | None = None) -> Answer:
        what = "the batch was not taken, none of it" if isinstance(pushes, list) else "the push was not taken"
        return refusal(store_away(error, f"{what}; send it again later", self._access.is_local(environ)))

    def _expect(self, waiter: Waiter, items: list[Item], answer: Callable[[dict[str, int]], None]) -> None:
        receipts = [item.receipt() for item in items]
        for destination, receipt in zip(waiter.destinations, receipts, strict=True):
            if receipt.repeated:  # it may have been acknowledged before it is asked about again
                with contextlib.suppress(StoreError):  # it was taken, and so it waits
                    waiter.note(destination, offset_of(self._broker.acked(destination)), "somebody")
        waiter.expect(receipts, answer)


def items_of(pushes: Pushes) -> list[Item]:
    """What is to be published, in order; nothing for the items of a batch that are refused."""
    if isinstance(pushes, Push):
        push = pushes
        use = None if push.key is None else KeyUse(push.text, push.event, push.ttl, push.skip_sid)
        more = push.event, push.ttl, push.key, push.skip_sid, push.text or None, use
        return [Item(each, push.data, *more) for each in push.destinations]
    return [item for push in pushes if isinstance(push, Push) for item in items_of(push)]


def store_away(error: StoreError, not_done: str, is_local: bool = False) -> Refused:
    """Return the refusal for a store in trouble: what was not done, and why, with the file's path for local callers."""
    reason = str(error) if is_local else error.public
    return Refused(503, "store_not_available", f"{not_done}: {reason}")


def refusal(error: Refused) -> Answer:
    status, headers, body = _json_answer(encode(error.body()), f"{error.status} {HTTPStatus(error.status).phrase}")
    return Answer(status, (*headers, *error.headers), body)


def _json_answer(text: str, status: str = "200 OK") -> Answer:
    return Answer(status, _JSON_HEADERS, text.encode())


def _each_written(pushes: list[Push | Refused], items: list[Item]) -> Iterator[str]:
    """The answers to a batch: each push's own."""
    left = iter(items)
    for push in pushes:
        if isinstance(push, Push):
            its = [next(left) for _ in push.destinations]
            yield encode(REUSED.body()) if its[0].is_reused else _json_of(push, its)
        else:
            yield encode(push.body())


def _json_of(push: Push, items: list[Item], acked: dict[str, int] | None = None) -> str:
    """The same as encode() would make of publish()'s answers, in a tenth of the time."""
    answers = [_json_of_item(item, None if acked is None else acked[item.destination]) for item in items]
    return f"[{','.join(answers)}]" if push.several else answers[0]


def _json_of_item(item: Item, acked: int | None = None) -> str:
    told = item if item.first is None else item.first
    more = "" if acked is None else f',"acked":{acked}'
    return f'{{"destination":{quote(item.destination)},"id":"{told.position}","connections":{told.connections}{more}}}'
