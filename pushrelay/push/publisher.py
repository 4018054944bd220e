"""A push over HTTP, from the request to the answer: check the caller, read the push, publish it, write the answer."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, overload

from pushrelay.access.callers import Access
from pushrelay.answers import PRIVATE, Answer, json_answer, refusal, store_refusal
from pushrelay.counters import Family, queue_length
from pushrelay.errors import Refused, StoreError, bad
from pushrelay.json_text import encode, quote
from pushrelay.log.access_log import NOTES, note
from pushrelay.log.refusals import RefusalLog
from pushrelay.server.conversation import Conversation
from pushrelay.settings import Settings
from pushrelay.store import Broker
from pushrelay.store.publication import offset_of
from pushrelay.store.stripe import KeyUse, Pending

from .batching import Batcher
from .counts import FAILED, HTTP, REFUSED, SOCKET
from .fields import Push, read_pushes
from .waiters import BlockingWait, Waiter, Waiters

Pushes = Push | list[Push | Refused]  # one push, or a batch

REUSED = Refused(
    422,
    "id_reused",
    "this idempotency key (id, or Idempotency-Key) was used in the last five minutes for a push with other data or "
    "another event, ttl or except: nothing was published. Use a new key for each push, and repeat a push unchanged",
)


class Publisher:
    """Publishes what requests ask for, and answers them. Any thread may call it.

    `access` checks callers. `refusal_log` gets the requests that are refused.
    """

    def __init__(self, broker: Broker, settings: Settings, access: Access, refusal_log: RefusalLog):
        self.waiters = Waiters(settings.max_waiting)
        self.access = access
        self._refusal_log = refusal_log
        self._broker = broker
        self.batcher = Batcher(broker)
        self.settings = settings

    def reload(self, settings: Settings) -> None:
        """Use these settings for the pushes that come from now on."""
        self.settings = settings
        self.waiters.limit = settings.max_waiting

    @overload
    def answer(self, environ: dict[str, Any], at_root: bool = False) -> Answer: ...

    @overload
    def answer(self, environ: dict[str, Any], at_root: bool, conversation: Conversation | None) -> Answer | None: ...

    def answer(
        self, environ: dict[str, Any], at_root: bool = False, conversation: Conversation | None = None
    ) -> Answer | None:
        """Publish what a POST to /push asks for, or one to the server's root (`at_root`), and return the answer.

        With a `conversation`, no thread waits for the store or for an acknowledgement: the answer is sent through the
        conversation when it is known, and None is returned.
        """
        pushes: Pushes | None = None
        try:
            caller = self.access.may_push(environ)
            caller.identify(environ)
            pushes = read_pushes(environ, self.settings, at_root)
            if NOTES in environ:
                note(environ, destinations=_destinations_of(pushes))
            items = items_of(pushes, at_root)
            if isinstance(pushes, list):
                self.log_refused(environ, pushes)
            caller.charge(len(items))  # before anything is stored, and after any refusal would have been raised
            if conversation is None:
                return self._publish_here(pushes, items, at_root, environ)
            return self._publish_soon(pushes, items, at_root, conversation, environ)
        except Refused as error:
            self.batcher.counts.add(HTTP, REFUSED)
            self._refusal_log.log_request(environ, error)
            return refusal(error)
        except StoreError as error:
            self.batcher.counts.add(HTTP, FAILED)
            return self.answer_to_failed(error, environ, pushes)

    def log_refused(self, environ: dict[str, Any], pushes: list[Push | Refused]) -> None:
        """Log the pushes of a batch that are refused, once for each error code."""
        errors = {push.error: push for push in pushes if isinstance(push, Refused)}
        for error in errors.values():
            self._refusal_log.log_request(environ, error)

    def publish(self, push: Push) -> list[dict[str, Any]]:
        """Publish a push in this thread, ignoring its `wait`, and return the answer for each destination.

        Raises Refused if its idempotency key was used for another push, and StoreError.
        """
        began, counts, items = time.monotonic(), self.batcher.counts, items_of(push)
        try:
            self._broker.publish_pending(items)
        except StoreError:
            counts.add(SOCKET, FAILED)
            raise
        if items[0].is_reused:
            raise Refused(REUSED.status, REUSED.error, REUSED.message)
        counts.published_here(SOCKET, began, items)
        receipts = [item.receipt() for item in items]
        return [
            {"destination": item.destination, "id": receipt.position, "connections": receipt.connections}
            for item, receipt in zip(items, receipts, strict=True)
        ]

    def _publish_here(self, pushes: Pushes, items: list[Pending], at_root: bool, environ: dict[str, Any]) -> Answer:
        """Publish in this thread, and wait in it if the push asks for that."""
        began, counts = time.monotonic(), self.batcher.counts
        if isinstance(pushes, list) or not pushes.wait:
            self._broker.publish_pending(items)
            counts.published_here(HTTP, began, items)
            return self.answer_to_published(pushes, items, at_root, environ)
        waiter, blocking = self.waiters.enter(pushes.destinations), BlockingWait()
        try:
            self._broker.publish_pending(items)
            counts.published_here(HTTP, began, items)
            if items[0].is_reused:
                waiter.finish()
                return self._reused(environ)
            self._expect(waiter, items, blocking.answer, pushes.wait)
        except BaseException:
            waiter.finish()
            raise
        return self.answer_to_published(pushes, items, at_root, environ, blocking.wait(waiter, pushes.wait))

    def _publish_soon(
        self, pushes: Pushes, items: list[Pending], at_root: bool, conversation: Conversation, environ: dict[str, Any]
    ) -> Answer | None:
        """Park the request, publish in the next batch, and answer then; None means that the answer is sent later."""
        if not items:
            return self.answer_to_published(pushes, items, at_root, environ)
        self.batcher.check_room(items)
        if isinstance(pushes, Push) and pushes.wait:
            self._wait(pushes, at_root, conversation, items, environ)
            return None

        def done(error: StoreError | None) -> None:
            if error is None:
                conversation.answer(*self.answer_to_published(pushes, items, at_root, environ))
            else:
                conversation.answer(*self.answer_to_failed(error, environ, pushes))

        conversation.park()
        self.batcher.add(items, done, conversation.connection.poller)
        return None

    def _wait(
        self, push: Push, at_root: bool, conversation: Conversation, items: list[Pending], environ: dict[str, Any]
    ) -> None:
        """Park the request, publish in the next batch, and answer when a client acknowledges the push or time is up."""
        waiter = self.waiters.enter(push.destinations)
        poller = conversation.connection.poller

        def done(error: StoreError | None) -> None:
            if error is not None:
                waiter.finish()
                conversation.answer(*self.answer_to_failed(error, environ))
                return
            if items[0].is_reused:
                waiter.finish()
                conversation.answer(*self._reused(environ))
                return
            timer = poller.call_later(push.wait, waiter.finish)

            def answer(acked: dict[str, int]) -> None:
                timer.cancel()
                conversation.answer(*self.answer_to_published(push, items, at_root, environ, acked))

            self._expect(waiter, items, answer, push.wait)

        conversation.park(waiter.finish)
        self.batcher.add(items, done, poller)

    def answer_to_published(
        self,
        pushes: Pushes,
        items: list[Pending],
        at_root: bool,
        environ: dict[str, Any],
        acked: dict[str, int] | None = None,
    ) -> Answer:
        """Return the answer to pushes that were published as these items.

        `acked`: how many clients acknowledged the push, by destination, if it waited for that.
        """
        if isinstance(pushes, list):
            if any(item.is_reused for item in items):
                self._refusal_log.log_request(environ, REUSED)
            return json_answer(f"[{','.join(_answers_to_batch(pushes, items))}]")
        if items[0].is_reused:
            return self._reused(environ)
        if not at_root:
            return json_answer(_json_of_push(pushes, items, acked))
        # The first server's PHP clients print the response, so the body is empty and headers have the facts.
        receipts = [item.receipt() for item in items]
        facts = [
            ("Relay-Id", ", ".join(receipt.position for receipt in receipts)),
            ("Relay-Connections", ", ".join(str(receipt.connections) for receipt in receipts)),
        ]
        return Answer("200 OK", (("Content-Type", "text/plain; charset=utf-8"), *PRIVATE, *facts), b"")

    def _reused(self, environ: dict[str, Any]) -> Answer:
        """Return the answer to a push whose idempotency key was used for another push."""
        self._refusal_log.log_request(environ, REUSED)
        return refusal(REUSED)

    def answer_to_failed(self, error: StoreError, environ: dict[str, Any], pushes: Pushes | None = None) -> Answer:
        """Return the answer to pushes that the store did not keep."""
        note(environ, error="store_not_available")
        what = "the batch was not taken, none of it" if isinstance(pushes, list) else "the push was not taken"
        return refusal(store_refusal(error, f"{what}; send it again later", self.access.is_local(environ)))

    def metrics(self) -> Iterable[Family]:
        """Return the metrics of the pushes."""
        yield from self.batcher.metrics()
        yield queue_length("acknowledgement", len(self.waiters))

    def _expect(
        self, waiter: Waiter, items: list[Pending], answer: Callable[[dict[str, int]], None], seconds: float
    ) -> None:
        """Have `waiter` call `answer` when the published items are acknowledged, within this number of seconds."""
        receipts = [item.receipt() for item in items]
        for destination, receipt in zip(waiter.destinations, receipts, strict=True):
            if receipt.repeated:  # a client may have acknowledged it already
                with contextlib.suppress(StoreError):  # the push itself was accepted, so it waits
                    waiter.note(destination, offset_of(self._broker.acked(destination)), "somebody")
        waiter.expect(receipts, answer)
        for destination, receipt in zip(waiter.destinations, receipts, strict=True):
            self._broker.expect(destination, offset_of(receipt.position), seconds)


def items_of(pushes: Pushes, at_root: bool = False) -> list[Pending]:
    """Return what to publish, in order. The refused pushes of a batch have no items.

    Raises Refused (400) for a batch that was sent to the server's root (`at_root`).
    """
    if isinstance(pushes, Push):
        return _items_of(pushes)
    if at_root:
        bad("invalid_json", "send batches to /push: the answer of this address is too small for one")
    items: list[Pending] = []
    for push in pushes:
        if isinstance(push, Push):
            items += _items_of(push)
    return items


def _items_of(push: Push) -> list[Pending]:
    text = push.text
    use = None if push.key is None else KeyUse(text, push.event, push.ttl, push.skip_sid)
    more = push.event, push.ttl, push.key, push.skip_sid, text, use
    return [Pending(each, None, *more) for each in push.destinations]


def _destinations_of(pushes: Pushes) -> list[str]:
    if isinstance(pushes, Push):
        return pushes.destinations
    return [each for push in pushes if isinstance(push, Push) for each in push.destinations]


def _answers_to_batch(pushes: list[Push | Refused], items: list[Pending]) -> Iterator[str]:
    """Yield the answer to each push of a batch, as JSON."""
    left = iter(items)
    for push in pushes:
        if isinstance(push, Push):
            its = [next(left) for _ in push.destinations]
            yield encode(REUSED.body()) if its[0].is_reused else _json_of_push(push, its)
        else:
            yield encode(push.body())


def _json_of_push(push: Push, items: list[Pending], acked: dict[str, int] | None = None) -> str:
    """Return the answer to one push as JSON. It equals encode() of publish()'s answers, in a tenth of the time."""
    if not push.several and acked is None:
        return json_of(items[0])
    answers = [json_of(item, None if acked is None else acked[item.destination]) for item in items]
    return f"[{','.join(answers)}]" if push.several else answers[0]


def json_of(item: Pending, acked: int | None = None) -> str:
    """Return the answer for one destination as JSON. A repeated push has the answer of the first one."""
    first = item if item.first is None else item.first
    more = "" if acked is None else f',"acked":{acked}'
    return (
        f'{{"destination":{quote(item.destination)},"id":"{first.position}","connections":{first.connections}{more}}}'
    )
