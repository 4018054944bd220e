"""A relay that may repeat a line of its log after MINUTE seconds, not 60: `python tests/hasty_relay.py FLAGS`."""

import os
import pathlib
import runpy
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pushrelay.log import limiter  # noqa: E402

limiter.EVERY_SECONDS = float(os.environ["MINUTE"])
sys.argv[0] = str(ROOT / "relay.py")
runpy.run_path(sys.argv[0], run_name="__main__")
