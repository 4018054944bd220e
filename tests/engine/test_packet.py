"""Engine.IO packets: frames, payloads, and the data of messages."""

import pytest

from pushrelay.engine.packet import MAX_PACKETS, EncodedPacket, data_of, payload, split_payload


def test_a_packet_is_a_frame_for_websockets_and_a_part_for_polls():
    text, binary = EncodedPacket("4hello"), EncodedPacket(b"\x01\x02\x03\x04")
    assert (text.frame, binary.frame) == (b"\x81\x064hello", b"\x82\x04\x01\x02\x03\x04")
    assert payload([text, binary]) == b"4hello\x1ebAQIDBA=="


def test_a_payload_is_compressed_once_for_each_coding():
    packet, calls = EncodedPacket("4hello"), []
    for coding in ("gzip", "deflate", "gzip"):
        assert packet.compressed(coding, lambda body: calls.append(body) or b"small") == b"small"
    assert calls == [b"4hello"] * 2


def test_what_a_client_sends_is_taken_apart_within_bounds():
    assert split_payload(b"4a\x1ebAQI=\x1e1") == ["4a", b"\x01\x02", "1"]
    assert len(split_payload(b"\x1e".join([b"3"] * MAX_PACKETS))) == MAX_PACKETS
    for invalid in (b"\x1e".join([b"3"] * (MAX_PACKETS + 1)), b"b!", b"\xff"):
        with pytest.raises(ValueError):
            split_payload(invalid)


@pytest.mark.parametrize(
    ("packet", "data"), [("42[1]", "2[1]"), ('4{"a":1}', {"a": 1}), ("4hello", "hello"), ("4", "")]
)
def test_the_data_of_a_message_is_what_engineio_makes_of_it(packet, data):
    assert data_of(packet) == data
