"""The memory of all outboxes together."""

import socket
import threading

import pytest
from conftest import DEADLINE, wait_for

from pushrelay.server.connection import Connection
from pushrelay.server.outboxes import Outboxes
from pushrelay.server.poller import Poller


class Calls(list):
    """Calls that are due soon."""

    def run(self):
        while self:
            self.pop(0)()


class Client:
    """A client with data in its outbox."""

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


def test_an_empty_write_after_others_occupies_no_thread(pair):
    """A WebSocket that is closed twice writes an empty close frame, and the kernel takes 0 bytes of it each time."""
    connection, far = pair
    connection.write(b"x" * 1_000_000)
    connection.write(b"")
    read_all(far, 1_000_000)
    done = threading.Event()
    threading.Thread(target=lambda: (connection.write(b"z"), done.set()), daemon=True).start()
    assert done.wait(DEADLINE) and far.recv(10) == b"z"
