"""The environ that is kept of a handshake, and the query of a request."""

from pushrelay.engine import environ
from pushrelay.server.conversation import KEY


def test_the_connection_and_the_headers_of_the_handshake_itself_are_not_kept():
    kept = environ.trimmed(
        {KEY: object(), "HTTP_UPGRADE": "websocket", "HTTP_COOKIE": "a=b", "REMOTE_ADDR": "192.0.2.1"}
    )
    assert kept.pop("wsgi.input").read() == b""
    assert kept == {"HTTP_COOKIE": "a=b", "REMOTE_ADDR": "192.0.2.1"}


def test_the_first_value_of_a_parameter_counts():
    assert environ.read_query("EIO=4&EIO=3&transport=polling&t=") == {"EIO": "4", "transport": "polling", "t": ""}
    assert environ.read_query("transport=polling&sid=x&sid=y")["sid"] == "x"
