"""A relay with routes and events that fail, for tests of the log: `python tests/logged_relay.py FLAGS`."""

import pathlib
import runpy
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pushrelay.core import Core  # noqa: E402

make_server = Core.make_server


def make_failing_server(relay, app, settings):
    def boom(text):
        raise RuntimeError(f"{text}\n2026-01-01 00:00:00,000 ERROR pushrelay: forged")

    app.add_url_rule("/boom/<path:text>", view_func=boom)
    relay.rooms.server.on("boom", lambda sid, text: boom(text))
    return make_server(relay, app, settings)


Core.make_server = make_failing_server
sys.argv[0] = str(ROOT / "relay.py")
runpy.run_path(sys.argv[0], run_name="__main__")
