"""One request to the site behind the setting auth_url: the rights in its answer, or what is wrong and what to do.

The doctor sends it in the same way as the relay does.
"""

import json
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

from pushrelay import json_text
from pushrelay.addresses import ip_of
from pushrelay.client.deadline import Reply
from pushrelay.client.site import IF_SLOW, SEE_LOGS, Site, SiteError
from pushrelay.errors import Refused
from pushrelay.settings import Settings, without_secrets

from .auth_requests import not_available
from .cookies import cookie_names
from .tokens import Rights, rights_of
from .visitor import Visitor

MAX_ANSWER = 65_536  # bytes: thousands of ids

_REDIRECT = "auth_url redirects to {location} ({status}), and the relay does not follow redirects"
_TO_LOGIN = _REDIRECT + ". That is usually a login page: have auth_url itself answer 401 to visitors without a login"
_LOGIN = "have auth_url itself answer 401 to visitors who are not logged in"
_TRY = "request it yourself with curl, and look at what it prints"


class AuthResult(NamedTuple):
    """The outcome of a request, for the client, and what is wrong with the site or with auth_url, for the operator.

    `cause` is a word for what is wrong, empty if nothing is. `advice` is what the operator can do about it.
    """

    outcome: Rights | Refused
    cause: str = ""
    advice: str = ""


class AuthSite:
    """The site behind auth_url. Any thread may call it. Raises OSError if the file auth_ca cannot be read."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._site = Site(settings.auth_url, "auth_url", settings.auth_ca)
        self._url = self._site.url

    def fetch(self, visitor: Visitor) -> AuthResult:
        """Request the rights of a visitor. It takes at most auth_timeout seconds."""
        try:
            reply = self._site.get(visitor.headers(), self._settings.auth_timeout, MAX_ANSWER + 1)
        except SiteError as error:
            return self.timed_out() if error.cause == "timeout" else _failed(error.cause, error.reason, error.advice)
        return self._result(reply, visitor)

    def timed_out(self) -> AuthResult:
        """Return the result for a site that has not answered in time."""
        reason = f"it did not answer within {self._settings.auth_timeout:g} s (setting auth_timeout)"
        return _failed("timeout", reason, IF_SLOW)

    def _result(self, reply: Reply, visitor: Visitor) -> AuthResult:
        status = reply.status
        if status in (401, 403):
            return AuthResult(Refused(403, "not_allowed", _denial(status, visitor)))
        if 300 <= status < 400:
            return self._redirected(status, reply.headers.get("Location", ""))
        if status != 200:
            return _failed("status", f"it answered with status {status}", self._about_status(status))
        if len(reply.body) > MAX_ANSWER:
            reason = f"its answer has more than {MAX_ANSWER} bytes: use names that end with *"
            return _failed("answer", reason, "have it answer with fewer names")
        return self._read(reply.body)

    def _read(self, body: bytes) -> AuthResult:
        try:
            answer = json_text.read(body.decode(json.detect_encoding(body)))
        except ValueError:
            reason = "its answer is not JSON: check whether it prints anything else, such as a warning"
            return _failed("answer", reason, _TRY + self._other_site())
        claims: Any = {"ids": answer} if isinstance(answer, list) else answer
        if not isinstance(claims, dict) or not claims.keys() & {"ids", "push", "presence"}:
            return _failed("answer", 'its answer is not a list of ids or an object such as {"ids": ["42"]}', _TRY)
        try:
            return AuthResult(rights_of(claims, self._settings))
        except ValueError as error:
            return _failed("answer", f"its answer cannot be used: {error}", _TRY)

    def _redirected(self, status: int, location: str) -> AuthResult:
        """Return the result for a redirect.

        Sites redirect visitors to their login page, so a redirect is a denial. A redirect to the same page elsewhere
        (https, www, a slash) is a mistake in auth_url.
        """
        shown = _printable(location)
        try:
            target = urlsplit(urljoin(self._settings.auth_url, location))
            is_same_page = _page(target) == _page(self._url) and target.hostname and target != self._url
        except ValueError:
            is_same_page = False
        if not is_same_page:
            message = _TO_LOGIN.format(status=status, location=shown or "nowhere")
            return AuthResult(Refused(403, "not_allowed", message), "redirect", _LOGIN)
        better = without_secrets(target.geturl())
        return _failed("redirect", _REDIRECT.format(status=status, location=shown), f"write auth_url = {better}")

    def _about_status(self, status: int) -> str:
        if status in (404, 410):
            return "check the path in auth_url" + self._other_site()
        return SEE_LOGS if status >= 500 else _TRY

    def _other_site(self) -> str:
        """Return advice for an auth_url without the site's name: a web server answers that with its first site."""
        host = self._url.hostname or ""
        if host != "localhost" and ip_of(host) is None:
            return ""
        return (
            f"; a web server with several sites answers for {host} with the first of them, so write your site's own "
            "host name in auth_url, or give the site a port of its own there (docs/socket-api.md, Several sites)"
        )


def _denial(status: int, visitor: Visitor) -> str:
    """Return the message for a visitor to whom the site gives no rights."""
    if not visitor.cookies:
        advice = "the browser sent no cookie, so log in, or load the page from the relay's own host name"
    else:
        names = ", ".join(cookie_names(visitor.cookies))
        advice = f"{f'it was sent {names}, so ' if names else ''}log in, and register again"
    return f"the site refused this visitor ({status}): {advice}"


def _failed(cause: str, reason: str, advice: str) -> AuthResult:
    return AuthResult(not_available(reason), cause, advice)


def _page(url: SplitResult) -> str:
    return (url.path or "/").rstrip("/")


def _printable(location: str) -> str:
    # Without the query, because PHP may have put the session's id there.
    return "".join(each for each in without_secrets(location)[:200] if each.isprintable())
