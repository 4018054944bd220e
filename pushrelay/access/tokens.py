"""Rights to register and to push, and the tokens that give them: JSON Web Tokens (RFC 7519), signed with HS256.

PyJWT verifies the signature. Times and names are checked here.
"""

import base64
import contextlib
import time
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import jwt

from pushrelay import json_text
from pushrelay.errors import Refused
from pushrelay.names import destinations_of, kind_of
from pushrelay.settings import Settings

from .member import Member, member_of

if TYPE_CHECKING:
    from jwt.types import Options  # newer than the oldest PyJWT that requirements.txt allows

# 8 KiB: some hundred names. Longer tokens are refused before they are parsed.
MAX_TOKEN = 8192
# The end of the year 9999. A time in milliseconds, as JavaScript has it, is beyond that.
LATEST = 253_402_300_799
# Seconds by which the clock of the signing machine may be ahead of this one (RFC 7519, 4.1.5): a page gives up when its
# token is refused once. `exp` has no leeway, because an expired right must not be used.
LEEWAY = 60.0

# Times are checked here, because PyJWT accepts strings and `true` as times, and fails at infinite ones. The relay does
# not use the other claims, so they may have types that PyJWT rejects, such as a number as `sub`.
_OPTIONS: "Options" = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_sub": False,
    "verify_jti": False,
}
# The relay warns about short secrets itself, once, when it starts.
warnings.filterwarnings("ignore", "The HMAC key is")


class Patterns:
    """Names of destinations. `*` at the end of a name stands for any characters; elsewhere it stands for itself."""

    __slots__ = ("_names", "_prefixes")

    def __init__(self, patterns: Iterable[str]):
        patterns = list(patterns)
        self._names = frozenset(each for each in patterns if not each.endswith("*"))
        self._prefixes = tuple(each[:-1] for each in patterns if each.endswith("*"))

    def __bool__(self) -> bool:
        return bool(self._names or self._prefixes)

    def allows(self, name: str) -> bool:
        """Return whether a name is one of these, or matches one that ends with `*`."""
        return name in self._names or name.startswith(self._prefixes)


NONE = Patterns(())


class Rights(NamedTuple):
    """The rights of a visitor."""

    ids: Patterns  # that it may register
    push: Patterns  # that it may push to
    expires: float | None = None  # seconds since 1970; None: as long as the socket is connected
    member: Member | None = None  # the user that it is, if the site names one
    presence: Patterns = NONE  # destinations whose members it may see

    @property
    def is_empty(self) -> bool:
        """Whether they allow nothing."""
        return not (self.ids or self.push or self.presence)

    def check_time(self) -> None:
        """Raise Refused if they have expired."""
        if self.expires is not None and self.expires <= time.time():
            raise Refused(403, "token_expired", expired_since(self.expires))


def expired_since(expires: float) -> str:
    """Return the message about rights that ended at this time. It shows the relay's clock, which may be wrong."""
    now = time.time()
    clock = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    return (
        f"it expired (exp) {_duration(now - expires)} ago by the relay's clock ({clock}): register again with a "
        "new token, or compare that clock with your server's if this one is new"
    )


def _duration(seconds: float) -> str:
    """Return a duration such as "3 hours", in the largest unit of which there are at least two."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} seconds"


def rights_of(claims: dict[str, Any], settings: Settings) -> Rights:
    """Return the rights that these claims give. Raises ValueError with the claim at fault and the reason."""
    expires, begins = _time(claims, "exp"), _time(claims, "nbf")
    if begins is not None and begins > time.time() + LEEWAY:
        raise ValueError(f"it is not valid yet: its time (nbf) is more than {LEEWAY:.0f} s ahead; compare the clocks")
    ids, push, presence = (_patterns(claims, name, settings) for name in ("ids", "push", "presence"))
    return Rights(ids, push, expires, member_of(claims), presence)


def _patterns(claims: dict[str, Any], name: str, settings: Settings) -> Patterns:
    value = claims.get(name, [])
    if not isinstance(value, list):
        hint = " (in PHP: array_values())" if isinstance(value, dict) else ""
        raise ValueError(f"{name} is a list of names{hint}, not {kind_of(value)}")
    try:
        return Patterns(destinations_of(value, settings, len(value)) if value else ())
    except Refused as refused:
        raise ValueError(f"{name} has an invalid name: {refused.message}") from None


def _time(claims: dict[str, Any], name: str) -> float | None:
    """Return a time in seconds since 1970; None without that claim (RFC 7519, 2, "NumericDate")."""
    if name not in claims:
        return None
    value = claims[name]
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not abs(value) <= LATEST:  # so that NaN is refused as well
        raise ValueError(f"{name} is a time in seconds since 1970, a number such as PHP's time() + 3600")
    return float(value)


class Tokens:
    """Reads tokens that were signed with one of the secrets in the setting `secret`. Any thread may call it."""

    def __init__(self, settings: Settings):
        self._settings = settings

    def read(self, token: Any) -> Rights:
        """Return the rights that a token gives now. Raises Refused (403); no message shows what is in the token."""
        if token is None:
            message = "a token is needed here (setting secret): your server signs one, register(id, {token}) sends it"
            raise Refused(403, "missing_token", message)
        claims = self._claims(token)
        try:
            rights = rights_of(claims, self._settings)
        except ValueError as error:
            raise _invalid(str(error)) from None
        if rights.is_empty:
            raise _invalid("it allows nothing: name what may be registered in its claim ids, a list")
        rights.check_time()
        return rights

    def _claims(self, token: Any) -> dict[str, Any]:
        """Return the claims of a token after verifying its signature."""
        if not isinstance(token, str):
            raise _invalid(f"a token is a string, not {kind_of(token)}")
        if len(token) > MAX_TOKEN:
            raise _invalid(f"a token has {MAX_TOKEN} bytes at most: use names that end with *")
        _check_depth(token)
        for secret in self._settings.secret:
            try:
                return jwt.decode(token, secret, algorithms=["HS256"], options=_OPTIONS)
            except jwt.InvalidSignatureError:
                continue  # it may have been signed with the next one
            except jwt.InvalidAlgorithmError:
                raise _invalid("it is not signed with HS256, the only algorithm that is accepted") from None
            except jwt.InvalidAudienceError:
                raise _invalid("it is for another audience: leave the claim aud out") from None
            except (jwt.PyJWTError, ValueError, TypeError):
                raise _invalid("it is not a JSON Web Token that the relay can read") from None
        raise _invalid("it is not signed with the relay's secret: both sides need the same (setting secret)")


def _check_depth(token: str) -> None:
    """Raise Refused if the header or the claims are nested too deeply to be read."""
    for part in token.split(".")[:2]:
        with contextlib.suppress(ValueError):  # PyJWT refuses invalid base64
            text = base64.urlsafe_b64decode(part.encode() + b"==").decode("latin-1")
            try:
                json_text.check_depth(text)
            except json_text.TooDeep as error:
                raise _invalid(str(error)) from None


def _invalid(why: str) -> Refused:
    return Refused(403, "invalid_token", f"this token is not accepted: {why}")


def sign(claims: dict[str, Any], secret: str) -> str:
    """Return a token with these claims."""
    return jwt.encode(claims, secret, algorithm="HS256")
