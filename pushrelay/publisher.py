"""A push over HTTP, from the request to the answer: may they, what do they ask, publish it, say what became of it."""

import contextlib
from http import HTTPStatus
from json.encoder import encode_basestring as quote
from typing import Any, NamedTuple

from .access import may_push
from .broker import Broker
from .errors import Refused, bad
from .publication import Draft, Receipt, StoreError, encode, offset_of
from .pushes import Push, read_pushes
from .settings import Settings
from .waiters import Held, Waiter, Waiters


class Answer(NamedTuple):
    """A whole response."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes


class Publisher:
    """Answers pushes. `settings` are the relay's; any thread may call it."""

    def __init__(self, broker: Broker, settings: Settings):
        self.waiters = Waiters(settings.max_waiting)
        self._broker = broker
        self._settings = settings

    def answer(self, environ: dict[str, Any], seed: bool = False, parking: Any = None) -> Answer | None:
        """What a POST to /push is answered with, or at the server's root (`seed`).

        With `parking` (see serving.Parking) a push that waits holds no thread: it is answered through that, and None is
        returned. Without, it waits in this thread.
        """
        try:
            may_push(environ)
            pushes = read_pushes(environ, self._settings, seed)
            if isinstance(pushes, list):
                return self._batch(pushes, seed)
            if pushes.wait:
                return self._wait(pushes, seed, parking)
            return _written(pushes, self._broker.publish(drafts_of(pushes)), seed)
        except Refused as error:
            return refusal(error)
        except StoreError as error:
            what = "the batch was not taken, none of it" if isinstance(pushes, list) else "the push was not taken"
            return refusal(store_away(error, f"{what}; send it again later"))

    def _batch(self, pushes: list[Push | Refused], seed: bool) -> Answer:
        """Publish all that can be taken in one transaction, and answer each on its own."""
        if seed:
            bad("invalid_json", "send batches to /push: the answer of this address has no room for one")
        drafts = [draft for push in pushes if isinstance(push, Push) for draft in drafts_of(push)]
        receipts = iter(self._broker.publish(drafts) if drafts else ())
        answers = []
        for push in pushes:
            if isinstance(push, Push):
                answers.append(_json_of(push, [next(receipts) for _ in push.destinations]))
            else:
                answers.append(encode(push.body()))
        return _json_answer(f"[{','.join(answers)}]")

    def _wait(self, push: Push, seed: bool, parking: Any) -> Answer | None:
        waiter = self.waiters.enter(push.destinations)
        try:
            receipts = self._broker.publish(drafts_of(push))
            self._note_repeats(waiter, receipts)
        except BaseException:
            waiter.finish()
            raise
        if parking is None:
            held = Held()
            waiter.expect(receipts, held.answer)
            return _written(push, receipts, seed, held.wait(waiter, push.wait))
        answer = parking.begin(push.wait, waiter.finish)
        waiter.expect(receipts, lambda acked: answer(*_written(push, receipts, seed, acked)))
        return None

    def _note_repeats(self, waiter: Waiter, receipts: list[Receipt]) -> None:
        """A push that is repeated may have been acknowledged before it is asked about again."""
        for destination, receipt in zip(waiter.destinations, receipts, strict=True):
            if receipt.repeated:
                with contextlib.suppress(StoreError):  # it was taken, and so it waits
                    waiter.note(destination, offset_of(self._broker.acked(destination)), "somebody")


def drafts_of(push: Push) -> list[Draft]:
    return [Draft(each, push.data, push.event, push.ttl, push.key, push.skip_sid) for each in push.destinations]


def answer_of(destination: str, receipt: Receipt) -> dict[str, Any]:
    """What the publisher is told about one destination."""
    return {"destination": destination, "id": receipt.position, "connections": receipt.connections}


def store_away(error: StoreError, not_done: str) -> Refused:
    """The refusal where the store is in trouble: what was not done, and why; `error` says how that ends."""
    return Refused(503, "store_not_available", f"{not_done}: {error}")


def refusal(error: Refused) -> Answer:
    return _json_answer(encode(error.body()), f"{error.status} {HTTPStatus(error.status).phrase}")


def _json_answer(text: str, status: str = "200 OK") -> Answer:
    body = text.encode()
    return Answer(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))], body)


def _written(push: Push, receipts: list[Receipt], seed: bool, acked: dict[str, int] | None = None) -> Answer:
    if not seed:
        return _json_answer(_json_of(push, receipts, acked))
    # PHP prints what it gets back, so the body is empty and the facts are headers.
    facts = [
        ("Relay-Id", ", ".join(receipt.position for receipt in receipts)),
        ("Relay-Connections", ", ".join(str(receipt.connections) for receipt in receipts)),
    ]
    if acked is not None:
        facts.append(("Relay-Acked", ", ".join(str(acked[each]) for each in push.destinations)))
    return Answer("200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "0"), *facts], b"")


def _json_of(push: Push, receipts: list[Receipt], acked: dict[str, int] | None = None) -> str:
    """The same as encode() would make of answer_of(), in a tenth of the time."""
    answers = []
    for destination, receipt in zip(push.destinations, receipts, strict=True):
        more = "" if acked is None else f',"acked":{acked[destination]}'
        facts = f'"id":"{receipt.position}","connections":{receipt.connections}{more}'
        answers.append(f'{{"destination":{quote(destination)},{facts}}}')
    return f"[{','.join(answers)}]" if push.several else answers[0]
