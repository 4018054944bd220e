"""A relay whose wall clock a test moves: `python tests/clocked_relay.py FLAGS`.

The file `ahead` in its working directory holds the seconds by which its clock is ahead.
conftest.ClockedRelay writes the file.
"""

import pathlib
import runpy
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
AHEAD = pathlib.Path("ahead").absolute()
real = time.time


def clock():
    try:
        return real() + float(AHEAD.read_text())
    except FileNotFoundError:
        return real()


time.time = clock
sys.argv[0] = str(ROOT / "relay.py")
runpy.run_path(sys.argv[0], run_name="__main__")
