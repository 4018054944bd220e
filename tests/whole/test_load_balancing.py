"""Three relays behind the real nginx, Apache and HAProxy, with the files of deploy/ as they are shipped."""

import contextlib
import http.client
import http.server
import json
import signal
import threading
from typing import ClassVar, NamedTuple

import pytest
from balancers import BALANCERS, KEY, NAMES, PATH, HAProxyBalancer, NginxBalancer, Nodes
from clients import OfficialClient
from conftest import DEADLINE, wait_for
from examination import Examination, settings_of
from redis_server import RedisServer

CLIENTS = 30
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
KEYED = {**FORM, "Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nodes")
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisServer(folder / "redis"))
        nodes = Nodes(folder, trusted_proxies="127.0.0.1", broker=redis.url)
        stack.callback(nodes.close)
        yield nodes
        assert "Traceback" not in nodes.log()


@pytest.fixture(scope="module", params=BALANCERS, ids=lambda kind: kind.__name__)
def balancer(request, nodes):
    with contextlib.closing(request.param(nodes)) as balancer:
        yield balancer


@pytest.fixture(scope="module", params=BALANCERS, ids=lambda kind: kind.__name__)
def round_robin(request, nodes):
    with contextlib.closing(request.param(nodes, request.param.ROUND_ROBIN)) as balancer:
        yield balancer


def ask(port, method, path, body=None, headers=None):
    """Return the status and the body of the answer to one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def official(balancer, prefix, count, *transports):
    client = OfficialClient(balancer.url, prefix, str(count), *transports, script="balanced_clients.js")
    return contextlib.closing(client)


def numbers(client, kind):
    """Return the sockets of which this was reported."""
    return {line["number"] for line in client.of(kind)}


def wait_for_all(client, kind, count):
    wait_for(lambda: len(numbers(client, kind)) == count, f"{kind} of all in {client.lines[-5:]}")


def push_to_all(balancer, prefix, count):
    """Push to each client through the balancer, and return the statuses."""
    pushes = [f"destination={prefix}-{n}&data=hello" for n in range(count)]
    return {ask(balancer.push_port, "POST", "/push", body, KEYED)[0] for body in pushes}


def nodes_of(sids):
    return {sid.rpartition(".")[2] for sid in sids}


def connected(balancer):
    return http.client.HTTPConnection("127.0.0.1", balancer.port, timeout=DEADLINE)


def open_session(balancer):
    with contextlib.closing(connected(balancer)) as connection:
        return open_session_on(connection)


def open_session_on(connection):
    """Return the sid of a new session; `refused` and the status if there is none."""
    connection.request("GET", f"{PATH}polling")
    answer = connection.getresponse()
    body = answer.read()
    return json.loads(body[1:])["sid"] if answer.status == 200 else f"refused.{answer.status}"


def test_every_official_client_connects_and_stays_and_receives(balancer):
    name = type(balancer).__name__
    with (
        official(balancer, f"{name}-polling", CLIENTS, "polling") as polling,
        official(balancer, f"{name}-both", CLIENTS, "polling", "websocket") as both,
    ):
        for client, prefix, transport in ((polling, "polling", "polling"), (both, "both", "websocket")):
            wait_for_all(client, "registered", CLIENTS)
            wait_for_all(client, "stayed", CLIENTS)
            assert push_to_all(balancer, f"{name}-{prefix}", CLIENTS) == {200}
            wait_for_all(client, "data", CLIENTS)
            assert {line["transport"] for line in client.of("data")} == {transport}
            assert not client.of("disconnect") and not client.of("error"), client.lines
            assert nodes_of(line["sid"] for line in client.of("registered")) == set(NAMES), "each node has some"
            assert len(client.of("registered")) == CLIENTS, "each connected once"


def test_a_page_with_relay_js_polls_through_a_balancer(nodes, page):
    with contextlib.closing(NginxBalancer(nodes)) as balancer:
        page.open(balancer.url, "/relay/static/relay.js").connect('{transports: ["polling"]}', '"polling-page"')
        assert page.run("relay.transport") == "polling"
        for relay in nodes:
            relay.push("polling-page", relay.name)
        assert page.pushed(3) == list(NAMES)
        assert page.seen("error") == [] and "offline" not in str(page.seen("status"))


def test_only_what_browsers_need_has_an_address(balancer):
    assert ask(balancer.port, "GET", "/relay/static/relay.js")[0] == 200
    for path in ("push", "", "history?destination=x", "presence", "connections", "metrics", "health/ready"):
        for way in ("/relay/", "/relay/socket.io/../", "/relay/socket.io/..%2f", "/relay//", "/"):
            status, body = ask(balancer.port, "POST", way + path, "destination=through&data=x", KEYED)
            assert 400 <= status < 500 and '"id"' not in body, (way + path, status, body)


def test_programs_push_to_any_node_with_a_key_and_strangers_do_not(balancer):
    for destination in ("one", "two", "three"):
        body = f"destination={destination}&data=x"
        elsewhere = {**FORM, "X-Forwarded-For": "10.0.0.7"}  # on another machine than the relay
        assert ask(balancer.push_port, "POST", "/push", body, elsewhere)[0] == 401
        assert ask(balancer.push_port, "POST", "/push", body, KEYED)[0] == 200
        with_key = {**KEYED, "Idempotency-Key": destination}
        assert ask(balancer.push_port, "POST", "/push", body, with_key)[0] == 200
    assert ask(balancer.push_port, "GET", "/", headers=KEYED)[0] == 404


def test_the_relays_see_the_address_of_the_visitor(nodes, balancer):
    visitor = f"203.0.113.{BALANCERS.index(type(balancer)) + 1}"
    forwarded = {"X-Forwarded-For": visitor}
    for _ in range(3):
        assert ask(balancer.port, "GET", "/relay/socket.io/?EIO=3&transport=polling", headers=forwarded)[0] == 400
    wait_for(lambda: f"from {visitor} was refused" in nodes.log(), "the line with the address")


def test_a_node_that_was_killed_is_replaced_by_the_others_at_once(nodes, balancer):
    lost = nodes[1]
    with official(balancer, "killed", 9, "polling", "websocket") as client:
        wait_for_all(client, "registered", 9)
        lost.kill()
        try:
            assert nodes_of(open_session(balancer) for _ in range(6)) <= {"a", "c"}
            pushes = [ask(balancer.push_port, "POST", "/push", "destination=x&data=x", KEYED)[0] for _ in range(6)]
            assert pushes == [200] * 6, pushes
            wait_for(lambda: all(is_back(client, n) for n in range(9)), "all to be back on other nodes")
        finally:
            lost.start()
    wait_for(lambda: open_session(balancer).endswith(".b"), "the node to be used again")


@pytest.mark.parametrize("kind", [NginxBalancer, HAProxyBalancer], ids=lambda kind: kind.__name__)
def test_a_node_that_is_going_down_gets_no_new_sessions_and_no_client_notices(nodes, kind):
    draining = nodes[2]
    with contextlib.closing(kind(nodes)) as balancer, contextlib.closing(connected(balancer)) as browser:
        before = [open_session_on(browser) for _ in range(9)]  # so that the balancer keeps connections to all
        assert nodes_of(before) == set(NAMES)
        connection = http.client.HTTPConnection("127.0.0.1", draining.port, timeout=DEADLINE)
        connection.putrequest("POST", "/push")
        connection.putheader("Content-Length", "26")
        connection.endheaders(b"destination")  # a request under way keeps the relay from ending
        seen = len(draining.log.read_bytes())
        draining.process.send_signal(signal.SIGTERM)
        try:
            wait_for(lambda: b"going down" in draining.log.read_bytes()[seen:], "the shutdown")
            sids = [open_session_on(browser) for _ in range(9)]
            assert draining.process.poll() is None, "still going down"
        finally:
            connection.close()
            draining.process.wait(DEADLINE)
            draining.start()
        assert nodes_of(sids) == {"a", "b"}, sids


def is_back(client, number):
    """Return whether a client's last session is on a node that was not killed."""
    sids = [line["sid"] for line in client.of("registered") if line["number"] == number]
    return nodes_of(sids[-1:]) <= {"a", "c"}


def test_without_stickiness_polls_are_refused_with_the_cause_and_websockets_work(nodes, round_robin):
    answers = [poll(round_robin) for _ in range(4)]
    wrong = [json.loads(body) for status, body in answers if status == 400]
    assert wrong and all(answer["code"] == 1 and answer["error"] == "wrong_node" for answer in wrong)
    assert all("Session ID unknown: it belongs to node" in answer["message"] for answer in wrong)
    wait_for(lambda: "the proxy is not sticky" in nodes.log(), "the line in the log")
    name = f"{type(round_robin).__name__}-websocket"
    with official(round_robin, name, 9, "websocket") as client:
        wait_for_all(client, "registered", 9)
        assert push_to_all(round_robin, name, 9) == {200}
        wait_for_all(client, "data", 9)
        assert not client.of("disconnect") and not client.of("error")


class BreakingNode(http.server.BaseHTTPRequestHandler):
    """A node that is ready, and whose process dies whenever it has read a push."""

    keys: ClassVar[list] = []  # the idempotency keys of the pushes that came

    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.keys.append(self.headers["Idempotency-Key"])
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.mark.parametrize("kind", [NginxBalancer, HAProxyBalancer], ids=lambda kind: kind.__name__)
def test_only_a_push_with_an_idempotency_key_is_sent_to_a_second_node(nodes, kind):
    BreakingNode.keys.clear()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), BreakingNode))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stack.callback(server.shutdown)
        balancer = stack.enter_context(contextlib.closing(kind([Port(server.server_port), nodes[0], nodes[1]])))
        body = f"destination=broken-{kind.__name__}&data=x"

        def push(key=None):
            headers = {**KEYED, "Idempotency-Key": key} if key else KEYED
            return ask(balancer.push_port, "POST", "/push", body, headers)[0]

        wait_for(lambda: push() == 502, "a push that broke")
        assert BreakingNode.keys == [None]
        statuses = []
        # The balancer leaves the node out for a while.
        wait_for(lambda: statuses.append(push(f"key-{len(statuses)}")) or BreakingNode.keys[1:], "a repeated push")
        assert set(statuses) == {200}


class Port(NamedTuple):
    """The part of a node that a balancer needs to know."""

    port: int


@pytest.mark.parametrize("is_sticky", [True, False])
def test_the_doctor_notices_a_balancer_that_is_not_sticky(nodes, is_sticky):
    changes = () if is_sticky else NginxBalancer.ROUND_ROBIN
    with contextlib.closing(NginxBalancer(nodes, changes)) as balancer:
        found = Examination(f"{balancer.url}/relay/", "--quick", *settings_of(nodes[0]))
    if is_sticky:
        assert "6 requests of a session reached its node" in found.said, (found.said, found.complaint)
    else:
        assert "requests of a session reached another node" in found.failures[0]
        assert "docs/load-balancing.md" in found.said


def poll(balancer):
    """Open a session and poll, on a new connection each; return the status and the body."""
    return ask(balancer.port, "GET", f"{PATH}polling&sid={open_session(balancer)}")
