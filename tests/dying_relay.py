"""A relay that kills itself within the transaction of the first large batch: `python tests/dying_relay.py FLAGS`.

The file `die` in its working directory names the moment: "while it is stored", "before the commit" or "after the
commit". The relay removes the file before it dies, so that it can start again.
"""

import os
import pathlib
import runpy
import signal
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pushrelay.store.local_broker import LocalBroker  # noqa: E402
from pushrelay.store.sqlite import SQLiteStore  # noqa: E402

LARGE = 100  # publications in one transaction
MOMENT = pathlib.Path("die")
moment = MOMENT.read_text() if MOMENT.exists() else ""
place, commit = LocalBroker._place, SQLiteStore._commit


def die():
    MOMENT.unlink()
    os.kill(os.getpid(), signal.SIGKILL)


def place_and_die(broker, *args):
    place(broker, *args)
    if moment == "while it is stored" and len(broker._placed) == LARGE:
        die()


def commit_and_die(store):
    if moment == "before the commit" and len(store._appended) > LARGE:
        die()
    commit(store)
    if moment == "after the commit" and len(store._appended) > LARGE:
        die()


LocalBroker._place, SQLiteStore._commit = place_and_die, commit_and_die
sys.argv[0] = str(ROOT / "relay.py")
runpy.run_path(sys.argv[0], run_name="__main__")
