"""`python relay.py health`: whether the relay accepts pushes, as an exit code, for containers and monitoring."""

import argparse
from collections.abc import Mapping

from pushrelay.client.errors import ClientError
from pushrelay.client.replies import read_object
from pushrelay.settings import load

from .connecting import dialer_of
from .output import fail, print_data

SECONDS = 3.0  # within which a relay answers, even on a busy machine


def health(given: argparse.Namespace, flags: Mapping[str, str]) -> int:
    """Print whether the relay accepts pushes now, and return the exit code. Raises SettingsError."""
    dialer = dialer_of(load(flags=flags), given.url)
    try:
        reply = dialer.ask("GET", "health/ready", timeout=SECONDS)
    except ClientError as error:
        return fail(f"{dialer.address.url}: {error}; is the relay running?")
    answer = read_object(reply)
    if reply.status == 200 and answer.get("ready") is True:
        print_data("the relay accepts pushes")
        return 0
    return fail(f"{dialer.address.url}: {answer.get('reason', f'{reply.status} {reply.reason}, not from a relay')}")
