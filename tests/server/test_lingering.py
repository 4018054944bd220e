"""The lingering close after an error."""

import pytest
from clients import read_all
from conftest import wait_for
from raw_http import POST, echo, receivers, request, status_of

from pushrelay.server import lingering as lingering_module
from pushrelay.server.lingering import LingeringClose
from pushrelay.server.request import Limits


@pytest.mark.parametrize(("extra", "is_closed"), [(0, False), (1, True)], ids=["the limit", "one more"])
def test_after_an_error_the_server_reads_at_most_the_limit(serve, monkeypatch, extra, is_closed):
    monkeypatch.setattr(lingering_module, "LINGER_BYTES", 100_000)
    monkeypatch.setattr(lingering_module, "LINGER_SECONDS", 60.0)
    client = serve(echo)
    sock = client.connect()
    sock.sendall(request("NOT HTTP"))
    wait_for(lambda: receivers(client, LingeringClose), "the refusal")
    [lingering] = receivers(client, LingeringClose)
    sock.sendall(b"x" * (lingering._left + extra))
    if is_closed:
        wait_for(lambda: not receivers(client, LingeringClose), "the end of the connection")
    else:
        wait_for(lambda: lingering._left == 0, "all to be read")
        assert receivers(client, LingeringClose), "it may still read the answer"


@pytest.mark.parametrize("framing", ["Content-Length: 3000000", "Transfer-Encoding: chunked"])
def test_a_client_that_sends_a_body_over_the_limit_still_receives_the_response(serve, framing):
    sock = serve(echo, limits=Limits(max_body=1000)).connect()
    chunk = b"2DC6C0\r\n" if "chunked" in framing else b""
    sock.sendall(request(*POST, framing, body=chunk + b"x" * 3_000_000))
    assert status_of(read_all(sock)) == 413
