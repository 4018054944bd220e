"""Core: the parts of a relay, put together from settings, with a broker of the caller's if there is one."""

import threading
import types

import flask
import pytest
from loading import load_relay
from starting import run
from werkzeug.test import Client

from pushrelay import __version__
from pushrelay.core import Core, node_of
from pushrelay.settings import Settings
from pushrelay.store import open_broker


def test_putting_the_parts_together_starts_nothing(tmp_path):
    before = threading.enumerate()
    relay = Core(Settings(broker=f"sqlite:{tmp_path}/relay.db"))
    # A thread of an earlier test may end in the meantime.
    assert set(threading.enumerate()) <= set(before) and not list(tmp_path.iterdir())
    assert not relay.maintenance.started and relay.front is None


def test_a_broker_of_ones_own_is_used_everywhere():
    made = []

    def broker(deliver):
        made.append(open_broker("memory:", deliver))
        return made[0]

    relay = Core(Settings(broker="sqlite:/no/such/folder/relay.db"), broker)
    assert relay.broker is made[0]
    relay.maintenance.start()
    app = flask.Flask("own")
    app.wsgi_app = relay.wsgi(app)
    answer = Client(app).post(
        "/push", data={"destination": "a", "data": "x"}, environ_base={"REMOTE_ADDR": "127.0.0.1"}
    )
    assert answer.status_code == 200 and answer.json["id"] == made[0].position("a")
    relay.maintenance.close()


def test_trouble_names_the_store_to_callers_on_this_machine_only(tmp_path):
    relay = load_relay(broker=f"sqlite:{tmp_path}/none/relay.db").relay
    assert relay.trouble({"REMOTE_ADDR": "127.0.0.1"}) is None
    relay.maintenance.ensure_open()
    here, there = (relay.trouble({"REMOTE_ADDR": peer}) for peer in ("127.0.0.1", "192.0.2.1"))
    assert str(tmp_path) in here and str(tmp_path) not in there and "log" in there
    relay.close()
    assert relay.trouble({"REMOTE_ADDR": "192.0.2.1"}) == "draining"


def test_a_route_for_programs_refuses_others():
    """The decorator of relay.py; tests/access has the same for every route there is."""
    module = load_relay()
    view = module.for_programs(lambda: module.json_response({"secret": 1}))
    module.app.add_url_rule("/numbers", view_func=view)
    module.relay.maintenance.start()
    client = Client(module.app)
    assert client.get("/numbers", environ_base={"REMOTE_ADDR": "192.0.2.1"}).status_code == 401
    assert client.get("/numbers", environ_base={"REMOTE_ADDR": "127.0.0.1"}).json == {"secret": 1}
    module.relay.maintenance.close()


def test_an_own_hook_may_abort_with_a_response_of_its_own():
    module = load_relay()
    module.relay.maintenance.start()
    module.app.before_request(lambda: flask.abort(flask.Response("closed on Sundays", 418)))
    answer = Client(module.app).get("/health/live")
    assert (answer.status_code, answer.text) == (418, "closed on Sundays")
    module.relay.maintenance.close()


def test_an_own_view_may_be_called_push():
    app = load_relay().app
    app.add_url_rule("/mine", "push", lambda: "mine")
    with app.test_request_context("/mine"):
        assert app.dispatch_request() == "mine"


def test_errors_of_the_relays_routes_are_json_and_those_of_an_apps_own_are_flasks():
    module = load_relay()
    ours, own = (types.FunctionType((lambda: "1").__code__, {"__name__": name}) for name in (module.__name__, "shop"))
    module.app.add_url_rule("/late", "late", ours)  # as if it were the last route of relay.py
    module.app.add_url_rule("/shop", "shop", own)
    module.relay.maintenance.start()
    client = Client(module.app)
    kinds = {path: client.put(path).content_type for path in ("/late", "/push", "/static/relay.js", "/none", "/shop")}
    assert kinds.pop("/shop").startswith("text/html") and set(kinds.values()) == {"application/json"}
    module.relay.maintenance.close()


def test_the_version_has_one_place():
    ran = run("--version")
    assert (ran.stdout, ran.returncode) == (f"relay {__version__}\n", 0)


@pytest.mark.parametrize("server", ["own", "werkzeug"])
def test_a_server_is_made_for_another_address_than_the_settings_name(server):
    settings = Settings(broker="memory:", server=server, port=1, imported=True)
    relay = Core(settings)
    chosen = Settings(server=server, port=0)
    made = relay.make_server(lambda environ, start_response: [], chosen)
    assert made.port > 1
    made.close()


def test_a_relay_among_several_has_a_name_of_its_own_and_a_single_one_has_none():
    shared, single, named = Settings(broker="redis://127.0.0.1/0"), Settings(broker="memory:"), Settings(node="web-1")
    assert node_of(shared) and node_of(shared) != node_of(shared)
    assert (node_of(single), node_of(named)) == ("", "web-1")
