"""The address of a MySQL or MariaDB in the setting `outbox`: its grammar, and how the address may be shown.

    mysql://USER[:PASSWORD]@HOST[:PORT]/DATABASE[?ssl_ca=FILE]
    mysql://USER[:PASSWORD]@localhost/DATABASE?unix_socket=PATH

As in redis_url.py, the grammar is strict, so that no part of a password is silently taken for something else.
"""

import dataclasses
import os
import re

from .host_names import ENCODE, UNIX_PATH_BYTES, percent_decoded, split_address

PORT = 3306
_OPTIONS = ("ssl_ca", "unix_socket")
_EXAMPLE = "mysql://relay:PASSWORD@127.0.0.1/shop"


@dataclasses.dataclass(frozen=True, repr=False)
class MySQLURL:
    """A database. Everything is percent-decoded."""

    host: str
    port: int
    user: str
    password: str
    database: str
    unix_socket: str = ""  # the path of a socket, which is used instead of host and port
    ssl_ca: str = ""  # a file with certificates of CAs (PEM): the server must have a certificate of one of them

    def __str__(self) -> str:
        """Return the address as it may be shown, without user, password and options."""
        if self.unix_socket:
            return f"{self.unix_socket}, database {self.database}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mysql://{host}:{self.port}/{self.database}"

    def __repr__(self) -> str:
        return f"MySQLURL({str(self)!r}, …)"  # a traceback or a log shows no password


def outbox_url(text: str) -> str:
    """Return the text if it is empty or an address. Raises ValueError with the end of "outbox must be …"."""
    if text:
        mysql_url(text)
    return text


def mysql_url(text: str) -> MySQLURL:
    """Parse an address. Raises ValueError with the end of the sentence "outbox must be …"."""
    try:
        return _parsed(text)
    except ValueError as error:
        raise ValueError(f"an address such as {_EXAMPLE}: {error}") from None


def _parsed(text: str) -> MySQLURL:
    scheme, colon, rest = text.partition("://")
    if not colon or scheme not in ("mysql", "mariadb"):
        raise ValueError("it begins with mysql://, for MySQL and for MariaDB")
    if not re.fullmatch(r"[!-~]+", rest):
        raise ValueError("it is one word of plain ASCII; percent-encode the UTF-8 bytes of other characters")
    main, _, query = rest.partition("?")
    userinfo, at, place = main.rpartition("@")
    if re.search("[/@]", userinfo) or "@" in query or "#" in rest:
        raise ValueError(ENCODE)
    user, _, password = userinfo.partition(":")
    if not at or not user:
        raise ValueError("write USER:PASSWORD@ before the host")
    if ":" in password:
        raise ValueError(ENCODE)
    hosts, _, database = place.partition("/")
    if not database or "/" in database:
        raise ValueError("the name of the database follows the host, after one slash")
    options = _options(query)
    socket, ca = (options.get(name, "") for name in ("unix_socket", "ssl_ca"))
    return MySQLURL(
        *split_address(hosts, PORT),
        percent_decoded(user),
        percent_decoded(password),
        percent_decoded(database),
        socket,
        ca,
    )


def _options(query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        if name not in _OPTIONS:
            raise ValueError(f"this option does not exist after the ?; known options are {', '.join(_OPTIONS)}")
        if name in found or not value:
            raise ValueError(f"{name}= appears once after the ?, with a value")
        found[name] = percent_decoded(value)
        if not found[name].startswith("/"):
            raise ValueError(f"{name}= is a path that begins with a slash")
    if len(os.fsencode(found.get("unix_socket", ""))) > UNIX_PATH_BYTES:
        raise ValueError(f"the path of the socket has at most {UNIX_PATH_BYTES} bytes")
    return found
