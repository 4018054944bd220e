"""The outbox of a client that polls."""

from pushrelay.engine.packet import EncodedPacket
from pushrelay.engine.poll_buffer import PollBuffer
from pushrelay.server.outboxes import Outboxes


class Client:
    backlog = 0

    def give_up(self):
        pass


def test_packets_come_out_in_order_and_everything_is_counted_until_then():
    outboxes, packets = Outboxes(lambda callback: None), [EncodedPacket(f"4{n}") for n in range(3)]
    buffer = PollBuffer(Client())
    assert not buffer
    for packet in packets:
        assert not buffer.add(packet, outboxes, limit=1000)
    size = sum(packet.size for packet in packets)
    assert (bool(buffer), buffer.bytes, outboxes.bytes) == (True, size, 2 * size), "as text and as a frame"
    assert buffer.take(outboxes) == packets
    assert (bool(buffer), buffer.bytes, outboxes.bytes) == (False, 0, 0)


def test_the_first_and_the_next_packet_always_have_room():
    outboxes, large = Outboxes(lambda callback: None), EncodedPacket("4" + "x" * 1000)
    buffer = PollBuffer(Client())
    assert [buffer.add(large, outboxes, limit=100) for _ in range(3)] == [False, False, True]
