"""Packets as clients send them: read, or refused with a reason. Over a socket: test_packet_dispatch.py."""

import pytest
from socketio import packet as sio

from pushrelay.rooms.packet import INVALID, MOST_ATTACHMENTS, Packet, StrictPacket, unknown_event

BLOB = '{"_placeholder":true,"num":0}'


def packet(text):
    return Packet(encoded_packet=text)


@pytest.mark.parametrize(
    ("text", "data", "is_ours"),
    [
        ('2["register",{"id":"a"}]', ["register", {"id": "a"}, None], True),
        ('27["register",{"id":"a"}]', ["register", {"id": "a"}, 7], True),
        ('2["ack"]', ["ack", None, None], True),
        ('2/admin,["register",{"id":"a"}]', ["register", {"id": "a"}], False),
        ('27["chat",1,2]', ["chat", 1, 2], False),
    ],
)
def test_handlers_of_the_relays_own_events_know_whether_the_client_wants_an_answer(text, data, is_ours):
    read = packet(text)
    assert read.refusal is None and (read.data, read.is_ours) == (data, is_ours)
    assert read.size == len(text)


REFUSED = ["", "9", "{", "2", "2{", "2[]", "2[7]", '2["x"', "4", '2\u0665["x"]', b"binary", '2["' + "[" * 2000]


@pytest.mark.parametrize("text", REFUSED)
def test_a_packet_that_cannot_be_read_has_a_refusal_and_raises_nothing(text):
    read = packet(text)
    assert read.refusal[0] == "invalid_packet" and read.data == [INVALID, read.refusal[1]]
    assert read.packet_type == sio.EVENT


@pytest.mark.parametrize("text", [each for each in REFUSED if not (isinstance(each, str) and "\u0665" in each)])
def test_a_strict_packet_raises_for_the_same(text):
    with pytest.raises(ValueError):
        StrictPacket(encoded_packet=text)


@pytest.mark.parametrize("name", ["connect", "disconnect", "*", INVALID])
def test_names_that_python_socketio_would_misread_are_unknown_events(name):
    assert packet(f'27["{name}"]').refusal == unknown_event(name)


def test_attachments_replace_their_placeholders():
    read = packet(f'51-["file",{BLOB}]')
    assert read.refusal is None and read.attachments_left == 1
    assert read.add_attachment(b"abc", 1000) and read.data == ["file", b"abc"]


def test_a_packet_over_the_limit_with_its_attachments_is_refused_and_the_rest_is_counted():
    read = packet(f'52-7["file",{BLOB},{BLOB.replace("0", "1")}]')
    assert not read.add_attachment(b"x" * 500, 100)
    assert read.refusal[0] == "invalid_packet" and "100 bytes" in read.refusal[1]
    assert read.add_attachment(b"y", 100), "the last one"
    assert read.id == 7, "the refusal is the answer to the event"


def test_a_packet_cannot_announce_any_number_of_attachments():
    assert packet(f'5{MOST_ATTACHMENTS}-["file",{BLOB}]').refusal is None
    read = packet(f'5{MOST_ATTACHMENTS + 1}-["file",{BLOB}]')
    assert read.refusal[0] == "invalid_packet" and read.attachments_left == MOST_ATTACHMENTS + 1


def test_the_relays_own_events_take_no_attachments():
    assert "base64" in packet(f'51-["push",{BLOB}]').refusal[1]


def test_a_refused_acknowledgement_asks_for_no_answer():
    read = packet("37{}")
    assert read.refusal is not None and read.id is None
