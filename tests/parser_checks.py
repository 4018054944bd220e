"""Properties that hold for any bytes that a parser is fed. test_fuzz.py and fuzz_parsers.py generate the bytes.

Each check fails by an exception that the parser does not declare, or by an AssertionError.
"""

import io
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pushrelay.engine.packet import EncodedPacket, data_of, split_payload  # noqa: E402
from pushrelay.errors import Refused as PushRefused  # noqa: E402
from pushrelay.push.fields import Push, read_pushes  # noqa: E402
from pushrelay.rooms.packet import INVALID, Packet  # noqa: E402
from pushrelay.server.known_headers import KnownHeaders  # noqa: E402
from pushrelay.server.request import Limits, Parser  # noqa: E402
from pushrelay.server.request_error import RequestError  # noqa: E402
from pushrelay.server.websocket import WebSocket  # noqa: E402
from pushrelay.settings import Settings  # noqa: E402

# A large limit for headers, because their exact count depends on how they are split.
LIMITS = Limits(max_header=1 << 20, max_body=4000, spill_bytes=1000)
MESSAGE_LIMIT = 4000
SETTINGS = Settings(max_body=4000)


def pieces(data, cuts):
    """Return the data, split before each of these positions."""
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts} - {0}), len(data)]
    return [data[start:end] for start, end in zip(edges, edges[1:], strict=False) if start < end]


def bytewise(data):
    return [data[n : n + 1] for n in range(len(data))]


def read_http(parts, remembered=None):
    """Return the requests in the data, and the status of its rejection, if any."""
    parser = Parser({}, {}, LIMITS, KnownHeaders() if remembered is None else remembered)
    refused = None
    for part in parts:
        try:
            parser.feed(part)
        except RequestError as error:
            assert json.loads(error.body)["message"]
            refused = error.status
            break
        if parser.upgrade_rest is not None:  # the rest belongs to another protocol
            break
    return [_request(each) for each in parser.requests], refused


def _request(request):
    environ = dict(request.environ)
    with environ.pop("wsgi.input") as body:
        environ["body"] = body.read()
    assert len(environ["body"]) <= LIMITS.max_body
    assert (
        environ.get("CONTENT_LENGTH") in (None, str(len(environ["body"])))
        or "HTTP_UPGRADE" in environ
        or (int(environ["CONTENT_LENGTH"]) == len(environ["body"]))
    )
    return environ, request.version, request.keep_alive, request.spilled


def check_http(data, cuts):
    """Check that the same requests result however the bytes are split, and whether or not their header is known."""
    whole = read_http([data])
    assert read_http(pieces(data, cuts)) == whole
    assert read_http(bytewise(data)) == whole
    remembered = KnownHeaders()
    assert read_http([data], remembered) == read_http([data], remembered) == whole


def read_websocket(parts):
    socket, messages = WebSocket(MESSAGE_LIMIT), []
    for part in parts:
        messages += socket.receive(part)
        assert len(socket._buffer) <= 139 + len(part), "only the beginning of a header is kept"
        if socket._partial is not None:
            assert socket._partial.tell() <= MESSAGE_LIMIT
    for message in messages:
        assert len(message if isinstance(message, bytes) else message.encode()) <= MESSAGE_LIMIT
    return messages, socket.output, socket.close_code


def check_websocket(data, cuts):
    """Check that the same messages, pongs and close code result however the bytes are split."""
    whole = read_websocket([data])
    assert read_websocket(pieces(data, cuts)) == whole
    assert read_websocket(bytewise(data)) == whole


def check_payload(data):
    """Check that a polling payload raises ValueError, or that its packets can be read to the end."""
    try:
        packets = split_payload(data)
    except ValueError:
        return
    for packet in packets:
        check_packet(data_of(packet) if isinstance(packet, str) and packet[:1] == "4" else packet)


def check_packet(data):
    """Check that a Socket.IO packet is one that clients may send, or has a refusal."""
    packet = Packet(encoded_packet=data)
    if packet.refusal is not None:
        assert packet.packet_type == 2 and packet.data[0] == INVALID and all(packet.refusal)
        assert packet.namespace is None or isinstance(data, str)
        return
    if packet.packet_type in (2, 5):
        name, *rest = packet.data
        assert isinstance(name, str)
        assert not packet.is_ours or (len(rest) == 2 and rest[1] == packet.id)
        return
    assert packet.packet_type in (0, 1, 3, 6)


def check_push(data, content_type):
    """Check that a push is refused with a reason, or can be sent to browsers exactly as it was read."""
    environ = {"CONTENT_TYPE": content_type, "CONTENT_LENGTH": str(len(data)), "wsgi.input": io.BytesIO(data)}
    try:
        read = read_pushes(environ, SETTINGS)
    except PushRefused as refused:
        assert refused.status in (400, 413, 415) and refused.message
        json.dumps(refused.body(), ensure_ascii=False).encode("utf-8")
        return
    for push in read if isinstance(read, list) else [read]:
        if isinstance(push, PushRefused):
            assert push.status in (400, 413) and push.message
            continue
        assert isinstance(push, Push) and push.destinations
        assert all(each and each.encode("utf-8") for each in push.destinations)
        EncodedPacket(f"42[{json.dumps(push.event, ensure_ascii=False)},{push.text}]")
