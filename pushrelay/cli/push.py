"""`python relay.py push`: push to a destination and print the relay's receipt."""

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from pushrelay.client.dialer import TIMEOUT
from pushrelay.client.errors import ClientError
from pushrelay.client.replies import receipt
from pushrelay.settings import SettingsError, load

from .connecting import dialer_of, key_header
from .flags import warn_of_secrets
from .output import fail, print_data


def push(given: argparse.Namespace, flags: Mapping[str, str]) -> int:
    """Push, print the receipt, and return the exit code. Raises SettingsError for bad usage."""
    settings = load(flags=flags)
    body = json.dumps(_fields(given)).encode()
    headers = {"Content-Type": "application/json", **key_header(settings, given.key)}
    dialer = dialer_of(settings, given.url and given.url.rstrip("/").removesuffix("/push"))
    try:
        reply = dialer.ask("POST", "push", body, headers, TIMEOUT + (given.wait or 0))
        receipt(reply, given.destination, dialer.address.url)
    except ClientError as error:
        if error.reply is not None:
            return fail(str(error))
        return fail(f"{dialer.address.url}: {error}; is the relay running? (python relay.py doctor)")
    print_data(reply.body.decode("utf-8", "replace").strip())
    warn_of_secrets(given)
    return 0


def _fields(given: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of the push. Raises SettingsError if `--json` is given and DATA is not JSON."""
    text = _read_input() if given.data == "-" else given.data
    try:
        data = json.loads(text) if given.json else text
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"DATA is not JSON ({error}); correct it, or leave out --json to send it as text") from None
    optional = {name: getattr(given, name) for name in ("event", "ttl", "id", "wait")}
    return {
        "destination": given.destination,
        "data": data,
        **{name: value for name, value in optional.items() if value is not None},
    }


def _read_input() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError:
        raise SettingsError("the standard input is not UTF-8 text; convert it first, with iconv for example") from None
    except OSError as error:
        raise SettingsError(f"the standard input cannot be read ({error.strerror}); give DATA as an argument") from None
