"""The process knows its memory, CPU and files."""

import os
import time

from pushrelay.status import process


def test_the_process_knows_what_it_uses():
    assert process.memory() > 5 << 20
    assert process.disk_free("/proc/self/no file") is not None and process.disk_free("relay.db") > 0
    assert process.cpu() > 0


def test_open_files_are_counted():
    before = process.open_files()
    fd = os.open("/", os.O_RDONLY)
    assert process.open_files() == before + 1
    os.close(fd)
    assert process.files_limit() is None or process.files_limit() > before


def test_time_passes():
    before = process.passing_time()
    time.sleep(0.01)
    assert 0.005 < process.passing_time() - before < 60
