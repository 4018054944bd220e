"""The Lua scripts that Redis runs. Each is one transaction: nothing comes between its commands."""

import hashlib
from pathlib import Path

_FOLDER = Path(__file__).with_name("scripts")
_COMMON = (_FOLDER / "_common.lua").read_text()


class Script:
    """One script, and the SHA-1 by which EVALSHA names it."""

    def __init__(self, name: str, **bodies: str):
        """Read the script `name`. A comment `-- NAME --` in it is replaced by the script that `bodies` has for it."""
        self.name = name
        self.text = _COMMON + _read(name)
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
HOLDERS = Script("holders")
PRESENCE = Script("presence")
BEAT = Script("beat")
CLEAN = Script("clean")
ORDER = Script("order")
SWEEP = Script("sweep")

ALL = (BATCH, MARKED, MARK, HELLO, TIPS, READ, HOLD, ACK, EXPECT, HOLDERS, PRESENCE, BEAT, CLEAN, ORDER, SWEEP)
