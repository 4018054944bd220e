"""The proxy that other tests break does to connections what its commands say."""

import socket
import threading
import time

import pytest
from conftest import DEADLINE, wait_for
from tcp_proxy import DOWN, UP, TcpProxy

SHORT = 0.3  # seconds after which nothing has come


@pytest.fixture
def echo():
    """A port at which each connection gets back what it sends."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(sock):
        with sock:
            try:
                while data := sock.recv(65536):
                    sock.sendall(data)
            except OSError:
                pass

    def accept():
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(sock,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def proxy(echo):
    with TcpProxy(echo) as proxy:
        yield proxy


@pytest.fixture
def client(proxy):
    with socket.create_connection(("127.0.0.1", proxy.port), DEADLINE) as client:
        assert ask(client, b"hello") == b"hello"
        yield client


def ask(sock, data):
    """Return what comes back; b"" at the end of the connection, None if nothing comes."""
    sock.sendall(data)
    return come(sock, DEADLINE, len(data))


def come(sock, seconds, count=1):
    sock.settimeout(seconds)
    got = b""
    try:
        while len(got) < count and (piece := sock.recv(65536)):
            got += piece
    except TimeoutError:
        return got or None
    return got


def test_large_data_passes(client):
    data = b"x" * (8 << 20)
    threading.Thread(target=client.sendall, args=(data,), daemon=True).start()
    assert come(client, DEADLINE, len(data)) == data


def test_the_end_of_one_direction_passes(client):
    client.shutdown(socket.SHUT_WR)
    assert come(client, DEADLINE) == b""


def test_delayed_data_comes_later(proxy, client):
    proxy.delay(0.2)
    begin = time.monotonic()
    assert ask(client, b"later") == b"later"
    assert time.monotonic() - begin >= 0.4  # both directions


def test_a_stalled_connection_goes_on(proxy, client):
    proxy.stall()
    client.sendall(b"kept")
    assert come(client, SHORT) is None
    with socket.create_connection(("127.0.0.1", proxy.port), DEADLINE) as newcomer:
        newcomer.sendall(b"new")
        assert come(newcomer, SHORT) is None
        proxy.allow()
        assert come(client, DEADLINE, 4) == b"kept" and come(newcomer, DEADLINE, 3) == b"new"


@pytest.mark.parametrize("direction", [UP, DOWN])
def test_a_connection_ends_when_its_bytes_have_passed(proxy, client, direction):
    proxy.cut_after(direction, 7)
    assert ask(client, b"12345") == b"12345"
    client.sendall(b"67890")
    assert come(client, DEADLINE, 5) in ([b"67"] if direction == DOWN else [b"67", b""])  # echoed, or already ended
    with socket.create_connection(("127.0.0.1", proxy.port), DEADLINE) as newcomer:
        assert ask(newcomer, b"as before") == b"as before"


@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_connection_ends(proxy, client, reset):
    proxy.cut(reset=reset)
    client.settimeout(DEADLINE)
    if reset:
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    else:
        assert client.recv(1) == b""
    assert proxy.connections() == 0
    with socket.create_connection(("127.0.0.1", proxy.port), DEADLINE) as newcomer:
        assert ask(newcomer, b"again") == b"again"


@pytest.mark.parametrize("direction", [UP, DOWN])
def test_a_half_open_connection_is_silent_and_stays(proxy, client, direction):
    proxy.half_open(direction)
    client.sendall(b"lost")
    assert come(client, SHORT) is None
    proxy.allow()
    client.sendall(b"lost, too")
    assert come(client, SHORT) is None and proxy.connections() == 1
    with socket.create_connection(("127.0.0.1", proxy.port), DEADLINE) as newcomer:
        assert ask(newcomer, b"new") == b"new"


def test_refused_connections_leave_the_others_alone(proxy, client):
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port), DEADLINE)
    assert ask(client, b"still") == b"still"
    proxy.allow()
    with socket.create_connection(("127.0.0.1", proxy.port), DEADLINE) as newcomer:
        assert ask(newcomer, b"again") == b"again"


def test_a_client_of_a_server_that_is_gone_is_disconnected(proxy):
    proxy.target = 1  # nobody listens there
    with pytest.raises(ConnectionResetError), socket.create_connection(("127.0.0.1", proxy.port), DEADLINE) as client:
        client.settimeout(DEADLINE)
        client.recv(1)
    wait_for(lambda: proxy.connections() == 0, "the end of the connection")
