"""Every way in which a connection can fail becomes one kind of error, with a text for people."""

import http.client

import pytest
from wsproto.utilities import RemoteProtocolError

from pushrelay.client.errors import ClientError, ClientTimeout, client_errors


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TimeoutError(), "no answer within 3 s"),
        (ConnectionRefusedError(), "nothing listens there"),
        (ConnectionResetError(), "closed without an answer"),
        (http.client.RemoteDisconnected(), "closed without an answer"),
        (http.client.BadStatusLine("x"), "not HTTP"),
        (RemoteProtocolError("x"), "WebSocket"),
        (UnicodeError(), "no host of this name"),
        (OSError(113, "No route to host"), "No route to host"),
    ],
)
def test_an_error_of_a_connection_has_a_text_for_people(error, text):
    with pytest.raises(ClientError, match=text) as raised, client_errors(3):
        raise error
    assert isinstance(raised.value, ClientTimeout) == isinstance(error, TimeoutError)
    assert raised.value.reply is None and raised.value.__suppress_context__


def test_a_mistake_of_the_program_is_not_disguised():
    with pytest.raises(KeyError), client_errors(3):
        raise KeyError
