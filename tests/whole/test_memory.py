"""What clients that do not read cost: the kernel's part, one client's, and that of all together."""

import contextlib
import pathlib
import resource
import socket
import threading
import time

import pytest
from clients import Wire, open_websocket
from conftest import DEADLINE, own_only, wait_for

from pushrelay.engine.engine import Engine
from pushrelay.engine.packet import EncodedPacket
from pushrelay.engine.session import Session
from pushrelay.server.connection import Connection
from pushrelay.server.outboxes import Outboxes
from pushrelay.server.poller import Poller
from pushrelay.server.sockets import SEND_BUFFER
from pushrelay.settings import Settings, SettingsError


class Calls(list):
    """Keeps what is to be called soon."""

    def run(self):
        while self:
            self.pop(0)()


class Client:
    """Somebody for whom something waits."""

    def __init__(self, backlog=0):
        self.backlog = backlog
        self.is_gone = False

    def give_up(self):
        self.is_gone = True


def made(limit):
    calls = Calls()
    outboxes = Outboxes(calls.append)
    outboxes.limit = limit
    return outboxes, calls


# The sum.


def test_one_byte_over_the_limit_of_all_outboxes_closes_the_slowest_client():
    outboxes, calls = made(1000)
    small, large = Client(300), Client(700)
    outboxes.add(large, "l", 700)
    outboxes.add(small, "s", 300)
    calls.run()
    assert not small.is_gone and not large.is_gone
    outboxes.add(small, "more", 1)
    calls.run()
    assert large.is_gone and not small.is_gone


def test_a_message_for_many_clients_counts_once_until_the_last_one_has_it():
    outboxes, calls = made(1000)
    clients, message = [Client(600) for _ in range(50)], "shared"
    for client in clients:
        outboxes.add(client, message, 600)
    assert outboxes.bytes == 600
    for client in clients[1:]:
        outboxes.remove(client, [message], True)
    assert outboxes.bytes == 600
    outboxes.remove(clients[0], [message], True)
    assert outboxes.bytes == 0 and not outboxes._held and not outboxes._consumers
    calls.run()
    assert not any(client.is_gone for client in clients)


@pytest.fixture
def pair():
    poller = Poller(4)
    poller.start()
    near, far = socket.socketpair()
    near.setblocking(False)
    connection = Connection(poller, near)

    class Receiver:
        received = ended = proceed = lost = lambda *_: None

    connection.receiver = Receiver()
    connection.run_soon()
    yield connection, far
    far.close()
    poller.close()


def read_all(far, size):
    far.settimeout(DEADLINE)
    got = 0
    while got < size:
        got += len(far.recv(1 << 20))


def test_bytes_that_were_sent_or_dropped_no_longer_count(pair):
    connection, far = pair
    outboxes, data = connection.poller.outboxes, b"x" * 300_000
    for _ in range(5):
        connection.write(data)
    assert outboxes.bytes == 300_000 < connection.backlog
    read_all(far, 5 * 300_000)
    wait_for(lambda: outboxes.bytes == 0, "the end of what waited")
    for _ in range(5):
        connection.write(bytes(data[:-1] + b"y"))
    assert outboxes.bytes > 0
    connection.abort("transport close")
    wait_for(lambda: outboxes.bytes == 0, "the end of what waited for a connection that was closed")
    assert not outboxes._held and not outboxes._consumers


def test_an_empty_write_behind_others_occupies_no_thread(pair):
    """A WebSocket that is closed twice writes an empty close frame, and the kernel takes 0 bytes of it each time."""
    connection, far = pair
    connection.write(b"x" * 1_000_000)
    connection.write(b"")
    read_all(far, 1_000_000)
    done = threading.Event()
    threading.Thread(target=lambda: (connection.write(b"z"), done.set()), daemon=True).start()
    assert done.wait(DEADLINE) and far.recv(10) == b"z"


def test_packets_for_a_polling_client_count_until_it_has_them_or_is_gone():
    engine = Engine()
    engine.start(None)
    try:
        for end in ("poll", "close", "crowd"):
            session = Session(engine, end)
            for _ in range(3):
                session.send(EncodedPacket("4" + "x" * 100_000))
            assert engine.outboxes.bytes == 6 * 100_011
            if end == "poll":
                assert len(session.poll(lambda: None)) == 3
            elif end == "close":
                session.close(reason="server disconnect")
            else:
                for _ in range(12):
                    session.send(EncodedPacket("4" + "x" * 100_000))
            assert engine.outboxes.bytes == 0 and not engine.outboxes._consumers
    finally:
        engine.shutdown()


def test_contradicting_bounds_stop_the_start():
    assert Settings(max_outboxes=2_048_576, max_outbox=1 << 20, max_body=1_000_000)
    with pytest.raises(SettingsError, match="max_outboxes"):
        Settings(max_outboxes=2_048_575, max_outbox=1 << 20, max_body=1_000_000)


def rss(relay):
    pages = int(pathlib.Path(f"/proc/{relay.process.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@own_only
def test_clients_that_read_nothing_stay_below_max_outboxes_and_others_stay_connected(start_relay):
    megabyte = 1 << 20
    relay = start_relay(max_outboxes=8 * megabyte)
    reading = Wire(relay.port)
    reading.call("register", {"id": "reads"})
    before = rss(relay)
    with contextlib.ExitStack() as opened:
        for number in range(40):
            opened.enter_context(open_websocket(relay.port, f"deaf-{number}", buffer=4096))
        for turn in range(8):
            for number in range(40):
                relay.push(f"deaf-{number}", f"{turn}" + "x" * 150_000)
            assert relay.push("reads", turn)["connections"] == 1
            assert rss(relay) - before < 8 * megabyte + 24 * megabyte, "40 of them could have 40 MiB waiting"
        assert [message["data"] for message in reading.events(8)] == [str(turn) for turn in range(8)]
        left = sum(relay.push(f"deaf-{number}", "x")["connections"] for number in range(40))
        assert left < 40, "some were closed"


# The kernel.


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
        # Its own buffer, and that of the reader, which grew before it was told not to.
        assert taken < 2 * SEND_BUFFER + 512 * 1024
