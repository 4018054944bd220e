"""relay.py as a module of a test's own, in the test's process."""

import importlib.util
import os

from conftest import ROOT, clean_environ


def load_relay(**settings):
    """Return relay.py as a new module with these settings, on a store in memory. Nothing of it is started.

    Its Core is `module.relay`, its Flask app `module.app`.
    """
    before = dict(os.environ)
    environ = {f"RELAY_{name.upper()}": str(value) for name, value in {"broker": "memory:", **settings}.items()}
    os.environ.clear()
    os.environ.update(clean_environ() | environ)
    try:
        spec = importlib.util.spec_from_file_location("relay_of_a_test", ROOT / "relay.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return module
