"""The process at an address is found in /proc, with its limits and its command line."""

import os
import pathlib
import resource
import socket

from pushrelay.cli.doctor.process import commands, listener
from pushrelay.settings import Settings


def test_the_process_that_listens_at_a_port_is_found():
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = listener(Settings(port=server.getsockname()[1]))
    assert found.pid == os.getpid() and found.folder == pathlib.Path.cwd()
    assert found.command in commands() and dict(found.environ)["PATH"] == os.environ["PATH"]
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert found.file_limit == (None if soft == resource.RLIM_INFINITY else soft)


def test_the_process_that_listens_at_a_unix_socket_is_found(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "a.sock"))
        server.listen()
        assert listener(Settings(host=f"unix:{tmp_path}/a.sock")).pid == os.getpid()


def test_an_address_without_a_listener_has_no_process():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert listener(Settings(port=bound.getsockname()[1])) is None
