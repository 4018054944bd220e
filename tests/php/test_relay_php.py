"""php/Relay.php in real PHP: what it delivers, and that a relay in trouble costs a page almost nothing."""

import base64
import concurrent.futures
import hashlib
import hmac
import json
import os
import shutil
import socket
import ssl
import subprocess

import pytest
from conftest import DEADLINE, ROOT, need, wait_for
from phplab import CLIENT, PROLOGUE, drip, get, hang, reply, says

pytestmark = pytest.mark.timed  # it measures time, and a busy machine is slower

BUDGET = 300  # ms, the client's default
SLACK = 60  # ms that PHP's timers may be late
OPEN = 5  # ms that a push may cost once the breaker is open
BUSY = 1000  # more ms for any push, if the machine is busy; the quickest of several pushes must do without
SHUT = reply("503 Service Unavailable", b'{"error":"store_not_available","message":"the disk is full"}')


@pytest.fixture(params=["curl", "streams"])
def transport(request):
    return request.param


def on(transport, options=""):
    return f"['transport' => '{transport}', {options}]"


PATIENT = "'budget' => 5"  # for tests that are not about the budget, on a busy machine

# --- Delivery ---


def test_a_push_from_php_arrives_as_the_same_value(relay, connect, php, transport):
    client = connect(relay.url, "42", "43")
    data = "['text' => 'grüß \"dich\"', 'list' => [1, 2.5, null, true], 'empty' => new stdClass]"
    (got,) = php.push(
        relay.url + "/",
        on(transport, PATIENT),
        f"['a' => 42, 'b' => '43'], {data}, ['event' => 'order', 'except' => null]",
    )
    assert got["error"] is None
    assert [(each["destination"], each["connections"]) for each in got["answer"]] == [("42", 1), ("43", 1)]
    for event, message in client.wait(2):
        assert event == "order"
        assert message["data"] == {"text": 'grüß "dich"', "list": [1, 2.5, None, True], "empty": {}}


def test_the_wait_of_a_push_is_added_to_its_budget(relay, php, transport):
    (got,) = php.push(relay.url, on(transport, "'budget' => 1"), "'nobody', 1, ['wait' => 1.2]")
    assert got["answer"]["acked"] == 0 and got["ms"] >= 1200


def test_many_pushes_are_split_into_requests_and_answered_under_their_keys(relay, php, transport):
    got = php.run(f"""
        $relay = new Relay('{relay.url}', {on(transport, "'budget' => 5")});
        for ($i = 0; $i < 2100; $i++) $many["k$i"] = ['destination' => ["many$i"], 'data' => $i];
        $many['k5']['data'] = NAN;
        unset($many['k2050']['destination']);
        $many['large'] = ['destination' => 'large', 'data' => str_repeat('x', 990000)];
        $answers = $relay->pushMany($many);
        $inOrder = array_keys($answers) === array_keys($many);
        echo json_encode([$inOrder, $answers, $relay->lastError(), $relay->pushMany([])]);""")
    in_order, answers, error, nothing = got
    assert in_order and nothing == []
    refused = {key: answer["error"] for key, answer in answers.items() if "error" in answer}
    assert refused == {"k5": "invalid_data", "k2050": "missing_destination"}
    assert answers["k2099"][0]["destination"] == "many2099" and answers["large"]["id"]
    assert error.startswith("invalid_data: 2 of 2101 pushes were not taken; the first, k5: ")


@pytest.mark.parametrize("size", [299_000, 450_000, 990_000])
def test_many_large_pushes_are_split_into_requests_that_the_relay_accepts(relay, stranger, php, transport, size):
    """The relay refuses a request of more than max_body, a million bytes."""

    def pass_on(stranger, connection, request):
        with socket.create_connection(("127.0.0.1", relay.port), DEADLINE) as upstream:
            upstream.sendall(
                request.replace(b" HTTP/1.0", b" HTTP/1.1").replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
            )
            connection.sendall(b"".join(iter(lambda: upstream.recv(65536), b"")))

    proxy = stranger(pass_on)
    answers = php.run(f"""
        $relay = new Relay('{proxy.url}', {on(transport, "'budget' => 10")});
        $many = array_fill(0, 4, ['destination' => 'large', 'data' => str_repeat('x', {size})]);
        echo json_encode($relay->pushMany($many));""")
    assert all("id" in answer for answer in answers), answers
    together = max(1, 900_000 // (size + 100))
    assert len(proxy.requests) == -(-4 // together)


def test_a_connection_is_kept_for_the_next_push(relay, php):
    need("curl" in subprocess.run(["php", "-m"], capture_output=True, text=True).stdout.split(), "PHP's cURL")
    opened = php.run(f"""
        $relay = new Relay('{relay.url}', [{PATIENT}]);
        $relay->push('kept', 1);
        $relay->push('kept', 2);
        $handle = new ReflectionProperty('Relay', 'curl');
        $handle->setAccessible(true);
        echo json_encode(curl_getinfo($handle->getValue($relay), CURLINFO_NUM_CONNECTS));""")
    assert opened == (1 if relay.settings["server"] == "werkzeug" else 0)  # Werkzeug's server keeps none


def test_a_forked_child_does_not_use_its_parents_connection(stranger, php):
    """Two processes on one connection would read each other's answers."""
    modules = subprocess.run(["php", "-m"], capture_output=True, text=True).stdout.split()
    need("curl" in modules and "pcntl" in modules, "PHP's cURL and pcntl")
    told = b'{"destination":"42","id":"a:1","connections":0}'
    kept = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(told), told)

    def keep_open(stranger, connection, request):
        connection.sendall(kept)
        while connection.recv(65536):
            stranger.requests.append(b"once more on this connection")
            connection.sendall(kept)

    relay = stranger(keep_open)
    parent, child, again = php.run(f"""
        $relay = new Relay('{relay.url}', ['transport' => 'curl', 'budget' => 5]);
        $answers = [$relay->push('42', 'parent')];
        if (($pid = pcntl_fork()) === 0) {{
            file_put_contents('{php.tmp}/child', json_encode($relay->push('42', 'child')));
            exit(0);
        }}
        pcntl_waitpid($pid, $status);
        $answers[] = json_decode(file_get_contents('{php.tmp}/child'));
        $answers[] = $relay->push('42', 'parent again');
        echo json_encode($answers);""")
    assert parent["id"] == child["id"] == again["id"] == "a:1"
    first, second, third = relay.requests
    assert b"parent" in first and b"child" in second, relay.requests
    assert third == b"once more on this connection", "the parent keeps its own"


def test_a_unix_socket_works(tmp_path, start_relay, php, transport):
    start_relay(server="own", host=f"unix:{tmp_path}/s.sock")
    (got,) = php.push(f"unix:{tmp_path}/s.sock", on(transport, PATIENT))
    assert got["answer"]["destination"] == "42", got


def test_the_key_is_sent_and_a_refusal_has_a_reason_and_is_not_retried(stranger, php, transport):
    shut = stranger(says(reply("403 Forbidden", b'{"error":"wrong_key","message":"this is none of the push_keys"}')))
    (got,) = php.push(shut.url, on(transport, f"'key' => 'k-1', {PATIENT}"))
    assert got["answer"] is None and got["error"] == "wrong_key (403): this is none of the push_keys"
    assert len(shut.requests) == 1 and b"\r\nAuthorization: Bearer k-1\r\n" in shut.requests[0]
    assert b"Expect" not in shut.requests[0]


def test_a_push_that_is_not_local_is_refused_with_the_relays_message(relay, php, transport):
    (got,) = php.push(relay.url, on(transport, PATIENT), "'42', 'x', ['evnet' => 'y']")
    assert got["answer"] is None and got["error"].startswith("unknown_field (400): there is no field 'evnet'")


# --- Answers of other servers ---

FOREIGN = {
    "an object": b'{"status":"ok"}',
    "nothing in it": b"{}",
    "an empty list": b"[]",
    "null": b"null",
    "no destination": b'{"id":"a:1"}',
    "no id": b'{"destination":"42","connections":1}',
    "an empty id": b'{"destination":"42","id":"","connections":1}',
    "another destination": b'{"destination":"7","id":"a:1","connections":1}',
    "a number for a destination": b'{"destination":42,"id":"a:1","connections":1}',
    "a list of one": b'[{"destination":"42","id":"a:1","connections":1}]',
    "a refusal": b'{"error":"missing_key","message":"send one"}',
    "a page": b"<title>It works!</title>",
    "not a byte": b"",
}


@pytest.mark.parametrize("answer", FOREIGN.values(), ids=FOREIGN)
def test_an_answer_without_an_id_for_the_destination_is_an_error(answer, stranger, php, transport):
    site = stranger(says(reply("200 OK", answer, "Content-Type: application/json")))
    (got,) = php.push(site.url, on(transport, PATIENT))
    assert got["answer"] is None and len(site.requests) == 1, got
    said = f"not_the_relay (200): something other than a relay answered at {site.url}/push. Check"
    assert got["error"].startswith(said)


@pytest.mark.parametrize(
    "answer",
    [
        {"destination": "a", "id": "e:1", "connections": 1},
        [],
        [{"destination": "a", "id": "e:1"}],
        [{"destination": "a", "id": "e:1"}, {"destination": "a", "id": "e:2"}],
        [{"destination": "b", "id": "e:1"}, {"destination": "a", "id": "e:2"}],
        [{"destination": "a", "id": "e:1"}, {"destination": "b", "id": "e:1"}, {"destination": "c", "id": "e:1"}],
        [{"destination": "a", "id": "e:1"}, {"error": "missing_data", "message": "send some"}],
    ],
)
def test_an_answer_to_a_list_has_one_id_for_each_destination_in_order(answer, stranger, php, transport):
    site = stranger(says(reply("200 OK", json.dumps(answer).encode())))
    (got,) = php.push(site.url, on(transport, PATIENT), "['a', 'b'], 1")
    assert got["answer"] is None and got["error"].startswith("not_the_relay (200): something other than a relay"), got


@pytest.mark.parametrize(
    "answer",
    [
        {"status": "ok"},
        [],
        [{"destination": "a", "id": "e:1"}],
        [{"destination": "a", "id": "e:1"}, {"destination": "b", "id": "e:1"}],
        [{"destination": "b", "id": "e:1"}, [{"destination": "a", "id": "e:1"}]],
        [{"destination": "a", "id": "e:1"}, []],
        [{"error": "missing_data"}, [{"destination": "b", "id": "e:1"}]],
        [{"error": "missing_data", "message": "send some"}, None],
    ],
)
def test_an_answer_to_a_batch_has_an_id_or_a_refusal_for_each_push(answer, stranger, php, transport):
    site = stranger(says(reply("200 OK", json.dumps(answer).encode())))
    got = php.run(f"""
        $relay = new Relay('{site.url}', {on(transport, PATIENT)});
        $pushes = [['destination' => 'a', 'data' => 1], ['destination' => ['b'], 'data' => 1]];
        echo json_encode([$relay->pushMany($pushes), $relay->lastError()]);""")
    assert got[0] is None and got[1].startswith("not_the_relay (200): something other than a relay answered"), got


def test_every_answer_of_a_relay_is_recognized(relay, php, transport):
    got = php.run(f"""
        class Room implements JsonSerializable {{
            #[ReturnTypeWillChange]
            public function jsonSerialize() {{ return 'room'; }}
        }}
        $relay = new Relay('{relay.url}', {on(transport, "'budget' => 5, 'strict' => true")});
        $names = ['x', 42, -0.0, 42.0, 1e25, 'räume/"1"', ' 7', '007', '1e1', '10', new Room];
        foreach ($names as $name) $all[] = $relay->push($name, 1)['destination'];
        $all[] = array_column($relay->push($names, 1), 'destination');
        $all[] = array_column($relay->push(['k' => 'x', 'l' => 'x'], 1, ['wait' => 0.1]), 'acked');
        $all[] = $relay->push('x', 1, ['wait' => '0.1', 'id' => 'again'])['acked'];
        $all[] = $relay->push('x', 1, ['id' => 'again'])['destination'];
        $data = ['data' => 1];
        $many = $relay->pushMany([['destination' => 42.0] + $data, $data, ['destination' => ['x']] + $data]);
        $all[] = [$many[0]['destination'], $many[1]['error'], $many[2][0]['destination']];
        echo json_encode($all);""")
    names = ["x", "42", "0", "42", "10000000000000000905969664", 'räume/"1"', " 7", "007", "1e1", "10", "room"]
    assert got[:11] == names and got[11] == list(dict.fromkeys(names))
    assert got[12:] == [[0], 0, "x", ["42", "missing_destination", "x"]]


def test_the_target_of_a_redirect_is_named(stranger, php, transport):
    target = "https://shop.example/relay/push"
    site = stranger(says(reply("301 Moved Permanently", b"", f"Location: {target}")))
    (got,) = php.push(site.url, on(transport, PATIENT))
    assert got["error"].startswith(f"not_the_relay (301): {site.url}/push redirects to {target}.")


def test_the_error_of_another_program_is_not_taken_for_a_relays(stranger, php, transport):
    site = stranger(says(reply("404 Not Found", b'{"error":"Not Found","message":"No message available"}')))
    (got,) = php.push(site.url, on(transport, PATIENT))
    assert got["error"].startswith("not_the_relay (404): something other than a relay answered"), got


# --- The cost of a relay that is down ---


AWAY = {
    "refused": (lambda stranger: "http://127.0.0.1:1", "unreachable"),
    "name": (lambda stranger: "http://relay.invalid:8080", "unreachable"),
    "hung": (lambda stranger: stranger(hang).url, "timeout"),
    "slow": (lambda stranger: stranger(drip).url, "timeout"),
    "shut": (lambda stranger: stranger(says(SHUT)).url, "store_not_available (503)"),
    "proxy": (lambda stranger: stranger(says(reply("502 Bad Gateway", b"<h1>Oh</h1>"))).url, "not_the_relay (502)"),
    "broken": (lambda stranger: stranger(says(b"HTTP/1.1 200 OK\r\nContent-Le")).url, "unreachable"),
    "half": (lambda stranger: stranger(says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")).url, "unreachable"),
}


@pytest.mark.parametrize("trouble", AWAY)
def test_a_relay_in_trouble_costs_a_page_its_budget_and_soon_almost_nothing(trouble, stranger, php, transport):
    make, word = AWAY[trouble]
    got = php.push(make(stranger), on(transport, "'cooldown' => 60"), times=7)
    assert [each["answer"] for each in got] == [None] * 7
    assert all(each["error"].startswith((word, "timeout")) for each in got[:3]), got
    assert any(each["error"].startswith(word) for each in got[:3]), got
    assert all(each["error"].startswith("breaker_open") for each in got[3:]), got
    for costs, most in ((got[:3], BUDGET + SLACK), (got[3:], OPEN)):
        assert min(each["ms"] for each in costs) <= most and max(each["ms"] for each in costs) <= most + BUSY


def test_an_endless_answer_does_not_fill_the_memory(stranger, php, transport):
    def pour(stranger, connection, request):
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b" " * 65536)

    endless = stranger(pour)
    flood = php.run(
        f"$relay = new Relay('{endless.url}', {on(transport)}); echo json_encode($relay->push('42', 1));",
        *("-d", "memory_limit=32M"),
    )
    assert flood is None


def test_a_push_whose_answer_was_lost_is_sent_again_and_delivered_once(relay, connect, stranger, php, transport):
    client = connect(relay.url, "once")

    def cut_the_first(stranger, connection, request):
        with socket.create_connection(("127.0.0.1", relay.port), DEADLINE) as upstream:
            upstream.sendall(
                request.replace(b" HTTP/1.0", b" HTTP/1.1").replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
            )
            answer = b"".join(iter(lambda: upstream.recv(65536), b""))
        if len(stranger.requests) > 1:
            connection.sendall(answer)

    proxy = stranger(cut_the_first)
    (got,) = php.push(proxy.url, on(transport, PATIENT), "'once', 'only'")
    first, again = (json.loads(request.partition(b"\r\n\r\n")[2]) for request in proxy.requests)
    assert first == again and len(first["id"]) == 32
    relay.push("once", "end")
    assert client.data(2) == ["only", "end"]
    assert got["answer"]["id"] == client.got[0][1]["id"]


@pytest.mark.parametrize(("after", "requests", "word"), [("0", 2, None), ("2", 1, "store_not_available (503)")])
def test_a_push_is_retried_after_retry_after_if_the_budget_allows(stranger, php, transport, after, requests, word):
    busy = SHUT.replace(b"\r\n\r\n", f"\r\nRetry-After: {after}\r\n\r\n".encode())
    relay = stranger(says(busy, reply("200 OK", b'{"destination":"42","id":"a:1","connections":0}')))
    (got,) = php.push(relay.url, on(transport, "'budget' => 1"))
    assert len(relay.requests) == requests
    assert got["answer"] if word is None else got["error"].startswith(word)
    assert got["ms"] < 1000 + BUSY


def test_pushes_are_accepted_again_soon_after_the_relay_is_back(start_relay, php, transport):
    relay = start_relay()
    options = on(transport, f"'cooldown' => 1, {PATIENT}")
    relay.kill()
    got = php.push(relay.url, options, times=4)
    assert got[-1]["error"].startswith("breaker_open")
    relay.start()
    wait_for(lambda: php.push(relay.url, options)[0]["answer"], "a push that is taken")
    assert all(each["answer"] for each in php.push(relay.url, options, times=3))


PAGE = """
$relay = new Relay($_GET['url'], ['cooldown' => 60, 'budget' => (float) $_GET['budget']]);
$start = hrtime(true);
$answer = $relay->push('42', 'hello');
echo json_encode([$answer, strtok((string) $relay->lastError(), ':'), (hrtime(true) - $start) / 1e6]);
"""
LATER = """
set_error_handler(static fn() => true); // as push() does
$relay = new Relay($_GET['url']);
foreach (['read', 'swap'] as $name) {
    $$name = new ReflectionMethod('Relay', $name);
    $$name->setAccessible(true);
}
$state = $read->invoke($relay);
echo json_encode($swap->invoke($relay, $state, 100 + $state % 100)); // the cooldown ended long ago
"""


@pytest.mark.parametrize("store", ["apcu", "file"])
def test_fifty_pages_at_once_keep_their_budgets_and_only_one_retries(store, stranger, php, tmp_path):
    modules = subprocess.run(["php", "-m"], capture_output=True, text=True).stdout.split()
    need("apcu" in modules and "curl" in modules, "PHP's APCu and cURL (apt-get install php-apcu php-curl)")
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "page.php").write_text(PROLOGUE + PAGE)
    (tmp_path / "www" / "later.php").write_text(PROLOGUE + LATER)
    sleep = f"$start = hrtime(true); usleep({BUDGET * 1000}); echo (hrtime(true) - $start) / 1e6;"
    (tmp_path / "www" / "sleep.php").write_text("<?php " + sleep)
    hung = stranger(hang)
    with (
        php.serve(tmp_path / "www", "-d", f"apc.enabled={int(store == 'apcu')}", workers=50) as url,
        concurrent.futures.ThreadPoolExecutor(50) as crowd,
    ):

        def pages(budget=BUDGET / 1000):
            page = f"{url}/page.php?url={hung.url}&budget={budget}"
            return [json.loads(page) for page in crowd.map(get, [page] * 50)]

        first = pages()
        assert all(answer is None and error in ("timeout", "breaker_open") for answer, error, _ in first), first
        # Fifty processes at once also wait for each other on a busy machine, as would fifty that only sleep.
        slept = [json.loads(page) for page in crowd.map(get, [f"{url}/sleep.php"] * 50)]
        assert sorted(ms for _, _, ms in first)[25] <= sorted(slept)[25] + SLACK
        assert max(ms for _, _, ms in first) <= max(slept) + BUSY
        asked = len(hung.requests)
        later = pages()
        assert {error for _, error, _ in later} == {"breaker_open"} and len(hung.requests) == asked
        assert sorted(ms for _, _, ms in later)[25] <= OPEN
        assert get(f"{url}/later.php?url={hung.url}") == "true"  # after the cooldown, one request may try
        trial = pages(budget=2)  # which must not be over before the last page has come
        assert len(hung.requests) == asked + 1
        assert sorted(error for _, error, _ in trial) == ["breaker_open"] * 49 + ["timeout"]
        assert (store == "file") == any((tmp_path / "tmp").iterdir())


# --- Errors that never reach the page ---


@pytest.mark.parametrize(
    ("data", "words"),
    [('"\\xff"', "not UTF-8"), ("['x' => NAN]", "not a number"), ("$GLOBALS['loop']", "contains itself")],
)
def test_data_that_json_cannot_represent_is_an_error_in_plain_words(php, data, words):
    got = php.run(f"""
        $loop = []; $loop[] = &$loop;
        $relay = new Relay('http://127.0.0.1:1');
        echo json_encode([$relay->push('42', {data}), $relay->lastError()]);""")
    assert got[0] is None and got[1].startswith("invalid_data: this cannot be sent: ") and words in got[1]


def test_an_exception_in_the_data_itself_does_not_reach_the_page(php):
    got = php.run("""
        class Bad implements JsonSerializable {
            #[ReturnTypeWillChange]
            public function jsonSerialize() { throw new LogicException('mine'); }
        }
        $relay = new Relay('http://127.0.0.1:1');
        echo json_encode([$relay->push('42', new Bad), $relay->lastError()]);""")
    assert got == [None, "unexpected: LogicException: mine"]


def test_an_exception_in_the_data_of_one_push_does_not_hold_up_the_others(relay, php):
    got = php.run(f"""
        class Bad implements JsonSerializable {{
            #[ReturnTypeWillChange]
            public function jsonSerialize() {{ throw new LogicException('mine'); }}
        }}
        $relay = new Relay('{relay.url}', [{PATIENT}]);
        $good = ['destination' => 'many', 'data' => 1];
        $pushes = ['good' => $good, 'bad' => ['data' => new Bad] + $good];
        echo json_encode([$relay->pushMany($pushes), $relay->lastError()]);""")
    assert "id" in got[0]["good"] and got[0]["bad"] == {"error": "unexpected", "message": "LogicException: mine"}
    assert got[1].startswith("unexpected: 1 of 2")


def test_a_handler_that_turns_warnings_into_exceptions_is_never_called(php, transport):
    got = php.run(f"""
        set_error_handler(function ($level, $said) {{ throw new ErrorException($said); }});
        $relay = new Relay('http://127.0.0.1:1', {on(transport)});
        $answers = [$relay->push('42', 1), $relay->push('42', 1), error_get_last()];
        try {{ echo $undefined; }} catch (ErrorException $e) {{ $answers[] = 'mine again'; }}
        echo json_encode($answers);""")
    assert got == [None, None, None, "mine again"]


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("ftp://x", "[]", "address"),
        ("http://x/a b", "[]", "address"),
        ("http://x", "['budgit' => 1]", "budgit"),
        ("http://x", "['budget' => 'long']", "seconds"),
        ("http://x", "['budget' => NAN]", "seconds"),
        ("http://x", "['key' => \"a\\r\\nb\"]", "key"),
        ("http://x", "['key' => ['k-1']]", "key must be a string"),
        ("http://x", "['key' => new stdClass]", "key must be a string"),
        ("http://x", "['ca_file' => []]", "ca_file must be a string"),
        ("http://x", "['secret' => []]", "secret must be a string"),
    ],
)
def test_a_wrong_option_is_an_error_of_each_push_and_an_exception_if_strict(php, url, options, words):
    got = php.run(f"""
        $relay = new Relay('{url}', {options});
        $all = [$relay->push('42', 1), $relay->lastError()];
        try {{ new Relay('{url}', {options} + ['strict' => true]); }}
        catch (RelayException $e) {{ $all[] = $e->error; }}
        echo json_encode($all);""")
    assert got[0] is None and got[1].startswith("misconfigured: ") and words in got[1]
    assert got[2] == "misconfigured"


def test_strict_throws_what_would_have_been_null(php, transport):
    got = php.run(f"""
        $relay = new Relay('http://127.0.0.1:1', {on(transport, "'strict' => true")});
        try {{ $relay->push('42', 1); }}
        catch (RelayException $e) {{ echo json_encode([$e->error, $e->getCode()]); }}""")
    assert got == ["unreachable", 0]


def test_a_proxy_in_the_environment_is_not_used_for_this_machine(relay, php):
    code = f"$relay = new Relay('{relay.url}', [{PATIENT}]); echo json_encode($relay->push('42', 1));"
    assert php.run(code, http_proxy="http://127.0.0.1:1", ALL_PROXY="http://127.0.0.1:1")["id"]


def test_php_without_extensions_pushes_by_streams_and_has_a_breaker(relay, php):
    code = f"$relay = new Relay('{relay.url}', [{PATIENT}]);"
    has_curl, answer = php.run(code + "echo json_encode([extension_loaded('curl'), $relay->push('42', 1)]);", "-n")
    assert not has_curl and answer["id"]
    code = "$relay = new Relay('http://127.0.0.1:1', ['cooldown' => 60]);"
    code += "for ($i = 0; $i < 4; $i++) $relay->push('42', 1);"
    assert php.run(code + "echo json_encode($relay->lastError());", "-n").startswith("breaker_open")


def test_a_certificate_of_an_unknown_authority_is_rejected(stranger, php, tmp_path, transport):
    need(shutil.which("openssl"), "openssl")
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {tmp_path}/key -out {tmp_path}/cert -days 2".split()
    subprocess.run(
        [*command, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    answer = {"destination": "42", "id": "a:1", "connections": 0}
    server = stranger(says(reply("200 OK", json.dumps(answer).encode())))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    port = server.server_address[1]
    for host, trusted, well in (("localhost", "", False), ("127.0.0.1", "cert", False), ("localhost", "cert", True)):
        ca = f"'ca_file' => '{tmp_path}/{trusted}'," if trusted else ""
        (got,) = php.push(f"https://{host}:{port}", on(transport, f"{ca} 'budget' => 5"))
        assert (got["answer"] == answer) == well, got
        assert well or "certificate" in got["error"].lower() or "subject name" in got["error"], got
    assert len(server.requests) == 1


# --- The breaker's file ---


def breaker_folder(php):
    return php.tmp / f"relay-breaker-{os.geteuid()}"


def test_only_its_user_can_enter_the_breakers_folder(php):
    php.push("http://127.0.0.1:1", times=3)
    assert breaker_folder(php).stat().st_mode & 0o777 == 0o700
    assert len(list(breaker_folder(php).iterdir())) == 1


@pytest.mark.parametrize("trap", ["symlink", "open to others", "a file"])
def test_without_a_folder_of_its_own_there_is_no_breaker_and_nothing_is_written(php, tmp_path, trap):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    if trap == "symlink":
        breaker_folder(php).symlink_to(elsewhere)
    elif trap == "a file":
        breaker_folder(php).write_text("")
    else:
        breaker_folder(php).mkdir()
        breaker_folder(php).chmod(0o777)
    got = php.push("http://127.0.0.1:1", times=5)
    assert all(each["error"].startswith("unreachable") for each in got)
    assert not list(elsewhere.iterdir()) and (trap != "open to others" or not list(breaker_folder(php).iterdir()))


def test_without_a_folder_for_the_breaker_pushes_still_work(relay, php):
    code = f"$relay = new Relay('{relay.url}', [{PATIENT}]); echo json_encode($relay->push('42', 1));"
    assert php.run(code, TMPDIR="/nowhere/at/all")["id"]


# --- Tokens ---


def test_any_jwt_library_can_read_a_token(php):
    got = php.run("""
        $relay = new Relay('http://127.0.0.1', ['secret' => 'correct horse battery staple']);
        echo json_encode($relay->token(['ids' => [42, 'räume-*'], 'push' => 'news', 'exp' => 2000000000]));""")
    head, claims, signature = got.split(".")

    def read(part):
        assert not set(part) & set("+/=")
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))

    assert json.loads(read(head)) == {"alg": "HS256", "typ": "JWT"}
    assert json.loads(read(claims)) == {"ids": ["42", "räume-*"], "push": ["news"], "exp": 2000000000}
    expected = hmac.new(b"correct horse battery staple", f"{head}.{claims}".encode(), hashlib.sha256).digest()
    assert read(signature) == expected


@pytest.mark.parametrize(
    ("options", "claims", "error"),
    [
        ("[]", "['ids' => ['42'], 'exp' => 1]", "no_secret"),
        ("['secret' => false]", "['ids' => ['42'], 'exp' => 1]", "no_secret"),
        ("['secret' => 's']", "['exp' => 1]", "invalid_claims"),
        ("['secret' => 's']", "['ids' => ['42']]", "invalid_claims"),
        ("['secret' => 's']", "['ids' => [\"\\xff\"], 'exp' => 1]", "invalid_data"),
        ("['secret' => 's']", "['ids' => [['42']], 'exp' => 1]", "invalid_claims"),
        ("['secret' => 's']", "['ids' => [null], 'exp' => 1]", "invalid_claims"),
        ("['secret' => 's']", "['push' => new stdClass, 'exp' => 1]", "invalid_claims"),
    ],
)
def test_a_token_that_cannot_be_made_is_an_exception_even_if_pushes_throw_none(php, options, claims, error):
    got = php.run(f"""
        try {{ (new Relay('http://127.0.0.1', {options}))->token({claims}); }}
        catch (RelayException $e) {{ echo json_encode($e->error); }}""")
    assert got == error


# --- The file itself ---


@pytest.mark.parametrize("file", sorted((ROOT / "php").rglob("*.php")), ids=lambda path: path.name)
def test_the_file_is_valid_php_7_4(file):
    need(
        shutil.which("php") and shutil.which("node") and (ROOT / "tests/node_modules/php-parser").is_dir(), "php-parser"
    )
    for command in (["php", "-l", file], ["node", ROOT / "tests/php74.js", file]):
        ran = subprocess.run(command, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_check_for_php_7_4_finds_what_is_newer(tmp_path):
    need(shutil.which("node") and (ROOT / "tests/node_modules/php-parser").is_dir(), "php-parser")
    newer = ["$a?->b", "match($a){1=>2}", "f(a: 1)", "str_contains('a', 'b')", "function f(int|string $a) {}"]
    newer += ["class A { function __construct(private int $a) {} }", "function f(): mixed {}", "enum A { case B; }"]
    files = [tmp_path / f"{i}.php" for i in range(len(newer))]
    for file, code in zip(files, newer, strict=True):
        file.write_text(f"<?php {code};")
    ran = subprocess.run(["node", ROOT / "tests/php74.js", *files], capture_output=True, text=True)
    assert ran.returncode == 1 and all(f"{file}:1: " in ran.stdout for file in files), ran


def test_composer_json_names_the_existing_files():
    package = json.loads((ROOT / "php" / "composer.json").read_text())
    assert [ROOT / "php" / name for name in package["autoload"]["classmap"]] == [CLIENT]
    assert package["require"] == {"php": ">=7.4", "ext-json": "*"}
