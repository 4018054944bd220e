"""`python relay.py token`: print a token that lets a page register."""

import argparse
from collections.abc import Mapping

from pushrelay.settings import load

from .connecting import signed
from .flags import warn_of_secrets
from .output import fail, print_data


def token(given: argparse.Namespace, flags: Mapping[str, str]) -> int:
    """Print a token for the given ids, and return the exit code. Raises SettingsError."""
    settings = load(flags=flags)
    if not settings.secret:
        return fail(
            "there is no secret to sign with, so the relay accepts no tokens; set secret in [relay], the same as in PHP"
        )
    print_data(signed(settings, given.ids, given.push or (), given.expires))
    warn_of_secrets(given)
    return 0
