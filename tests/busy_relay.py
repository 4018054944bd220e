"""The relay with a slow app: `python tests/busy_relay.py --port=0`, with the relay's settings as flags.

GET /sleep?SECONDS and /sleep/ANYTHING?SECONDS sleep. When a client disconnects, its reason is pushed to the destination
"leavers"; but if it has registered "dawdle", its disconnect handler takes half a second. The event "block" keeps one of
the relay's own threads busy for the seconds that it carries, which no event of an app can do.
"""

import os
import pathlib
import sys
import time

for flag in sys.argv[1:]:
    name, _, value = flag.removeprefix("--").partition("=")
    os.environ["RELAY_" + name.upper().replace("-", "_")] = value
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import flask  # noqa: E402
import flask_socketio  # noqa: E402

import relay  # noqa: E402
from pushrelay.cli.banner import banner  # noqa: E402
from pushrelay.register.subscription import room_of  # noqa: E402
from pushrelay.rooms.packet import OUR_EVENTS  # noqa: E402
from pushrelay.store import Draft  # noqa: E402


@relay.app.get("/sleep")
@relay.app.get("/sleep/<path:name>")
def sleep(name=""):
    time.sleep(float(flask.request.query_string))
    return "slept"


def block(sid, seconds, ack):
    time.sleep(seconds)
    return "blocked"


OUR_EVENTS.add("block")
relay.socketio.server.on("block", block)


@relay.socketio.on("disconnect")
def on_disconnect(reason):
    if room_of("dawdle") in flask_socketio.rooms():
        time.sleep(0.5)
    else:
        relay.relay.broker.publish([Draft("leavers", reason)])


server = relay.relay.make_server(relay.app, relay.settings)
print(banner(relay.settings, server.port), flush=True)
server.serve_forever()
