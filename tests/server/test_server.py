"""The server: threads, the access log, and its end."""

import gc
import logging
import re
import socket
import threading

from clients import read_all
from conftest import DEADLINE, wait_for
from measures import open_fds
from raw_http import GET, echo, request, status_of

from pushrelay.server.path_times import KNOWN_PATHS
from pushrelay.server.server import Server


def test_other_requests_are_answered_while_30_handlers_wait(serve):
    gate, waiting = threading.Event(), []

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/wait":
            waiting.append(1)
            gate.wait(2 * DEADLINE)
        return echo(environ, start_response)

    client = serve(app, threads=16)
    assert client.request("GET", "/quick")[0] == 200  # it is known to be quick from now on
    others = [client.connect() for _ in range(30)]
    for sock in others:
        sock.send(request("GET /wait HTTP/1.1", "Host: x", "Connection: close"))
    wait_for(lambda: len(waiting) == 15, "all threads but one to wait")
    for _ in range(200):
        assert client.request("GET", "/quick")[0] == 200
    assert len(waiting) == 15 and client.server.poller.thread_count() <= 16
    gate.set()
    assert all(read_all(sock).endswith(b"/wait? ") for sock in others)


def test_the_last_free_thread_answers_pushes_whatever_paths_visitors_request(serve):
    gate = threading.Event()

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/block":
            gate.wait(2 * DEADLINE)
        return echo(environ, start_response)

    client = serve(app, threads=3, share_of=lambda environ: None if environ["REQUEST_METHOD"] == "POST" else "visitor")
    assert client.request("POST", "/push", b"data")[0] == 200
    for n in range(KNOWN_PATHS):
        client.request("GET", f"/{n}")
    blocked = [client.connect() for _ in range(3)]
    try:
        for sock in blocked:
            sock.send(request("GET /block HTTP/1.1", "Host: x"))
        wait_for(client.server.poller.is_short)
        pushing = client.connect()
        pushing.send(request("POST /push HTTP/1.1", "Host: y", "Content-Length: 4", body=b"data"))
        assert status_of(pushing.recv(1000)) == 200
    finally:
        gate.set()


def test_the_access_log_has_a_line_for_each_request(serve, caplog):
    with caplog.at_level(logging.INFO, "pushrelay.access_log"):
        serve(echo, access_log=True).request("GET", "/p?q=secret")
        serve(echo).request("GET", "/silent")

    def lines():  # only this logger's: clients of other tests may still be closing
        return [record.getMessage() for record in caplog.records if record.name == "pushrelay.access_log"]

    wait_for(lines, "the line, which follows the answer")
    assert len(lines()) == 1
    assert re.fullmatch(r'127\.0\.0\.1 - "GET /p\?q=\\u2026 HTTP/1.1" 200 \d+ \d+\.\dms', lines()[0]), lines()


def test_closing_ends_serve_forever_and_frees_everything():
    threads, descriptors = threading.active_count(), open_fds()
    server = Server(echo, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as sock:
        sock.send(request(*GET))
        assert status_of(sock.recv(1000)) == 200
        server.close()
        assert sock.recv(1000) == b""
    thread.join(DEADLINE)
    wait_for(lambda: threading.active_count() <= threads)
    assert open_fds() <= descriptors  # not ==: an earlier test may still be closing some


def test_connections_that_come_and_go_leave_nothing_behind(serve):
    client = serve(echo)
    client.request("GET", "/")
    descriptors = wait_for(lambda: not client.server._connections and open_fds())
    for _ in range(300):
        client.connect().close()
    client.close()
    wait_for(lambda: not client.server._connections and open_fds() <= descriptors)


def test_finalizers_that_run_at_the_start_cannot_swallow_a_signal():
    threads = []

    class Cycle:
        def __init__(self):
            self.itself = self

        def __del__(self):  # Python drops an exception in here, also the SystemExit of a signal handler
            threads.append(threading.current_thread())

    server = Server(echo, "127.0.0.1", 0)
    gc.disable()  # or this thread might collect it before the server starts
    Cycle()
    threshold = gc.get_threshold()
    threading.Timer(0.2, server.close).start()
    try:
        server.serve_forever()
    finally:
        gc.enable()
        gc.unfreeze()
        gc.set_threshold(*threshold)
    assert threads and threading.main_thread() not in threads
