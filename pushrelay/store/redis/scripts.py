"""The Lua scripts that Redis runs. Each is one transaction: nothing comes between its commands."""

import hashlib
from pathlib import Path

_FOLDER = Path(__file__).with_name("scripts")
_COMMON = (_FOLDER / "_common.lua").read_text()
_EVENTS = (_FOLDER / "_events.lua").read_text()
_MEMBERS = (_FOLDER / "_members.lua").read_text()


class Script:
    """One script, and the SHA-1 by which EVALSHA names it."""

    def __init__(self, name: str, before: str = "", **bodies: str):
        """Read the script `name`. `before` are functions that it needs besides the common ones.

        A comment `-- NAME --` in it is replaced by the script that `bodies` has for it.
        """
        self.name = name
        self.text = _COMMON + before + _read(name)
        for place, body in bodies.items():
            self.text = self.text.replace(f"-- {place} --", _read(body))
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


def _read(name: str) -> str:
    return (_FOLDER / f"{name}.lua").read_text()


BATCH = Script("batch")
MARKED = Script("marked", BATCH="batch")
MARK = Script("mark")
HELLO = Script("hello")
TIPS = Script("tips")
READ = Script("read")
HOLD = Script("hold")
ACK = Script("ack")
EXPECT = Script("expect")
HOLDERS = Script("holders", _EVENTS)
PRESENCE = Script("presence")
BEAT = Script("beat")
CLEAN = Script("clean", _EVENTS + _MEMBERS)
MEMBERS = Script("members", _EVENTS + _MEMBERS)
PEOPLE = Script("people")
HELD = Script("held")
ORDER = Script("order")
SWEEP = Script("sweep")

EVENTS_PUT = Script("events_put", _EVENTS)
EVENTS_READ = Script("events_read", _EVENTS)
EVENTS_STATE = Script("events_state", _EVENTS)
EVENTS_DONE = Script("events_done", _EVENTS)
EVENTS_READERS = Script("events_readers", _EVENTS)
LEASE = Script("lease", _EVENTS)
LEAVING = Script("leaving", _EVENTS)
WANT = Script("want", _EVENTS)
OF_EVENTS = (EVENTS_PUT, EVENTS_READ, EVENTS_STATE, EVENTS_DONE, EVENTS_READERS, LEASE, LEAVING, WANT)

ALL = (
    *(BATCH, MARKED, MARK, HELLO, TIPS, READ, HOLD, ACK, EXPECT, HOLDERS, PRESENCE, BEAT, CLEAN, ORDER, SWEEP),
    *(MEMBERS, PEOPLE, HELD),
    *OF_EVENTS,
)
