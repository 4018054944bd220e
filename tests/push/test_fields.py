"""A push that is answered with 200 was understood as intended; any other is refused."""

import contextlib
import io
import json
import socket
import sqlite3

import pytest
from conftest import own_only

from pushrelay.errors import Refused
from pushrelay.push.fields import Push, read_pushes
from pushrelay.settings import Settings
from pushrelay.store import Draft, open_broker

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
MULTIPART = "multipart/form-data; boundary=cut"


def read(body, kind=JSON, at_root=False, **more):
    """Return a push's destinations and data, or the status and code of its refusal; a list of these for a batch."""
    body = body if isinstance(body, bytes) else body.encode()
    environ = {"CONTENT_TYPE": kind, "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body), **more}
    try:
        pushes = read_pushes(environ, Settings(), at_root)
    except Refused as refused:
        return shown(refused)
    return [shown(each) for each in pushes] if isinstance(pushes, list) else shown(pushes)


def shown(push):
    if isinstance(push, Push):
        return push.destinations, json.loads(push.text)
    assert len(push.message) > 15
    return push.status, push.error


# Idempotency keys.


@pytest.fixture(params=["memory", "sqlite"])
def broker(request, tmp_path):
    url = "memory:" if request.param == "memory" else f"sqlite:{tmp_path}/relay.db"
    broker = open_broker(url, lambda publication, skip_sid: 1)
    broker.start()
    yield broker
    broker.close()


def kept(broker, destination="42"):
    return [each.data for each in broker.history(destination).publications]


DIFFERENT = {
    "data": {"data": "shipped"},
    "data of another type": {"data": 1},
    "the event": {"event": "order"},
    "ttl": {"ttl": 60.0},
    "except": {"skip_sid": "s1"},
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_a_key_that_is_used_for_another_push_is_refused(broker, what):
    first = Draft("42", "paid", key="7")
    ((position, *_),) = broker.publish([first])
    other = first._replace(**DIFFERENT[what])
    (receipt,) = broker.publish([other])
    assert receipt.reused and kept(broker) == ["paid"]
    assert [receipt.reused for receipt in broker.publish([first, other, first])] == [False, True, False]
    assert broker.publish([first])[0].position == position
    assert not broker.publish([other._replace(key="8"), other._replace(destination="43")])[0].reused


def test_two_different_pushes_of_a_batch_with_one_key_are_not_one(broker):
    receipts = broker.publish([Draft("42", n, key="7") for n in (1, 2, 1)])
    assert [receipt.reused for receipt in receipts] == [False, True, False]
    assert receipts[2].position == receipts[0].position and kept(broker) == [1]


def test_a_key_and_its_push_are_known_after_a_restart(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("42", "paid", key="7")])
    broker._store._files.journal.close(False)  # as kill -9 leaves it: accepted pushes are in the journal only
    broker._store._files._has_journal = False
    broker._store._writer.connection.rollback()
    broker.close()
    again = open_at(tmp_path / "relay.db")
    assert again.publish([Draft("42", "shipped", key="7")])[0].reused
    assert again.publish([Draft("42", "paid", key="7")])[0].repeated and kept(again) == ["paid"]


def test_a_key_that_an_older_relay_stored_is_known_without_its_push(tmp_path, open_at):
    path = tmp_path / "relay.db"
    broker = open_at(path)
    broker.publish([Draft("42", "paid", key="7")])
    broker.close()
    with contextlib.closing(sqlite3.connect(path)) as older:
        older.execute("ALTER TABLE keys DROP COLUMN fingerprint")
        for table in ("events", "readers", "notes", "marks"):
            older.execute(f"DROP TABLE IF EXISTS {table}")
        older.execute("PRAGMA user_version=2")
    again = open_at(path)
    (receipt,) = again.publish([Draft("42", "shipped", key="7")])
    assert (receipt.repeated, receipt.reused, kept(again)) == (True, False, ["paid"])
    again.publish([Draft("42", "paid", key="8")])
    assert again.publish([Draft("42", "shipped", key="8")])[0].reused


def test_a_push_whose_key_was_used_for_another_one_is_answered_422_and_delivered_nowhere(relay, connect):
    client = connect(relay.url, "reused", "reused-2")
    first = relay.push_json(destination="reused", data="paid", id="7")
    assert relay.push_json(destination="reused", data="paid", id=7) == first, "the same key"
    for more in ({}, {"wait": 5}, {"destination": ["reused-2", "reused"]}):
        status, answer = relay.push_json(**{"destination": "reused", "data": "shipped", "id": "7", **more})
        assert (status, answer["error"]) == (422, "id_reused"), answer
    body = b"destination=reused&data=shipped"
    status, _, answer = relay.request("POST", "/push", body, {"Idempotency-Key": '"7"'})
    assert (status, json.loads(answer)["error"]) == (422, "id_reused")
    pushes = [{"destination": "reused", "data": data, "id": "7"} for data in ("paid", "shipped")]
    pushes.append({"destination": "reused", "data": "end"})
    status, _, answer = relay.request("POST", "/push", json.dumps(pushes).encode(), {"Content-Type": JSON})
    repeated, refused, taken = json.loads(answer)
    assert (status, repeated, refused["error"], taken["connections"]) == (200, first[1], "id_reused", 1)
    assert client.data(2) == ["paid", "end"]


@pytest.mark.parametrize("header", ["a, b", "a,a", '"a", "b"', '"a', 'a"b', '"a";v=1'])
def test_two_idempotency_keys_are_refused(header):
    assert read("destination=42&data=x", FORM, HTTP_IDEMPOTENCY_KEY=header) == (400, "invalid_id")


@own_only
def test_a_repeated_idempotency_key_header_is_refused(relay):
    with socket.create_connection(("127.0.0.1", relay.port), 20) as sock:
        head = "POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Length: 21\r\nConnection: close\r\n"
        head += "Idempotency-Key: one\r\nIdempotency-Key: two\r\n\r\n"
        sock.sendall(head.encode() + b"destination=42&data=x")
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400 ") and b"invalid_id" in answer


@pytest.mark.parametrize(("header", "key"), [('"a,b"', "a,b"), ('"a\\"b"', 'a"b'), ("k", "k"), ("Ã¤", "ä")])
def test_the_header_and_the_field_give_the_same_key(header, key):
    environ = {"CONTENT_TYPE": FORM, "wsgi.input": io.BytesIO(b"destination=42&data=x"), "CONTENT_LENGTH": "21"}
    assert read_pushes({**environ, "HTTP_IDEMPOTENCY_KEY": header}, Settings()).key == key


# Encodings.


def part(name, value, *headers, disposition="form-data"):
    lines = ["--cut", f'Content-Disposition: {disposition}; name="{name}"', *headers, "", value, ""]
    return "\r\n".join(lines)


def multipart(value, *headers, **options):
    return part("destination", "42") + part("data", value, *headers, **options) + "--cut--\r\n"


@pytest.mark.parametrize("charset", ["us-ascii", "US-ASCII", "utf-8", '"UTF-8"', "ascii"])
def test_a_part_is_read_as_utf_8_whatever_charset_its_library_declares(charset):
    for text in ("Grüße", "日本", "plain"):
        assert read(multipart(text, f"Content-Type: text/plain; charset={charset}"), MULTIPART) == (["42"], text)


@pytest.mark.parametrize("charset", ["iso-8859-1", "windows-1252", "utf-16", "utf-7", "shift_jis", "nonsense"])
def test_a_part_in_another_charset_is_refused_and_never_damaged(charset):
    header = f"Content-Type: text/plain; charset={charset}"
    assert read(multipart("Grüße", header), MULTIPART) == (415, "unsupported_media_type")
    plain = (["42"], "plain") if charset in ("iso-8859-1", "windows-1252") else (415, "unsupported_media_type")
    assert read(multipart("plain", header), MULTIPART) == plain


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Transfer-Encoding: base64"],
        ["Content-Transfer-Encoding: Quoted-Printable"],
        ["Content-Type: text/plain; charset=utf-8", "content-transfer-encoding: base64"],
        ["Content-Type: multipart/mixed; boundary=inner"],
    ],
)
def test_an_encoded_part_is_refused_and_not_passed_on_undecoded(headers):
    assert read(multipart("R3LDvMOfZQ==", *headers), MULTIPART) == (415, "unsupported_media_type")


def test_a_part_declared_as_not_encoded_is_accepted():
    for encoding in ("8bit", "binary", "7bit"):
        assert read(multipart("x", f"Content-Transfer-Encoding: {encoding}"), MULTIPART) == (["42"], "x")


def test_a_multipart_form_that_is_cut_or_holds_files_is_refused():
    whole = multipart("x")
    for body in (whole.replace("--cut--", ""), whole[:-30], multipart("x", disposition="attachment")):
        assert read(body, MULTIPART) == (400, "invalid_form"), body
    assert read(part("data", "y") + whole, MULTIPART) == (400, "invalid_form")
    for name in ('data"; filename="a.txt', "data\"; filename*=utf-8''a.txt; x=\""):
        assert read(part(name, "y") + whole, MULTIPART) == (400, "invalid_form"), name


@pytest.mark.parametrize("kind", [FORM, JSON, MULTIPART, "application/x-ndjson"])
@pytest.mark.parametrize("charset", ["latin1", "utf-8; charset=latin1", "utf-16", '"iso-8859-15"'])
def test_a_body_in_another_charset_is_refused(kind, charset):
    assert read("destination=42&data=x", f"{kind}; charset={charset}") == (415, "unsupported_media_type")


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "identity, gzip", "x-gzip", "zstd"])
@pytest.mark.parametrize("path", ["/", "/push"])
def test_a_compressed_body_is_refused_with_advice(relay, coding, path):
    headers = {"Content-Type": FORM, "Content-Encoding": coding}
    for body in (b"\x1f\x8b\x08\x00", b"destination=42&data=x"):
        status, answered, answer = relay.request("POST", path, body, headers)
        assert (status, answered["Accept-Encoding"]) == (415, "identity")
        assert "without that header" in json.loads(answer)["message"]


def test_a_body_declared_as_not_compressed_is_accepted_and_undeclared_gzip_is_named(relay):
    body = b"destination=coded&data=x"
    assert relay.request("POST", "/push", body, {"Content-Encoding": "identity"})[0] == 200
    status, _, answer = relay.request("POST", "/push", b"\x1f\x8b\x08\x00", {"Content-Type": JSON})
    assert status == 400 and "gzip" in json.loads(answer)["message"]


# Fields.


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ('{"destination":"a","data":1,"data":2}', "invalid_data"),
        ('{"data":1,"data":1,"destination":"a"}', "invalid_data"),
        ('{"destination":"a","data":1,"destination":"b"}', "invalid_destination"),
        ('{"destination":"a","data":1,"event":"x","event":"y"}', "invalid_event"),
        ('{"destination":"a","data":{"id":7},"id":"k","id":"l"}', "invalid_id"),
        ('{"destination":"a","d\\u0061ta":1,"data":2}', "invalid_data"),
    ],
)
def test_a_repeated_field_of_a_json_push_is_refused(body, error):
    assert read(body) == (400, error)
    good = '{"destination":"a","data":{"data":1,"id":[{"destination":2}]}}'
    sound = (["a"], {"data": 1, "id": [{"destination": 2}]})
    assert read(f"[{good},{body},{good}]") == [sound, (400, error), sound], "it fails alone"
    assert read(f"{good}\n{body}\n{good}", "application/x-ndjson") == [sound, (400, error), sound]


def test_at_the_root_only_destination_and_data_must_not_be_repeated():
    assert read('{"destination":"a","data":1,"id":7,"id":8}', at_root=True) == (["a"], 1)
    more = "".join(f',"more{n}":1' for n in range(10))
    assert read(f'{{"destination":"a","data":1{more},"data":2}}', at_root=True) == (400, "invalid_data")


def test_at_the_root_other_fields_may_have_any_charset_and_be_files():
    for more in (b"name=M%FCller", b"M%FC=x", b"name=M\xfcller", b"x=%FF%FE&x=%FF", b"datas=%FF", b"=%FF"):
        assert read(b"destination=a&data=x&" + more, FORM, at_root=True) == (["a"], "x"), more
        assert read(more + b"&destination[]=a&data=%C3%BC", "text/plain", at_root=True) == (["a"], "ü"), more
        assert read(b"destination=a&data=x&" + more, FORM)[0] == 400, more
    parts = [
        part('photo"; filename="a.jpg', "\xff\xd8"),
        part("name", "Müller", "Content-Type: text/plain; charset=iso-8859-1"),
        part("name", "x", "Content-Transfer-Encoding: base64"),
        part("user", "7") + part("user", "8"),
    ]
    for each in parts:
        body = (each + multipart("plain", "Content-Type: text/plain; charset=iso-8859-1")).encode("latin-1")
        assert read(body, MULTIPART, at_root=True) == (["42"], "plain"), body
        assert read(body, MULTIPART)[0] in (400, 415), body


def test_at_the_root_destination_and_data_are_as_strict_as_elsewhere():
    for body in (b"destination=a&data=%FC", b"destination=a&data=\xfc", b"destination=%FC&data=x", b"\x1f\x8bx"):
        assert read(body, FORM, at_root=True) == (400, "invalid_form"), body
    assert read(multipart("\xfc").encode("latin-1"), MULTIPART, at_root=True) == (400, "invalid_form")
    assert read(multipart("x", "Content-Transfer-Encoding: base64"), MULTIPART, at_root=True)[0] == 415
    file = part("destination", "42") + part('data"; filename="a.txt', "x") + "--cut--\r\n"
    assert read(file, MULTIPART, at_root=True) == (400, "invalid_form")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("destination[0][id]=42&destination[0][name]=Ann&data=x", "invalid_destination"),
        ("destination[a][]=42&data=x", "invalid_destination"),
        ("destination[=42&data=x", "invalid_destination"),
        ("destination[0]=42&destination[0]=43&data=x", "invalid_form"),
        ("destination[]=42&destination[][]=43&data=x", "invalid_destination"),
    ],
)
def test_nested_destinations_are_refused(body, error):
    for at_root in (False, True):
        assert read(body, FORM, at_root) == (400, error)
        encoded = body.replace("[", "%5B").replace("]", "%5D")
        assert read(encoded, FORM, at_root) == (400, error)


def test_phps_lists_are_accepted():
    for body in (
        "destination[0]=a&destination[1]=b",
        "destination[]=a&destination[]=b",
        "destination[x]=a&destination[y]=b",
    ):
        assert read(f"{body}&data=x", FORM) == (["a", "b"], "x")


def test_json_sent_as_a_form_is_recognized_in_the_error(relay):
    for path in ("/", "/push"):
        status, _, answer = relay.request("POST", path, b'{"destination": "42", "data": "x"}')
        assert status == 400 and JSON in json.loads(answer)["message"]


def test_fields_in_the_address_of_a_push_are_refused(relay, connect):
    client = connect(relay.url, "query")
    status, _, answer = relay.request("POST", "/push?event=order&ttl=0", b"destination=query&data=x")
    assert (status, json.loads(answer)["error"]) == (400, "unknown_field")
    assert relay.request("POST", "/?event=order", b"destination=query&data=end")[0] == 200, "ignored, as Node's did"
    assert client.data(1) == ["end"]


@own_only
def test_an_unknown_method_and_an_invalid_request_are_refused_with_advice(relay):
    for sent in (b"BREW /push HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x01\x02\x03\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", relay.port), 20) as sock:
            sock.sendall(sent)
            answer = sock.recv(65536)
            assert answer.startswith(b"HTTP/1.1 400") and b"GET, POST, DELETE" in answer


# Ids that JavaScript cannot hold.


@pytest.mark.parametrize("number", [2**53, -(2**53), 9007199254740993, 1e21, 2.0**60])
def test_a_number_that_javascript_rounds_is_refused_as_an_id(relay, connect, number):
    client = connect(relay.url)
    for event, message in (
        ("register", {"id": number}),
        ("register", {"id": ["42", number]}),
        ("unregister", {"id": number}),
    ):
        answer = client.call(event, message)
        assert answer["error"] == "invalid_id" and "text" in answer["message"], answer


def test_the_largest_exact_number_of_javascript_is_an_id_and_larger_ones_are_text(relay, connect):
    client = connect(relay.url, 2**53 - 1, "9007199254740993")
    assert relay.push_json(destination=[2**53 - 1, 9007199254740993], data=1)[1][1]["connections"] == 1
    assert [message["destination"] for _, message in client.wait(2)] == [str(2**53 - 1), "9007199254740993"]


def test_relay_js_takes_a_bigint_as_its_digits_and_refuses_other_values(relay, page, page_errors):
    page.open(relay.url).connect()
    got = page.run("""async () => {
        const said = [];
        for (const id of [NaN, Infinity, 1.5, 2 ** 53, -(2 ** 60), {}, Symbol("x"), null, true, () => 1, ["42", NaN]]) {
            for (const work of [() => relay.register(id), () => relay.unregister(id), () => relay.push(id, 1)]) {
                said.push(await work().then(() => "taken", ({ code, message }) => code + ": " + message));
            }
        }
        relay.register(NaN); // nobody handles this one
        const { ids } = await relay.register([9007199254740993n, 7]);
        return [[...new Set(said)], Object.keys(ids)];
    }""")
    assert len(got[0]) == 1 and got[0][0].startswith("invalid_id: "), got
    assert sorted(got[1]) == ["7", "9007199254740993"]
    assert relay.push_json(destination=9007199254740993, data="exact")[1]["connections"] == 1
    assert not page_errors


def test_bytes_from_a_page_are_refused_and_not_delivered_as_an_object_of_numbers(
    start_relay, connect, page, page_errors
):
    relay = start_relay(socket_push="yes")
    client = connect(relay.url, "bytes")
    page.open(relay.url).connect()
    got = page.run("""async () => {
        const said = [], socket = io();
        const buffer = new ArrayBuffer(8), told = ({ code, message }) => said.push(code + ": " + message);
        for (const data of [new Uint8Array(3), buffer, new DataView(buffer), [{deep: new Float64Array(1)}]]) {
            await relay.push("bytes", data).then(() => said.push("taken"), told);
            try { socket.emit("push", {destination: "bytes", data}); said.push("sent"); } catch (error) { told(error); }
        }
        await relay.push("bytes", {buffer: 1, byteLength: 3});
        return [...new Set(said)];
    }""")
    types = ["Uint8Array", "ArrayBuffer", "DataView", "Float64Array"]
    assert got == [f"invalid_data: {each} is not JSON" for each in types]
    assert client.data(1) == [{"buffer": 1, "byteLength": 3}] and not page_errors
