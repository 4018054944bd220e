"""The content of a file of the spool is checked as over HTTP."""

import json
import time

import pytest

from pushrelay.errors import Refused
from pushrelay.settings import Settings
from pushrelay.spool.content import content_of
from pushrelay.spool.folder import SpooledFile

SETTINGS = Settings(max_id_length=20)


def content(body, written=None):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return content_of(SpooledFile("1.json", body, time.time() if written is None else written), SETTINGS)


def test_a_push_has_an_item_for_each_destination():
    got = content({"destination": ["a", 7], "data": {"n": 1}, "event": "order", "id": "k", "wait": 5})
    assert [(item.destination, item.text, item.event) for item in got.items] == [
        ("a", '{"n": 1}'.replace(" ", ""), "order"),
        ("7", '{"n":1}', "order"),
    ]
    assert got.items[0].key == "1:ak" and got.refused == ""


def test_a_batch_has_all_of_its_pushes_in_order():
    got = content([{"destination": "a", "data": n} for n in range(3)])
    assert [item.text for item in got.items] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "invalid_json"),
        (b"\0" * 70, "invalid_json"),  # what a power failure may leave
        (b'{"destination": "a", "data": 1', "invalid_json"),
        (b"\xff", "invalid_json"),
        ({"data": 1}, "missing_destination"),
        ({"destination": "a" * 21, "data": 1}, "invalid_destination"),
        ({"destination": "a", "data": 1, "evnet": "b"}, "unknown_field"),
        (7, "invalid_json"),
        ([{"destination": "a", "data": 1}] * 1001, "too_many_pushes"),
    ],
)
def test_a_file_that_is_no_push_is_refused_with_the_error_that_http_has(body, error):
    with pytest.raises(Refused) as refused:
        content(body)
    assert refused.value.error == error


def test_of_a_batch_only_the_bad_pushes_are_refused():
    bad = {"destination": "b", "data": 2, "ttl": -1}
    got = content([{"destination": "a", "data": 1}, bad, {"destination": "c", "data": 3}, 7])
    assert [item.destination for item in got.items] == ["a", "c"]
    assert json.loads(got.rest) == [bad, None]
    first, second = got.refused.splitlines()
    assert first.startswith("push 1: invalid_ttl: ") and second.startswith("push 3: invalid_json: ")


def test_a_ttl_and_the_memory_for_keys_count_from_when_the_file_was_written():
    written = time.time() - 60
    push = {"destination": "a", "data": 1, "id": "k"}
    (kept,) = content({**push, "ttl": 100}, written).items
    (over,) = content({**push, "ttl": 30}, written).items
    (usual,) = content(push, written).items
    assert 30 < kept.ttl <= 40 and over.ttl == 0 and usual.ttl is None
    assert usual.use.asked_at == written
    # The relay must recognize the push that was sent over HTTP before, with its whole ttl.
    (now,) = content({**push, "ttl": 100}).items
    assert kept.use.fingerprint == now.use.fingerprint
