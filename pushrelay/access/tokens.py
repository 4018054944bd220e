"""What somebody may register and push, and the tokens that say so: JSON Web Tokens (RFC 7519), signed with HS256."""

import base64
import contextlib
import time
import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import jwt

from pushrelay import json_text
from pushrelay.errors import Refused
from pushrelay.names import destinations_of, kind_of
from pushrelay.settings import Settings

# 8 KiB: some hundred names. Who is larger than that is refused before anything is made of it.
MAX_TOKEN = 8192
# The end of the year 9999. Milliseconds, which JavaScript counts in, are beyond it.
LATEST = 253_402_300_799
# Seconds that the clock of the machine that signs may be ahead of this one (RFC 7519, 4.1.5). `exp` has no leeway: a
# right that has ended has ended.
LEEWAY = 60.0

# Times are checked here: PyJWT takes strings and true for numbers, and fails at what is infinite. The others are claims
# of which the relay makes no use, and which need not be what PyJWT wants them to be (a `sub` that is a number, say).
_OPTIONS = {f"verify_{claim}": False for claim in ("exp", "nbf", "iat", "sub", "jti")}
# About short secrets the start warns, once.
warnings.filterwarnings("ignore", "The HMAC key is")


class Patterns:
    """Names. One that ends with `*` stands for all that begin with what is before it; elsewhere `*` is a character."""

    __slots__ = ("_names", "_prefixes")

    def __init__(self, patterns: Iterable[str]):
        patterns = list(patterns)
        self._names = frozenset(each for each in patterns if not each.endswith("*"))
        self._prefixes = tuple(each[:-1] for each in patterns if each.endswith("*"))

    def __bool__(self) -> bool:
        return bool(self._names or self._prefixes)

    def allows(self, name: str) -> bool:
        return name in self._names or name.startswith(self._prefixes)


class Rights(NamedTuple):
    """What somebody may."""

    ids: Patterns  # register
    push: Patterns  # push to
    expires: float | None = None  # seconds since 1970; None: as long as the socket lives

    def check_time(self) -> None:
        """Raise Refused where they have expired."""
        if self.expires is not None and self.expires <= time.time():
            raise Refused(403, "token_expired", expired_since(self.expires))


def expired_since(expires: float) -> str:
    """Return the sentence for rights that ended at this time. It shows the relay's clock, which may be wrong."""
    now = time.time()
    clock = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    return (
        f"its time (exp) was over {_duration(now - expires)} ago by the relay's clock ({clock}): register again with a "
        "new token, or compare that clock with your server's if this one is new"
    )


def _duration(seconds: float) -> str:
    """A time as people say it, such as "3 hours"; in the largest unit of which there are at least two."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} seconds"


def rights_of(claims: dict[str, Any], settings: Settings) -> Rights:
    """The rights that these claims give. Raises ValueError with what is wrong with which claim."""
    expires, begins = _time(claims, "exp"), _time(claims, "nbf")
    if begins is not None and begins > time.time() + LEEWAY:
        raise ValueError(f"its time (nbf) has not come yet, and is more than {LEEWAY:.0f} s ahead: compare the clocks")
    return Rights(_patterns(claims, "ids", settings), _patterns(claims, "push", settings), expires)


def _patterns(claims: dict[str, Any], name: str, settings: Settings) -> Patterns:
    value = claims.get(name, [])
    if not isinstance(value, list):
        hint = " (in PHP: array_values())" if isinstance(value, dict) else ""
        raise ValueError(f"{name} is a list of names{hint}, not {kind_of(value)}")
    try:
        return Patterns(destinations_of(value, settings, len(value)) if value else ())
    except Refused as refused:
        raise ValueError(f"{name} holds what is no name: {refused.message}") from None


def _time(claims: dict[str, Any], name: str) -> float | None:
    """Seconds since 1970, or None where there is no such claim (RFC 7519, 2, "NumericDate")."""
    if name not in claims:
        return None
    value = claims[name]
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not abs(value) <= LATEST:  # so that NaN is refused, too
        raise ValueError(f"{name} is a time in seconds since 1970, a number such as PHP's time() + 3600")
    return float(value)


class Tokens:
    """Reads tokens that were signed with one of the setting `secret`. Any thread may call it."""

    def __init__(self, settings: Settings):
        self._settings = settings

    def read(self, token: Any) -> Rights:
        """The rights that a token gives now. Raises Refused (403), and never says what is in the token."""
        if token is None:
            message = "a token is needed here (setting secret): your server signs one, register(id, {token}) sends it"
            raise Refused(403, "missing_token", message)
        claims = self._claims(token)
        try:
            rights = rights_of(claims, self._settings)
        except ValueError as error:
            raise _invalid(str(error)) from None
        if not rights.ids and not rights.push:
            raise _invalid("it allows nothing: name what may be registered in its claim ids, a list")
        rights.check_time()
        return rights

    def _claims(self, token: Any) -> dict[str, Any]:
        """What is in a token, once its signature is found to be good."""
        if not isinstance(token, str):
            raise _invalid(f"a token is a string, not {kind_of(token)}")
        if len(token) > MAX_TOKEN:
            raise _invalid(f"a token has {MAX_TOKEN} bytes at most: use names that end with * for what it allows")
        _check_depth(token)
        for secret in self._settings.secret:
            try:
                return jwt.decode(token, secret, algorithms=["HS256"], options=_OPTIONS)
            except jwt.InvalidSignatureError:
                continue  # maybe it was signed with the next
            except jwt.InvalidAlgorithmError:
                raise _invalid("it is not signed with HS256, and nothing else is taken") from None
            except jwt.InvalidAudienceError:
                raise _invalid("it is for somebody else: leave the claim aud out") from None
            except (jwt.PyJWTError, ValueError, TypeError):
                raise _invalid("it is no JSON Web Token that the relay can read") from None
        raise _invalid("it is not signed with the relay's secret: both sides need the same (setting secret)")


def _check_depth(token: str) -> None:
    """Raise Refused if the header or the claims are nested so deep that reading them could fail."""
    for part in token.split(".")[:2]:
        with contextlib.suppress(ValueError):  # PyJWT refuses what is no base64
            text = base64.urlsafe_b64decode(part.encode() + b"==").decode("latin-1")
            try:
                json_text.check_depth(text)
            except json_text.TooDeep as error:
                raise _invalid(str(error)) from None


def _invalid(why: str) -> Refused:
    return Refused(403, "invalid_token", f"this token is not taken: {why}")


def sign(claims: dict[str, Any], secret: str) -> str:
    """A token with these claims."""
    return jwt.encode(claims, secret, algorithm="HS256")
