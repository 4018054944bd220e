"""The WSGI app in front of Flask: which requests it answers itself, and what it passes to Flask."""

import pytest
from loading import load_relay
from werkzeug.test import Client, EnvironBuilder

from pushrelay.wsgi.front import is_hooked


@pytest.fixture(scope="module")
def own():
    module = load_relay()
    module.relay.maintenance.start()
    yield module
    module.relay.maintenance.close()


def ask(module, path, method="GET", **environ):
    builder = EnvironBuilder(path, method=method, environ_base={"REMOTE_ADDR": "127.0.0.1", **environ})
    return Client(module.app).open(builder)


@pytest.mark.parametrize("name", ["socket.io.js", "socket.io.min.js"])
def test_the_script_of_socket_io_is_the_relays_own(own, name):
    script = ask(own, f"/socket.io/{name}")
    assert script.status_code == 200 and script.data == ask(own, "/static/relay.js").data


@pytest.mark.parametrize("name", ["socket.io.esm.min.js", "socket.io.mjs", "socket.io.js.map"])
def test_other_builds_of_the_script_are_refused_with_advice(own, name):
    answer = ask(own, f"/socket.io/{name}")
    assert answer.status_code == 404 and "load that one" in answer.json["message"]


def test_head_gets_no_body_from_what_answers_before_flask():
    module, answered = load_relay(base_path="/relay"), []
    environs = [EnvironBuilder(path, method="HEAD").get_environ() for path in ("/", "/relay/socket.io/x.map")]
    environs += [{**environs[1], "wsgi.multiprocess": True}]
    for environ in reversed(environs):
        body = module.app(
            environ, lambda status, headers: answered.append((status[:3], dict(headers)["Content-Length"]))
        )
        assert b"".join(body) == b""
    module.relay.maintenance.close()
    assert [status for status, _ in answered] == ["503", "404", "404"] and all(int(size) for _, size in answered)


def test_an_upgrade_outside_the_engine_is_ignored(own):
    """RFC 9110, 7.8: a server may ignore it. Werkzeug would answer 400."""
    upgrade = {"HTTP_UPGRADE": "websocket", "HTTP_CONNECTION": "Upgrade"}
    assert ask(own, "/health/live", **upgrade).status_code == 200


def test_a_server_with_several_processes_gets_503_for_everything_and_one_line_in_the_log(caplog):
    module = load_relay()
    for path, method in (("/", "GET"), ("/push", "POST"), ("/health/live", "GET"), ("/socket.io/?EIO=4", "GET")):
        answer = Client(module.app).open(EnvironBuilder(path, method=method, multiprocess=True))
        assert (answer.status, answer.json["error"]) == ("503 Service Unavailable", "wrong_server")
        assert "one worker process" in answer.json["message"]
    assert len([line for line in caplog.messages if line.startswith("the relay does not serve")]) == 1
    assert not module.relay.maintenance.started


@pytest.mark.parametrize("name", ["before_request", "after_request", "teardown_request", "url_value_preprocessor"])
def test_functions_hooked_into_the_app_are_noticed_and_those_of_a_blueprint_are_not(name):
    import flask

    app, shop = flask.Flask("own"), flask.Blueprint("shop", "shop")
    getattr(shop, name)(lambda *_: None)
    app.register_blueprint(shop)
    assert not is_hooked(app)
    getattr(app, name)(lambda *_: None)
    assert is_hooked(app)


def test_a_push_takes_its_turn_first_and_each_path_of_programs_has_a_share_of_its_own():
    front = load_relay(base_path="/relay").relay.front

    def share(method, path):
        return front.share_of({"REQUEST_METHOD": method, "PATH_INFO": path, "REMOTE_ADDR": "192.0.2.1"})

    assert share("POST", "/relay/push") is share("POST", "/relay/") is None
    assert share("POST", "/push") == share("GET", "/relay/") == "192.0.2.1"
    assert share("GET", "/relay/history") == "192.0.2.1 /relay/history"


def test_there_is_a_lane_for_pushes_and_for_nothing_else():
    front = load_relay(base_path="/relay").relay.front

    def lane(method="POST", path="/relay/push", **more):
        return front.lane({"REQUEST_METHOD": method, "PATH_INFO": path, **more})

    assert lane() and lane(path="/relay/")
    assert not lane(method="GET") and not lane(path="/push")
    assert not lane(HTTP_IDEMPOTENCY_KEY="1") and not lane(CONTENT_TYPE="image/png")
