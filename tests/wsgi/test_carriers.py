"""Which carrier a request gets."""

import socket

from pushrelay.server.poller import Poller
from pushrelay.wsgi.blocking import UNKNOWN_THREADS, BlockingCarrier
from pushrelay.wsgi.carriers import carrier_of
from pushrelay.wsgi.hijack import HijackedConnection

GET = {"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1"}


def test_a_connection_is_taken_if_the_server_hands_its_socket_on():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        environ = {**GET, "gunicorn.socket": ours}
        carrier = carrier_of(environ, Poller())
        assert isinstance(carrier, HijackedConnection) and carrier.websockets and carrier.threads is None
        posting = carrier_of({**environ, "REQUEST_METHOD": "POST"}, Poller())
        assert isinstance(posting, BlockingCarrier), "its body is still with the server"


def test_any_other_client_holds_a_thread():
    carrier = carrier_of(dict(GET), Poller())
    assert isinstance(carrier, BlockingCarrier)
    assert (carrier.websockets, carrier.threads) == (False, UNKNOWN_THREADS)
