"""Long polling holds one GET, sends each packet by POST, and closes its session."""

import contextlib

import pytest

from pushrelay.client.address import address_of
from pushrelay.client.dialer import Dialer
from pushrelay.client.errors import ClientError
from pushrelay.client.polling import Polling


@pytest.fixture
def polled(serve):
    """A client, and the requests that its server received as (method, query, body); `answers` are those of GET."""
    received, answers = [], ["0a\x1e0b", "c"]

    def site(environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        received.append((environ["REQUEST_METHOD"], environ["QUERY_STRING"], body))
        is_get = environ["REQUEST_METHOD"] == "GET"
        start_response("200 OK" if not is_get or answers else "400 Bad Request", [("Content-Type", "text/plain")])
        return [(answers.pop(0) if answers else "over").encode() if is_get else b"ok"]

    dialer = Dialer(address_of(f"http://127.0.0.1:{serve(site).port}/"))
    return Polling(dialer, "socket.io/?transport=polling", {}), received


def test_a_get_brings_packets_and_its_failure_is_an_error_with_the_response(polled):
    client, received = polled
    assert client.receive(5) == ["0a", "0b"] and client.receive(5) == ["c"]
    with pytest.raises(ClientError, match="400 Bad Request") as raised:
        client.receive(5)
    assert raised.value.reply.body == b"over" and {method for method, *_ in received} == {"GET"}


def test_a_packet_is_the_body_of_a_post_and_closing_ends_the_session(polled):
    client, received = polled
    client.join("s1")
    client.send("4x")
    with contextlib.closing(client):
        pass
    assert received == [
        ("POST", "transport=polling&sid=s1", b"4x"),
        ("POST", "transport=polling&sid=s1", b"1"),
    ]
