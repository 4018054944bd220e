"""The publisher, called directly: it reads a request, publishes, and returns the answer."""

import io
import json

import pytest

from pushrelay.access.callers import Access
from pushrelay.errors import Refused
from pushrelay.log.limiter import LogLimiter
from pushrelay.log.refusals import RefusalLog
from pushrelay.push.fields import Push
from pushrelay.push.publisher import Publisher, items_of
from pushrelay.settings import Settings
from pushrelay.store import StoreError, open_broker


@pytest.fixture
def delivered():
    return []


@pytest.fixture
def publisher(delivered):
    broker = open_broker("memory:", lambda publication, skip_sid: delivered.append(publication.data) or 2)
    broker.start()
    settings = Settings()
    access = Access(settings)
    yield Publisher(broker, settings, access, RefusalLog(LogLimiter(), access.client_address))
    broker.close()


def request(value, peer="127.0.0.1"):
    """Return the environ of a JSON push."""
    body = json.dumps(value).encode()
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/push", "REMOTE_ADDR": peer, "HTTP_HOST": "localhost"}
    more = {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}
    return environ | more


def push(destination="a", data="x", **options):
    return {"destination": destination, "data": data, **options}


def a_push(**options):
    return Push(["a"], False, "push", '"x"', **options)


def test_the_answer_has_destination_position_and_connections(publisher, delivered):
    answer = publisher.answer(request(push()))
    assert answer.status == "200 OK" and delivered == ["x"]
    facts = json.loads(answer.body)
    assert (facts["destination"], facts["connections"]) == ("a", 2) and facts["id"].endswith(":1")


def test_the_answer_at_the_root_is_empty_with_the_facts_in_headers(publisher):
    answer = publisher.answer(request(push(["a", "b"])), at_root=True)
    headers = dict(answer.headers)
    assert answer.body == b"" and headers["Relay-Connections"] == "2, 2" and headers["Relay-Id"].count(":1") == 2


def test_each_push_of_a_batch_has_its_own_answer(publisher, delivered):
    answer = publisher.answer(request([push(), push(""), push(data="y")]))
    first, second, third = json.loads(answer.body)
    assert (first["destination"], second["error"], third["connections"]) == ("a", "missing_destination", 2)
    assert delivered == ["x", "y"]


def test_a_refused_push_is_not_published(publisher, delivered):
    assert publisher.answer(request(push(peer="x"))).status == "400 Bad Request"
    assert publisher.answer(request(push(), "192.0.2.1")).status == "401 Unauthorized"
    assert not delivered


def test_a_store_that_fails_is_a_503_with_advice(publisher, monkeypatch):
    def fail(items):
        raise StoreError("/secret/path is locked", "the store is locked")

    monkeypatch.setattr(publisher._broker, "publish_pending", fail)
    answer = publisher.answer(request([push()]))
    assert answer.status == "503 Service Unavailable"
    assert json.loads(answer.body)["error"] == "store_not_available" and b"send it again" in answer.body


def test_a_push_that_waits_without_a_conversation_blocks_until_its_time_is_up(publisher):
    answer = publisher.answer(request(push(wait=0.01)))
    assert json.loads(answer.body)["acked"] == 0 and len(publisher.waiters) == 0


def test_a_repeated_key_gets_the_first_answer_and_another_push_with_it_is_refused(publisher, delivered):
    first, again = publisher.publish(a_push(key="k")), publisher.publish(a_push(key="k"))
    assert first == again and delivered == ["x"]
    with pytest.raises(Refused, match="idempotency key"):
        publisher.publish(a_push(key="k", ttl=1.0))


def test_a_batch_at_the_root_is_refused():
    with pytest.raises(Refused, match="send batches to /push"):
        items_of([a_push()], at_root=True)
