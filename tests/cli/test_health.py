"""`python relay.py health` ends with 0 if the relay accepts pushes, and otherwise prints why it does not."""

import contextlib
import sqlite3

import pytest
from conftest import free_port, own_only, wait_for
from raw_http import answering
from terminal import run


def test_a_relay_that_accepts_pushes_is_healthy(relay):
    ran = run("health", f"--port={relay.port}")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "the relay accepts pushes\n", "")


@own_only
def test_the_relay_is_asked_at_its_unix_socket_and_below_its_base_path(start_relay, tmp_path):
    address = {"host": f"unix:{tmp_path}/relay.sock", "base_path": "/relay"}
    start_relay(**address)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in address.items()]
    assert run("health", *flags).returncode == 0
    assert run("health", flags[0]).returncode == 1


@own_only
def test_a_relay_whose_store_is_locked_is_not_healthy(start_relay):
    relay = start_relay()
    path = relay.settings["broker"].partition(":")[2]
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=20)) as other:
        other.execute("BEGIN IMMEDIATE")
        ran = wait_for(lambda: (ran := run("health", f"--port={relay.port}")).returncode and ran, "the refusal")
        assert ran.stdout == "" and "holds a lock on the store" in ran.stderr


def test_no_relay_is_not_healthy():
    ran = run("health", f"--port={free_port()}")
    assert (ran.returncode, ran.stdout) == (1, "") and "is the relay running?" in ran.stderr


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found"])
def test_the_answer_of_another_server_is_not_healthy(serve, status):
    client = serve(answering([b"hello"], status))
    ran = run("health", f"--url=http://127.0.0.1:{client.server.port}")
    assert (ran.returncode, ran.stdout) == (1, "") and "not from a relay" in ran.stderr
