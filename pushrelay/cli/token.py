"""`python relay.py token`: print a token that lets a page register."""

import argparse
from collections.abc import Mapping
from typing import Any

from pushrelay import json_text
from pushrelay.access.member import member_of
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
    claims = {"push": given.push, "presence": given.presence}
    try:
        user = _user(given.user, given.info)
        member_of({"as": user})
    except ValueError as error:
        return fail(f"{error} (flags --as and --info)")
    print_data(signed(settings, given.ids, given.expires, **claims, **{"as": user}))
    warn_of_secrets(given)
    return 0


def _user(id_: str | None, info: str | None) -> dict[str, Any] | None:
    """Return the claim `as`; None without a user. Raises ValueError with the reason."""
    if id_ is None:
        if info is not None:
            raise ValueError("info belongs to a user: name the user too")
        return None
    try:
        return {"id": id_, **({} if info is None else {"info": json_text.read(info)})}
    except ValueError:
        raise ValueError('info is a JSON object, such as {"name": "Ann"}') from None
