"""File descriptors: their shares, and the systems that have neither `resource` nor epoll."""

import subprocess
import sys

import pytest

from pushrelay.server.open_files import Files, file_limit, files_for, files_needed, raise_file_limit

ELSEWHERE = """
import select, sys
for name in list(vars(select)):
    if name.lower().startswith("epoll"):
        delattr(select, name)
sys.modules["resource"] = None  # importing it fails
import pushrelay.server, pushrelay.lifecycle, pushrelay.client.dialer, pushrelay.wsgi.werkzeug, pushrelay.core
"""


def test_the_server_can_be_imported_on_systems_without_epoll():
    assert subprocess.run([sys.executable, "-c", ELSEWHERE], capture_output=True, text=True).stderr == ""


@pytest.mark.parametrize("limit", [64, 256, 1024, 65536])
def test_connections_get_only_a_part_of_the_file_descriptors(limit):
    files = files_for(limit, 8)
    assert min(files) > 0 and sum(files) < limit


def test_the_descriptors_needed_for_clients_are_enough_for_them():
    needed = files_needed(10_000, 8)
    assert files_for(needed, 8).connections == 10_000
    assert files_for(needed - 1, 8).connections < 10_000


def test_small_limits_leave_most_descriptors_to_connections():
    assert files_for(48, 2) == Files(connections=23, spare=6, refused=3)


def test_the_limit_is_raised_as_far_as_the_system_allows():
    raise_file_limit()
    assert file_limit() > 0
