"""The sockets on which the server listens."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest
from clients import read_all
from conftest import DEADLINE, wait_for
from raw_http import GET, body_of, echo, request, shows, status_of

from pushrelay.server.server import Server
from pushrelay.server.sockets import SEND_BUFFER


def test_it_serves_on_ipv6(serve):
    server = Server(echo, "::1", 0)
    server.start()
    with socket.create_connection(("::1", server.port), DEADLINE) as sock:
        sock.send(request(*GET, "Connection: close"))
        assert status_of(read_all(sock)) == 200
    server.close()


def test_it_serves_on_a_unix_socket_and_replaces_a_dead_one(tmp_path):
    path = str(tmp_path / "relay.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    server = Server(shows(peer="REMOTE_ADDR"), f"unix:{path}")
    server.start()
    with pytest.raises(OSError):
        Server(echo, f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.send(request(*GET, "Connection: close"))
        assert json.loads(body_of(read_all(sock))) == {"peer": ""}
    server.close()
    assert not os.path.exists(path)


def test_it_serves_on_the_socket_that_systemd_passes():
    program = (
        "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid()); os.dup2(int(sys.argv[1]), 3)\n"
        "from pushrelay.server.server import Server\n"
        "def app(e, s): s('200 OK', []); return [b'from systemd']\n"
        "Server(app).serve_forever()"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(listener.fileno())],
            pass_fds=[listener.fileno()],
            env=os.environ | {"LISTEN_FDS": "1", "PYTHONPATH": os.getcwd()},
        )
        try:
            with socket.create_connection(listener.getsockname(), DEADLINE) as sock:
                sock.send(request(*GET, "Connection: close"))
                assert body_of(read_all(sock)) == b"from systemd"
        finally:
            child.kill()
            child.wait()


def test_an_address_in_use_raises_oserror(serve):
    with pytest.raises(OSError):
        Server(echo, "127.0.0.1", serve(echo).port)


def test_the_kernels_buffer_for_a_client_is_bounded(serve):
    client = serve(lambda environ, start_response: [])
    server = client.server
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        wait_for(lambda: server._connections, "the connection")
        connection = next(iter(server._connections))
        assert connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * SEND_BUFFER
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        written = 0
        while written < 8 << 20:
            connection.write(b"x" * 65536)
            written += 65536
        end = time.monotonic() + 1
        while time.monotonic() < end:
            time.sleep(0.05)
            taken = written - connection.backlog
        # The server's buffer, and the reader's, which grew before its size was set.
        assert taken < 2 * SEND_BUFFER + 512 * 1024
