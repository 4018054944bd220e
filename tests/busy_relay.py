"""The relay with a slow app: `python tests/busy_relay.py --port=0`, with the relay's settings as flags.

GET /hold and /hold/ANYTHING, the event "block" and the disconnect handlers of clients that have registered "held" hold
their thread until the test opens the gate of this relay (gate.py). The event holds one of the relay's own threads,
which no event of an app can do. When another client disconnects, its reason is pushed to the destination "leavers".
"""

import itertools
import os
import pathlib
import sys
import time

for flag in sys.argv[1:]:
    name, _, value = flag.removeprefix("--").partition("=")
    os.environ["RELAY_" + name.upper().replace("-", "_")] = value
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import flask_socketio  # noqa: E402

import relay  # noqa: E402
from pushrelay.cli.banner import banner  # noqa: E402
from pushrelay.register.subscription import room_of  # noqa: E402
from pushrelay.rooms.packet import OUR_EVENTS  # noqa: E402
from pushrelay.store import Draft  # noqa: E402


@relay.app.get("/hold")
@relay.app.get("/hold/<path:name>")
def hold(name=""):
    wait_at_the_gate()
    return "held"


numbers = itertools.count()


def wait_at_the_gate():
    gate = f"{relay.settings.broker.partition(':')[2]}.gate"
    pathlib.Path(f"{gate}-{next(numbers)}").touch()
    end = time.monotonic() + 120
    while not os.path.exists(gate) and time.monotonic() < end:
        time.sleep(0.01)


def block(sid, data, ack):
    wait_at_the_gate()
    return "blocked"


OUR_EVENTS.add("block")
relay.socketio.server.on("block", block)


@relay.socketio.on("disconnect")
def on_disconnect(reason):
    if room_of("held") in flask_socketio.rooms():
        wait_at_the_gate()
    else:
        relay.relay.broker.publish([Draft("leavers", reason)])


server = relay.relay.make_server(relay.app, relay.settings)
print(banner(relay.settings, server.port), flush=True)
server.serve_forever()
