"""The parts of the relay. relay.py puts them behind a Flask app; nothing here depends on Flask.

Python 3.6 and later can compile this file and relay.py, so an old Python gets the sentence below, not a SyntaxError.
"""

import os
import sys

__version__ = "0.1.0"

if sys.version_info < (3, 11):  # noqa: UP036
    TOO_OLD = (
        "the relay needs Python 3.11 or later, and this is Python {}.{}: "
        "install a newer one, make a venv with it, and run  pip install -r requirements.txt  there"
    ).format(*sys.version_info)  # noqa: UP032
    if os.path.basename(getattr(sys.modules["__main__"], "__file__", "")) != "relay.py":
        raise ImportError(TOO_OLD)
    sys.stderr.write("relay: " + TOO_OLD + "\n")
    raise SystemExit(2)
