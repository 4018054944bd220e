"""Committed rows are pushed once and in order while the relay and the database are killed: see outbox_chaos.py.

For relays that share a Redis, see whole/test_backend_nodes.py.
"""

import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, clean_environ, need

pytestmark = pytest.mark.timed


def test_what_is_committed_is_pushed_once_and_in_order_whatever_is_killed():
    need(shutil.which("php"), "PHP (apt-get install php-cli php-mysql)")
    command = [sys.executable, str(ROOT / "tests/outbox_chaos.py"), "--workers=4", "--seconds=2"]
    command += ["--relay-kills=1", "--database-kills=1", "--lock=0.5"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240, env=clean_environ())
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-3000:]
