"""One TCP connection: its outbox, its owner, its end."""

import socket
import threading
import time

from conftest import DEADLINE, wait_for
from measures import open_fds

from pushrelay.server.connection import NO_RECEIVER, Connection
from pushrelay.server.poller import Poller


class Echo:
    """A receiver that sends back what it gets."""

    def __init__(self, connection):
        self.connection, self.ends = connection, []

    def received(self, data):
        self.connection.write(data)

    def ended(self):
        self.connection.finish()

    def proceed(self):
        pass

    def lost(self, reason):
        self.ends.append(reason)


def connection(poller):
    near, far = socket.socketpair()
    near.setblocking(False)
    far.settimeout(10)
    made = Connection(poller, near)
    made.receiver = Echo(made)
    poller.run_soon(made)
    return made, far


def test_a_connection_answers_and_ends_with_the_other_side(poller):
    made, far = connection(poller)
    far.send(b"hello")
    assert far.recv(100) == b"hello"
    far.close()
    wait_for(lambda: made.receiver is NO_RECEIVER)
    wait_for(lambda: made.sock.fileno() == -1)


def test_data_that_the_kernel_does_not_take_arrives_later_whole_and_in_order(poller):
    made, far = connection(poller)
    sent = [bytes([number]) * 100_000 for number in range(20)]
    for each in sent:
        assert made.write(each)
    assert made.backlog
    made.finish()
    got = b""
    while piece := far.recv(65536):
        got += piece
    assert got == b"".join(sent)


def test_an_outbox_over_its_limit_ends_the_connection_as_slow(poller):
    made, _far = connection(poller)
    echo = made.receiver
    while made.write(b"x" * 100_000, limit=300_000):
        assert made.backlog <= 400_000
    wait_for(lambda: echo.ends == ["slow"])
    assert not made.write(b"more")


def test_a_reused_file_descriptor_never_brings_bytes_of_another_connection(poller):
    """Other threads abort connections in use; each client must get its own answer only."""
    stop, wrong = time.monotonic() + 1.0, []

    def come_and_go(number):
        mark = f"<{number}>".encode()
        while time.monotonic() < stop:
            made, far = connection(poller)
            far.send(mark)
            threading.Thread(target=made.abort, args=("done",)).start()
            try:
                data = far.recv(100)
            except OSError:
                data = b""
            if data not in (mark, b""):
                wrong.append(data)
            far.close()

    threads = [threading.Thread(target=come_and_go, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_closing_the_poller_closes_every_file_descriptor():
    descriptors = open_fds()
    poller = Poller()
    poller.start()
    made, far = connection(poller)
    far.close()
    wait_for(lambda: made.sock.fileno() == -1)
    poller.close()
    assert open_fds() <= descriptors


class Recorder(Echo):
    """A receiver that keeps what it gets, waits for a gate in each turn, and may leave its work for another turn."""

    def __init__(self, connection):
        super().__init__(connection)
        self.got, self.resumed, self.leave_it = b"", 0, None
        self.gate = threading.Event()
        self.gate.set()

    def received(self, data):
        self.got += data
        self.gate.wait(DEADLINE)
        if self.leave_it:
            self.leave_it()

    def resume(self):
        self.resumed += 1


def recorder(poller):
    """Return a recorder whose connection is watched already, and the other end."""
    made, far = connection(poller)
    far.send(b"hello")
    assert far.recv(100) == b"hello"
    made.receiver = Recorder(made)
    return made.receiver, far


def test_the_end_that_comes_with_the_last_data_is_noticed(poller, monkeypatch):
    monkeypatch.setattr("pushrelay.server.poller.TICK", DEADLINE)
    monkeypatch.setattr("pushrelay.server.poller.BUSY_TICK", DEADLINE)
    last, far = recorder(poller)
    sent, waits = threading.Event(), threading.Event()
    poller.call_later(0, lambda: (waits.set(), sent.wait(DEADLINE)))
    assert waits.wait(DEADLINE)  # the poller does not look before both are there
    far.send(b"last")
    far.shutdown(socket.SHUT_WR)
    sent.set()
    wait_for(lambda: last.ends == ["finished"])
    assert last.got == b"last"


def test_data_that_comes_while_a_thread_handles_the_connection_is_read_afterwards(poller):
    busy, far = recorder(poller)
    busy.gate.clear()
    far.send(b"1")
    wait_for(lambda: busy.got == b"1")
    far.send(b"2")
    _other, other_far = recorder(poller)  # by now another thread has seen the event
    busy.gate.set()
    wait_for(lambda: busy.got == b"12")
    far.close()
    wait_for(lambda: busy.ends)
    other_far.close()


def test_data_that_came_while_reading_was_stopped_is_read_when_it_resumes(poller):
    stopped, far = recorder(poller)
    stopped.connection.set_reading(False)
    far.send(b"x" * 100_000)
    recorder(poller)  # whatever there was to see, the poller has seen
    assert not stopped.got
    stopped.connection.set_reading(True)
    wait_for(lambda: len(stopped.got) == 100_000)  # more than one read takes


def test_work_that_may_block_waits_for_a_free_thread_whatever_else_arrives():
    poller, free, held = Poller(threads=2), threading.Event(), threading.Event()
    poller.start()
    try:
        late, far = recorder(poller)
        late.leave_it = lambda: late.connection.yield_turn(may_block=True)
        poller.call_later(0, lambda: (held.set(), free.wait(DEADLINE)))
        assert held.wait(DEADLINE)
        wait_for(poller.is_short)
        for _ in range(3):
            far.send(b"x")
            recorder(poller)
        first = bytes(late.got)  # one read may take several
        assert b"xxx".startswith(first) and first and not late.resumed
        late.leave_it = None
        free.set()
        wait_for(lambda: late.got == b"xxx" and late.resumed)
        assert late.resumed == 1
    finally:
        free.set()
        poller.close()


class Silent:
    """A receiver that does nothing."""

    def nothing(self, *args):
        pass

    received = resume = ended = proceed = lost = expired = nothing


def test_nothing_is_written_after_the_end(poller):
    near, far = socket.socketpair()
    near.setblocking(False)
    connection = Connection(poller, near)
    connection.receiver = Silent()
    poller.run_soon(connection)
    while connection.backlog == 0:
        connection.write(b"x" * 100_000)
    connection.finish()
    assert connection.write(b"behind the end") is False
    far.settimeout(DEADLINE)
    assert b"end" not in b"".join(iter(lambda: far.recv(1 << 20), b""))
    far.close()
