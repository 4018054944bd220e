"""Calls of the Lua scripts, as a node of the relay makes them, and the messages that they publish."""

import contextlib
import secrets
import time

import hiredis
from conftest import DEADLINE

from pushrelay.store.redis.place import Place
from pushrelay.store.redis.scripts import (
    ACK,
    BATCH,
    BEAT,
    EXPECT,
    HELLO,
    HOLD,
    HOLDERS,
    MARK,
    MARKED,
    MEMBERS,
    ORDER,
    READ,
    SWEEP,
    TIPS,
)
from pushrelay.store.redis.wire import Wire

NOW = 1_700_000_000.0
ANSWERS = {0: "stored", 1: "repeated", 2: "reused"}


def item(destination, data="x", mode="k", expires=NOW + 3600, key="", fingerprint="f"):
    """Return the arguments of one publication. `key` is "<items of its push>:<key>" or "0:<key>"."""
    own = 1 if mode[0] in "no" else 0
    return (destination, mode, f'{NOW!r} {expires!r} {own} 4 0 push"{data}"', key, fingerprint if key else "")


def text(body):
    """Return the data of a body that item() made."""
    return body.decode().rpartition("push")[2][1:-1]


class Scripts:
    """A node that calls the scripts, on a Redis of its own or one that it shares by `prefix`."""

    def __init__(self, url, prefix=None, node="a"):
        self.prefix = prefix or f"test-{secrets.token_hex(4)}:{{0}}:"
        self.channel, self.meta, self.node = self.prefix[:-1], f"{self.prefix}meta", node
        self._stack = contextlib.ExitStack()
        self._wires = [Wire(Place(url).look(time.monotonic() + DEADLINE).sock, pushes=[]) for _ in range(2)]
        for each in self._wires:
            self._stack.callback(each.close)
        self.number = 0
        self.epoch, self.run_id = "", "run1"

    def close(self):
        self._stack.close()

    def ask(self, *command):
        """Return the reply to a command. Keys with this prefix are named "{}key"."""
        command = [self.prefix + each[2:] if str(each)[:2] == "{}" != each else each for each in command]
        reply = self._wires[0].ask(time.monotonic() + DEADLINE, *command)
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def run(self, script, *args):
        return self.ask("EVAL", script.text, 1, self.meta, *args)

    def listen(self):
        """Subscribe, so that messages() returns what is published from now on."""
        wire = self._wires[1]
        wire.tell(time.monotonic() + DEADLINE, "SUBSCRIBE", self.channel)
        self.messages()

    def messages(self):
        """Return the messages since the last call."""
        wire = self._wires[1]
        wire.ask(time.monotonic() + DEADLINE, "PING")  # what was published before has come before its reply
        found = [push[2] for push in wire.pushes if push[0] == b"message"]
        wire.pushes.clear()
        return [self._taken_apart(each) for each in found]

    @staticmethod
    def _taken_apart(message):
        reader = hiredis.Reader()
        reader.feed(message)
        fields = reader.gets()
        assert not reader.has_data(), "bytes are left over"
        return fields

    # The scripts.

    def hello(self, run=None, epoch=None, seq=0, durable=False, word="word", order=0):
        """Return (epoch, number of the last batch, generation, number of the last order)."""
        self.run_id = run or self.run_id
        known = (self.run_id, self.epoch if epoch is None else epoch, seq, int(durable), word)
        answer = self.run(HELLO, *known, self.node, 10, "", self.channel, order)
        self.epoch = answer[0].decode()
        return self.epoch, *answer[1:]

    def batch(self, *items, number=None, now=NOW, size=100, ttl=3600, key_ttl=300, forget_after=86400.0):
        """Store a batch. Return whether it was published, and of each item (offset, connections, "stored")."""
        if number is None:
            number = self.number = self.number + 1
        head = (self.node, number, self.epoch, self.run_id, now, size)
        more = (ttl, key_ttl, self.channel, forget_after)
        args = [each for one in items for each in one]
        state, answer = self.run(BATCH, *head, *more, *args)
        found = list(map(int, answer.split()))
        assert len(found) == 3 * len(items)
        return state == 0, [(*found[n : n + 2], ANSWERS[found[n + 2]]) for n in range(0, len(found), 3)]

    def marked(self, *items, mark, number=None):
        """Store a batch as batch() does, with a mark (name, before, after). Return whether it was published."""
        if number is None:
            number = self.number = self.number + 1
        head = (self.node, number, self.epoch, self.run_id, NOW, 100, 3600, 300, self.channel, 86400.0)
        return self.run(MARKED, *head, *(each for one in items for each in one), *mark)[0] == 0

    def mark(self, name, epoch=None):
        return self.run(MARK, self.epoch if epoch is None else epoch, name).decode()

    def store(self, *items, **options):
        """Store a batch; return the offsets of its items."""
        return [offset for offset, _, _ in self.batch(*items, **options)[1]]

    def read(self, destination, after=0, most=1 << 53, now=NOW, epoch=None, whole=True):
        """Return ((last offset, trimmed, acked), more, entries)."""
        answer = self.run(READ, self.epoch if epoch is None else epoch, now, destination, after, most, int(whole))
        return tuple(answer[:3]), bool(answer[3]), answer[4:]

    def kept(self, destination, after=0, **options):
        """Return the data of what is kept."""
        return [text(each) for each in self.read(destination, after, **options)[2]]

    def tips(self, *destinations, now=NOW):
        """Return (last offset, trimmed, last in the list, its generation) of each."""
        answer = self.run(TIPS, now, *destinations)
        return [tuple(answer[n : n + 4]) for n in range(0, len(answer), 4)]

    def ack(self, destination, offset, sid="sid", epoch=None):
        return tuple(self.run(ACK, epoch or self.epoch, NOW, destination, offset, self.channel, sid))

    def expect(self, destination, seconds):
        return self.run(EXPECT, destination, seconds)

    def begin(self, destination, epoch=None):
        """Begin to hold a destination; return its last offset."""
        return self.run(HOLD, epoch or self.epoch, NOW, destination, 86400.0)

    def hold(self, *held, node=None):
        """Note (destination, connections, since) of each; return how many the node holds."""
        return self.run(HOLDERS, node or self.node, *(each for one in held for each in one))

    def have(self, *users, node=None):
        """Note (destination, user, since, info, how) of each; return how many members each destination has."""
        return self.run(MEMBERS, node or self.node, *(each for one in users for each in one))

    def beat(self, node=None, lease=10):
        return self.run(BEAT, node or self.node, lease, "information")

    def order(self, order="{}", node=None):
        return self.run(ORDER, node or self.node, self.epoch, self.channel, order)

    def sweep(self, now, forget_after=86400.0, most=100):
        return self.run(SWEEP, now, forget_after, most)
