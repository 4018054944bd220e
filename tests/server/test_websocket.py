"""RFC 6455: bytes in, messages and bytes out."""

import pytest
from clients import masked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pushrelay.server import websocket as ws
from pushrelay.server.websocket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, WebSocket

LIMIT = 100_000
steady = settings(deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])


def received(data, limit=LIMIT):
    socket = WebSocket(limit)
    return socket.receive(data), socket


def code_of(frame):
    assert frame[0] == 0x80 | CLOSE
    return int.from_bytes(frame[2:4], "big")


def test_the_accept_header_is_the_one_of_the_rfcs_example():
    assert ws.accept_key("dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize("key", ["", "abc", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ==\n", "ä" * 24])
def test_a_key_that_is_not_16_bytes_is_rejected(key):
    with pytest.raises(ws.HandshakeError):
        ws.accept_key(key)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"HTTP_CONNECTION": "keep-alive"}, "400"),
        ({"HTTP_UPGRADE": "h2c"}, "400"),
        ({"REQUEST_METHOD": "POST"}, "400"),
        ({"HTTP_SEC_WEBSOCKET_VERSION": "8"}, "426"),
        ({"SERVER_PROTOCOL": "HTTP/1.0"}, "400"),
        ({"CONTENT_LENGTH": "8"}, "400"),
    ],
)
def test_an_invalid_handshake_is_rejected(change, status):
    environ = {
        "REQUEST_METHOD": "GET",
        "HTTP_CONNECTION": "keep-alive, Upgrade",
        "HTTP_UPGRADE": "WebSocket",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    assert ws.handshake(environ).startswith(b"HTTP/1.1 101 ")
    with pytest.raises(ws.HandshakeError) as refused:
        ws.handshake(environ | change)
    assert refused.value.status.startswith(status)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_messages_of_all_lengths_arrive(size):
    assert received(masked(BINARY, b"x" * size))[0] == [b"x" * size]
    assert received(masked(TEXT, b"x" * size))[0] == ["x" * size]
    assert ws.frame(BINARY, b"x" * size)[-size or 99 :] == b"x" * size


@steady
@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_unmasking_twice_restores_the_bytes(payload, mask):
    assert ws.unmask(ws.unmask(payload, mask), mask) == payload
    assert ws.unmask(payload, mask) == bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


@steady
@given(st.lists(st.one_of(st.text(max_size=200), st.binary(max_size=200)), max_size=5), st.data())
def test_messages_arrive_however_the_bytes_are_split(messages, data):
    stream = b"".join(masked(TEXT, m.encode()) if isinstance(m, str) else masked(BINARY, m) for m in messages)
    socket, got = WebSocket(LIMIT), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        got += socket.receive(stream[:cut])
        stream = stream[cut:]
    assert got == messages


@steady
@given(st.binary(max_size=200))
def test_no_bytes_raise_an_unexpected_exception(data):
    messages, socket = received(data)
    assert all(isinstance(message, str | bytes) for message in messages)
    assert len(socket._buffer) <= 139


def test_control_frames_are_answered_between_fragments():
    data = masked(TEXT, b"Hel", final=False) + masked(PING, b"here?") + masked(CONTINUATION, b"lo")
    messages, socket = received(data)
    assert messages == ["Hello"]
    assert socket.take_output() == ws.frame(PONG, b"here?")
    assert socket.take_output() == b""


@pytest.mark.parametrize(
    "data",
    [
        ws.text_frame("not masked"),
        bytes([masked(TEXT, b"x")[0] | 0x40]) + masked(TEXT, b"x")[1:],
        masked(0x3, b""),
        masked(0xB, b""),
        masked(PING, b"", final=False),
        masked(PING, b"x" * 126),
        masked(CONTINUATION, b"x"),
        masked(TEXT, b"x", final=False) + masked(TEXT, b"y"),
        b"\x81\xfe\x00\x05" + b"\0" * 9,
        b"\x81\xff" + (200).to_bytes(8, "big"),
        masked(CLOSE, b"x"),
    ],
)
def test_frames_that_break_the_protocol_close_with_1002(data):
    messages, socket = received(data)
    assert messages == []
    assert code_of(socket.take_output()) == socket.close_code == ws.PROTOCOL_ERROR
    assert socket.receive(masked(TEXT, b"more")) == []


@pytest.mark.parametrize(
    "data",
    [
        masked(TEXT, b"\xff"),
        masked(TEXT, b"\xc3" * 200),
        masked(TEXT, b"\xe4\xb8", final=False) + masked(CONTINUATION, b"x"),
        masked(CLOSE, (1000).to_bytes(2, "big") + b"\xff"),
    ],
)
def test_text_that_is_not_utf_8_closes_with_1007(data):
    _, socket = received(data)
    assert code_of(socket.take_output()) == ws.INVALID_DATA


def test_text_that_is_not_utf_8_is_rejected_before_the_message_is_complete():
    _, socket = received(masked(TEXT, b"\xff" * 1000)[:20])
    assert socket.close_code == ws.INVALID_DATA


# RFC 6455, 7.4: codes below 1000 and above 4999 do not exist. Up to 2999 they are reserved, and a few are defined, of
# which 1004, 1005, 1006 and 1015 must never be sent.
@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535])
def test_a_close_code_that_is_not_allowed_breaks_the_protocol(code):
    _, socket = received(masked(CLOSE, code.to_bytes(2, "big") + b"bye"))
    assert code_of(socket.take_output()) == socket.close_code == ws.PROTOCOL_ERROR


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1014, 3000, 4000, 4999])
def test_an_allowed_close_code_is_echoed(code):
    _, socket = received(masked(CLOSE, code.to_bytes(2, "big") + b"bye"))
    assert code_of(socket.take_output()) == socket.close_code == code


def test_a_character_may_be_split_between_fragments():
    whole = "ä€😀".encode()
    data = b"".join(masked(TEXT if i == 0 else 0, bytes([b]), i == len(whole) - 1) for i, b in enumerate(whole))
    assert received(data)[0] == ["ä€😀"]


@pytest.mark.parametrize("size", [LIMIT + 1, 2**40])
def test_a_message_over_the_limit_is_rejected_by_its_header_alone(size):
    _, socket = received(b"\x82\xff" + size.to_bytes(8, "big"))
    assert code_of(socket.take_output()) == ws.TOO_BIG
    pieces = masked(BINARY, b"x" * 60_000, final=False) + b"\x80\xfe\xff\xff"
    assert received(pieces)[1].close_code == ws.TOO_BIG


def test_a_close_is_echoed_once_and_nothing_is_received_after_it():
    close = masked(CLOSE, (1001).to_bytes(2, "big") + b"bye")
    messages, socket = received(masked(TEXT, b"a" * 200) + close + masked(TEXT, b"b"))
    assert messages == ["a" * 200]
    assert socket.take_output() == ws.close_frame(1001)
    assert received(masked(CLOSE, b""))[1].take_output() == ws.frame(CLOSE, b"")


def test_after_our_close_frame_only_the_clients_counts():
    socket = WebSocket(LIMIT)
    assert code_of(socket.begin_close(1000)) == 1000
    assert socket.begin_close(1000) == b""
    assert socket.receive(masked(TEXT, b"too late")) == []
    assert socket.close_code is None
    socket.receive(masked(CLOSE, (1000).to_bytes(2, "big")))
    assert (socket.close_code, socket.take_output()) == (1000, b"")


def test_a_close_reason_is_cut_to_what_a_control_frame_holds():
    assert len(ws.close_frame(1000, "ä" * 100)) <= 2 + 125
