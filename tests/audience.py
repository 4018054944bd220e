"""Pages that watch who is at a destination, for the tests: each checks that its list and its events fit together."""

import contextlib
import json
import threading

from clients import Wire
from conftest import DEADLINE, wait_for

from pushrelay.access.tokens import sign

SECRET = "the-secret-of-this-relay-0123456789-0123456789"
LATER = 4_000_000_000


def token(ids="*", user=None, info=None, presence=None, **claims):
    """Return a token for a page: of a user, if one is named, and with the right to watch, if that is given."""
    claims |= {"ids": [ids] if isinstance(ids, str) else ids}
    if user is not None:
        claims["as"] = {"id": user} if info is None else {"id": user, "info": info}
    if presence is not None:
        claims["presence"] = [presence] if isinstance(presence, str) else presence
    return sign({"exp": LATER, **claims}, SECRET)


class Replica:
    """The members of a destination as a watcher knows them: a list, and the events since. It checks every version."""

    def __init__(self, name, answer):
        assert answer["ok"] and answer["id"] == name, answer
        self.name = name
        self.members = {each["id"]: each for each in answer["members"]}
        assert len(self.members) == len(answer["members"]), "a member came twice in the list"
        self.version = answer["version"]
        self.history = []  # ("join" or "leave", id), as they came

    def take(self, message):
        """Apply a `relay_presence` event."""
        assert message["destination"] == self.name
        assert message["version"] == self.version + 1, (message, self.version)
        for each in message["events"]:
            ((kind, value),) = each.items()
            if kind == "join":
                assert self.members.get(value["id"]) != value, f"{value} has not changed"
                self.members[value["id"]] = value
                self.history.append(("join", value["id"]))
            else:
                assert kind == "leave" and value in self.members, each
                del self.members[value]
                self.history.append(("leave", value))
        self.version += len(message["events"])

    @property
    def ids(self):
        return set(self.members)


class Page:
    """A page of a user, or of nobody: `Page(port, "room-7", user="42")`. It can watch destinations.

    A thread reads what comes, in order. `got` has the events that belong to no watch, as (event, message).
    """

    def __init__(self, port, *ids, user=None, info=None, presence="*", expires=LATER, **options):
        self.got, self.replicas, self.errors = [], {}, []
        self.token = token(user=user, info=info, presence=presence, exp=expires)
        self._asked, self._answers, self._changed = {}, {}, threading.Condition()
        self._wire = Wire(port, **options)
        self._wire.socket.settimeout(None)
        threading.Thread(target=self._read, daemon=True).start()
        if ids:
            answer = self.register(*ids)
            assert answer["ok"], answer

    def call(self, event, message, watches=None):
        """Emit an event, and return its acknowledgement."""
        with self._changed:
            number = len(self._asked) + 1
            self._asked[number] = watches
            self._wire.emit(event, message, number)
            assert self._changed.wait_for(lambda: number in self._answers, DEADLINE), f"no answer to {event}"
            return self._answers.pop(number)

    def register(self, *ids, **fields):
        return self.call("register", {"id": list(ids), "token": self.token, **fields})

    def watch(self, name, **fields):
        """Ask who is at a destination, and return the replica that follows it."""
        answer = self.call("presence", {"id": name, "token": self.token, **fields}, watches=name)
        assert answer["ok"], answer
        return self.replicas[name]

    def close(self):
        self._wire.close()

    def _read(self):
        with contextlib.suppress(OSError, ValueError):  # it is closed
            while True:
                packet = self._wire.packet()
                with self._changed:
                    try:
                        self._take(packet)
                    except Exception as error:
                        self.errors.append(error)
                    self._changed.notify_all()

    def _take(self, packet):
        if packet.startswith("43"):
            start = packet.index("[")
            number, (answer,) = int(packet[2:start]), json.loads(packet[start:])
            self._answers[number] = answer
            if (name := self._asked[number]) is not None:
                self.replicas[name] = Replica(name, answer)
        elif packet.startswith("42"):
            name, message = json.loads(packet[2:])
            if name == "relay_presence":
                self.replicas[message["destination"]].take(message)
            else:
                self.got.append((name, message))


def wait_until_at(replica, *ids, deadline=20):
    """Wait until a replica has exactly these members."""
    wanted = set(map(str, ids))
    wait_for(lambda: replica.ids == wanted, f"{sorted(wanted)} in place of {sorted(replica.ids)}", deadline)
