"""Three relays whose Redis, network and processes fail all the time lose nothing that they answered: see chaos.py.

By hand, longer and with other seeds: python tests/chaos.py --seconds 300 --seed 7 --scenario everysec. The scenarios
with failovers run by hand only, because Sentinels sometimes change their minds for half a minute. There are single
failovers in test_redis_losses.py.
"""

import subprocess
import sys

import pytest
from conftest import ROOT, clean_environ
from measures import report

pytestmark = pytest.mark.timed


def chaos(*arguments):
    command = [sys.executable, str(ROOT / "tests/chaos.py"), *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240, env=clean_environ())
    report(ran.stdout)
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-3000:]


def test_nothing_that_was_answered_is_lost_or_repeated():
    chaos("--scenario=always", "--seconds=12", "--incidents=10", "--pushes=20000")
