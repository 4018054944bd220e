"""The quick readers of pushes: they never read a body differently from the complete ones."""

import itertools
import json
import random

import pytest

from pushrelay.errors import Refused
from pushrelay.push.body import reader_of, usual_reader_of
from pushrelay.push.fields import Push, pushes_of
from pushrelay.settings import Settings

VALUES = [
    *(
        b'"x"',
        b'""',
        b"0",
        b"-0",
        b"1.50",
        b"1e2",
        b"1E400",
        b"true",
        b"null",
        b"[ 1 , 2 ]",
        b"{}",
        b'"\\/"',
        b'"\\ud800"',
    ),
    *(
        b'"\\u00e9"',
        b'"\xc3\xa9"',
        b'"\xc3"',
        b"NaN",
        b"-Infinity",
        b"[1,]",
        b"",
        b'{"data":1,"data":2}',
        b"1 2",
        b"'x'",
    ),
    *(
        b"[" * 100 + b"]" * 100,
        b"[" * 101 + b"]" * 101,
        b"9" * 308,
        b"9" * 309,
        b"0." + b"0" * 400,
        b'"' + b"[" * 200 + b'"',
    ),
    *(b'{"\xf0\x9f\x90\x98":[{"a":null}]}', b'"\x00"', b'"\x7f\xc2\x85"', b'"' + b"1" * 400 + b'"'),
]
NAMES = [
    b'"a"',
    b"7",
    b"007",
    b"-1",
    b"7.0",
    b"12345678901234567890",
    b'"\xc3\xbc"',
    b'"a\\n"',
    b'""',
    b"[1]",
    b"null",
    b'"\xc2\xa0"',
]
SHAPES = [
    b'{"destination":%s,"data":%s}',
    b'{"destination": %s, "data": %s}',
    b' {"destination":%s,"data":%s}',
    b'{"destination":%s,"data":%s} ',
    b'{"destination":%s,"data":%s,"event":"e"}',
    b'{"destination":%s,"data":%s,"data":1}',
    b'{"data":%s,"destination":%s}',
]


@pytest.mark.parametrize("shape", SHAPES, ids=repr)
def test_the_quick_reader_of_json_reads_the_same_as_the_complete_one(shape):
    """It may leave a body to the complete reader, but must never read one differently."""
    settings, read = Settings(), usual_reader_of("application/json")
    taken = 0
    for name, value in itertools.product(NAMES, VALUES):
        body = shape % (name, value)
        try:
            short = read(body)
        except ValueError:
            short = None
        if short is not None:
            push = pushes_of(reader_of("application/json")(body), settings)
            assert ([short[0]], short[2], None) == (push.destinations, push.event, push.key), body
            assert repr(json.loads(short[1])) == repr(json.loads(push.text)), body  # numbers keep their spelling
            taken += 1
    assert bool(taken) == (shape in (*SHAPES[:2], SHAPES[4]))


def test_the_quick_readers_accept_and_refuse_the_same_as_the_complete_one(monkeypatch):
    """Single pushes, lines and arrays are put together by chance, with hostile pieces. Numbers keep their spelling."""
    chance, settings = random.Random(17), Settings()
    shapes = [*SHAPES, b'{"destination":%s,"data":%s,"event":"connect"}', b'{"destination":%s, "data":%s,"ttl":1}']
    bodies = []
    for number in range(1500):
        pushes = [chance.choice(shapes) % (chance.choice(NAMES), chance.choice(VALUES)) for _ in range(number % 4)]
        body = chance.choice([b"%s", b"[%s]", b"[%s] ", b"[%s"]) % chance.choice([b",", b", ", b"\n"]).join(pushes)
        bodies.append((chance.choice(["application/json", "application/x-ndjson"]), body))

    def read(kind, body):
        try:
            found = pushes_of(reader_of(kind)(body), settings)
        except Refused as refused:
            return refused.body()
        return [shown(push) for push in (found if isinstance(found, list) else [found])]

    def shown(push):
        if isinstance(push, Refused):
            return push.body()
        return [getattr(push, name) for name in vars(Push)["__slots__"] if name != "text"], repr(json.loads(push.text))

    quick = [read(*each) for each in bodies]
    monkeypatch.setattr("pushrelay.push.usual._usual_at", lambda text, start: (None, start))
    assert [read(*each) for each in bodies] == quick
