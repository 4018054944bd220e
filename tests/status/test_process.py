"""The process knows its memory, CPU and files."""

import os
import time

from conftest import wait_for

from pushrelay.status import process


def test_the_process_knows_what_it_uses():
    assert process.memory() > 5 << 20
    assert process.disk_free("/proc/self/no file") is not None and process.disk_free("relay.db") > 0
    assert process.cpu() > 0


def test_open_files_are_counted():
    wait_for(one_more_is_counted, "one file more")  # threads of earlier tests may close theirs in between
    assert process.files_limit() is None or process.files_limit() > process.open_files()


def one_more_is_counted():
    before = process.open_files()
    fd = os.open("/", os.O_RDONLY)
    after = process.open_files()
    os.close(fd)
    return after == before + 1


def test_time_passes():
    before = process.passing_time()
    time.sleep(0.01)
    assert 0.005 < process.passing_time() - before < 60
