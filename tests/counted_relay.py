"""A relay that counts what it holds: `python tests/counted_relay.py FLAGS`, then GET /counts. See leaves.py."""

import json
import pathlib
import runpy
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from leaves import census, open_files  # noqa: E402

from pushrelay.core import Core  # noqa: E402
from pushrelay.engine import handshakes  # noqa: E402

handshakes.UPGRADE_SECONDS = 1.0  # so that its timers end within the test
make_server = Core.make_server


def make_counted_server(relay, app, settings):
    server = make_server(relay, app, settings)
    roots = [relay.rooms, relay.publisher, relay.registrations, relay.broker, relay.lifecycle, relay.access]
    roots += [server, relay.rooms.server]

    def counts():
        return json.dumps(census(*roots) | open_files())

    app.add_url_rule("/counts", view_func=counts)
    return server


Core.make_server = make_counted_server
sys.argv[0] = str(ROOT / "relay.py")
runpy.run_path(sys.argv[0], run_name="__main__")
