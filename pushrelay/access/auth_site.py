"""One question to the site behind the setting auth_url: what it answers, and what to do if that is of no use.

The doctor asks it in the same way as the relay does.
"""

import base64
import json
import ssl
import time
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from pushrelay import json_text
from pushrelay.access.cookies import cookie_names
from pushrelay.addresses import ip_of
from pushrelay.client.deadline import IncompleteResponse, InvalidResponse, get
from pushrelay.client.tls import client_context
from pushrelay.errors import Refused
from pushrelay.settings import Settings, without_secrets

from .auth_requests import not_available
from .tokens import Rights, rights_of

MAX_ANSWER = 65536  # bytes: thousands of ids
LONGEST_AGENT = 512  # characters of a User-Agent that are passed on

_ELSEWHERE = (
    "auth_url sent the relay on to {location} ({status}), and it does not go there. Mostly that is a login page: have "
    "auth_url itself answer 401 to who is not logged in"
)
_MOVED = "auth_url sent the relay on to {location} ({status}), and the relay does not follow redirects"
_LOGIN = "have auth_url itself answer 401 to visitors who are not logged in"
_SEE_LOGS = "look into the error logs of its web server and of PHP"
_TRY = "ask it yourself with curl, and look at what it prints"


class Visitor(NamedTuple):
    """The browser that is asked about: what the site would see of it if it came by itself."""

    cookies: str = ""
    agent: str = ""
    address: str = ""


class AuthResult(NamedTuple):
    """What a question led to. `cause` is a word for what is wrong with the site or with auth_url; empty if nothing is.

    `advice` tells the operator what to do about it.
    """

    outcome: Rights | Refused
    cause: str = ""
    advice: str = ""


class AuthSite:
    """Asks the setting auth_url. Any thread may call it. Raises SettingsError for an auth_ca that cannot be read."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._parts = urlsplit(settings.auth_url)
        self._context = client_context(settings.auth_ca) if self._parts.scheme == "https" else None

    def ask(self, visitor: Visitor) -> AuthResult:
        """Ask which ids this visitor may register. It takes auth_timeout at most, unless a name server hangs."""
        timeout = self._settings.auth_timeout
        try:
            headers = {**_headers(visitor), **_password(self._parts)}
            reply = get(self._parts, headers, time.monotonic() + timeout, MAX_ANSWER + 1, self._context)
        except TimeoutError:
            return self.too_late()
        except ssl.SSLCertVerificationError as error:
            return _failed("tls", f"no secure connection to it: {error.verify_message}", _about_certificate(error))
        except ssl.SSLError as error:
            advice = "check whether auth_url should begin with http://, and its port"
            return _failed("tls", f"no secure connection to it: {error.reason or 'TLS failed'}", advice)
        except IncompleteResponse:
            return _failed("cut", "its answer was cut short", _SEE_LOGS)
        except (InvalidResponse, ValueError):
            return _failed(
                "http", "what it answered is not HTTP", "check whether auth_url needs https://, and its port"
            )
        except OSError as error:
            advice = "check that its web server runs, and host and port in auth_url"
            return _failed("connection", f"no connection to it: {error.strerror or 'it broke'}", advice)
        if reply.status in (401, 403):
            return AuthResult(Refused(403, "not_allowed", _denial(reply.status, visitor)))
        return self._found(reply.status, reply.headers.get("Location", ""), reply.body)

    def too_late(self) -> AuthResult:
        """Return what is found of a site that has not answered in time."""
        why = f"it did not answer within {self._settings.auth_timeout:g} s (setting auth_timeout)"
        advice = "look for what holds it up: a session that another page keeps locked (read_and_close), or PHP workers "
        return _failed("timeout", why, advice + "that are all busy")

    def _found(self, status: int, location: str, body: bytes) -> AuthResult:
        if 300 <= status < 400:
            return self._redirected(status, location)
        if status != 200:
            return _failed("status", f"it answered with status {status}", self._about_status(status))
        if len(body) > MAX_ANSWER:
            why = f"its answer has more than {MAX_ANSWER} bytes: use names that end with *"
            return _failed("answer", why, "have it answer with fewer names")
        try:
            answer = json_text.read(body.decode(json.detect_encoding(body)))
        except ValueError:
            why = "its answer is not JSON: look whether it prints something else, a warning say"
            return _failed("answer", why, _TRY + self._other_site())
        claims = {"ids": answer} if isinstance(answer, list) else answer
        if not isinstance(claims, dict) or not claims.keys() & {"ids", "push"}:
            return _failed("answer", 'its answer is not a list of ids, nor an object such as {"ids": ["42"]}', _TRY)
        try:
            return AuthResult(rights_of(claims, self._settings))
        except ValueError as error:
            return _failed("answer", f"its answer cannot be used: {error}", _TRY)

    def _redirected(self, status: int, location: str) -> AuthResult:
        """A redirect to the login page is a no; one to the same page elsewhere is a mistake in auth_url."""
        own, said = self._parts, _printable(location)
        try:
            target = urlsplit(urljoin(self._settings.auth_url, location))
            is_same_page = _page(target) == _page(own) and target.hostname and target != own
        except ValueError:
            is_same_page = False
        if not is_same_page:
            message = _ELSEWHERE.format(status=status, location=said or "nowhere")
            return AuthResult(Refused(403, "not_allowed", message), "redirect", _LOGIN)
        better = without_secrets(target.geturl())
        return _failed("redirect", _MOVED.format(status=status, location=said), f"write auth_url = {better}")

    def _about_status(self, status: int) -> str:
        if status in (404, 410):
            return "check the path in auth_url" + self._other_site()
        return _SEE_LOGS if status >= 500 else _TRY

    def _other_site(self) -> str:
        """A web server that is asked by its address takes the first of its sites."""
        host = self._parts.hostname or ""
        if host != "localhost" and ip_of(host) is None:
            return ""
        return (
            f"; a web server with several sites answers for {host} with the first of them, so name your site's own "
            "host in auth_url, or give it a port of its own there (docs/socket-api.md, Several sites)"
        )


def _headers(visitor: Visitor) -> dict[str, str]:
    """Return what goes with the question. Sites that bind a session to a browser or to an address compare these."""
    headers = {"Accept": "application/json"}
    agent = "".join(each for each in visitor.agent[:LONGEST_AGENT] if each.isprintable())
    given = {"Cookie": visitor.cookies, "User-Agent": agent, "X-Forwarded-For": visitor.address}
    return headers | {name: value for name, value in given.items() if value}


def _password(parts: SplitResult) -> dict[str, str]:
    """Return the header for a name and a password in the URL (RFC 7617), for a site behind Basic authentication."""
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def _denial(status: int, visitor: Visitor) -> str:
    """Return the sentence for a visitor whom the site denies everything."""
    if not visitor.cookies:
        cause = "the browser sent no cookie, so log in, or load the page from the relay's own host name"
    else:
        names = ", ".join(cookie_names(visitor.cookies))
        cause = f"{f'it was shown {names}, so ' if names else ''}log in, and register again"
    return f"the site says no ({status}): {cause}"


def _failed(cause: str, why: str, advice: str) -> AuthResult:
    return AuthResult(not_available(why), cause, advice)


def _about_certificate(error: ssl.SSLCertVerificationError) -> str:
    said = error.verify_message
    if "issuer" in said or "self-signed" in said or "self signed" in said:
        return (
            "if a CA of your own has signed its certificate, name that CA's file in the setting auth_ca; else have the "
            "web server send the intermediate certificates as well"
        )
    if "mismatch" in said or "not valid for" in said:
        return "write a host name that its certificate names into auth_url"
    if "expired" in said:
        return "renew its certificate (certbot renew)"
    return "try it with: curl -v, and the same URL"


def _page(parts: SplitResult) -> str:
    return (parts.path or "/").rstrip("/")


def _printable(location: str) -> str:
    # Without the query, in which PHP may have put the session's id.
    return "".join(each for each in without_secrets(location)[:200] if each.isprintable())
