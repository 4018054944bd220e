"""How a command reaches the relay: its address, a key and a token, all from the settings."""

import re
import time
from collections.abc import Sequence
from typing import Any

from pushrelay.access.tokens import sign
from pushrelay.client.address import address_of
from pushrelay.client.dialer import Dialer
from pushrelay.pages.demo import address
from pushrelay.settings import Settings, SettingsError

TOKEN_SECONDS = 3600  # a client that connects again signs a new token


def dialer_of(settings: Settings, url: str | None = None) -> Dialer:
    """Return a dialer for the relay at `url`, by default at the address in the settings. Raises SettingsError."""
    if not url and not settings.port and not settings.host.startswith("unix:"):
        raise SettingsError("port = 0 lets the system choose the port; name the relay's address with --url or --port")
    try:
        at = address_of(url or address(settings, settings.port)[0])
    except ValueError as error:
        raise SettingsError(str(error)) from None
    return Dialer(at._replace(path=f"{settings.base_path}/") if at.unix else at)


def key_header(settings: Settings, key: str | None = None) -> dict[str, str]:
    """Return the header that lets a program push: with `key`, or else the first of push_keys; empty without a key.

    Raises SettingsError if no header can hold the key.
    """
    key = key or (settings.push_keys[0].key if settings.push_keys else "")
    if not re.fullmatch("[!-~]*", key):
        raise SettingsError(
            "--key has a character that no key has: a space, a line break or a letter beyond ASCII; copy it again"
        )
    return {"Authorization": f"Bearer {key}"} if key else {}


def signed(settings: Settings, ids: Sequence[str], seconds: float = TOKEN_SECONDS, **claims: Any) -> str:
    """Return a token for these ids that expires in `seconds`, signed with the first secret. There must be one.

    `claims` are further ones; those that are empty are left out.
    """
    given = {name: value for name, value in claims.items() if value}
    return sign({"ids": list(ids), **given, "exp": int(time.time() + seconds)}, settings.secret[0])
