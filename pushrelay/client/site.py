"""Requests to the site behind one of the settings that hold a URL, and what is wrong with the site if one fails.

Each failure has a reason and advice for the operator. The words are the same for every such setting.
"""

import base64
import ssl
import time
from urllib.parse import SplitResult, unquote, urlsplit

from .deadline import IncompleteResponse, InvalidResponse, NotConnected, Reply, get, post
from .tls import client_context

SEE_LOGS = "check the error logs of its web server and of PHP"
IF_SLOW = (
    "look for what delays it: a session that another page keeps locked (read_and_close), or PHP workers "
    "that are all busy"
)


class SiteError(Exception):
    """A request to the site has no response.

    `cause` is a word for the log's limiter. `reason` ends the sentence "the request to the site failed: …". `advice` is
    what the operator can do. If `was_sent` is true, the site may have received the request.
    """

    def __init__(self, cause: str, reason: str, advice: str, was_sent: bool):
        super().__init__(reason)
        self.cause = cause
        self.reason = reason
        self.advice = advice
        self.was_sent = was_sent


class Site:
    """A URL of the site. Any thread may call it.

    `setting` is the name of the setting that holds the URL. `ca` is a file with a CA to trust besides the system's, for
    https, or empty. Raises OSError if that file cannot be read.
    """

    def __init__(self, url: str, setting: str, ca: str = ""):
        self.url = urlsplit(url)
        self._setting = setting
        self._context = client_context(ca) if self.url.scheme == "https" else None
        self._password = _password(self.url)

    def get(self, headers: dict[str, str], seconds: float, limit: int) -> Reply:
        """GET the URL, and read at most `limit` bytes of the body. Redirects are not followed.

        Raises SiteError, with the cause "timeout" if there is no whole response within `seconds`.
        """
        return self._ask(None, headers, seconds, limit)

    def post(self, body: bytes, headers: dict[str, str], seconds: float, limit: int) -> Reply:
        """POST a body to the URL, at most once; otherwise as get(). `headers` should include Content-Type."""
        return self._ask(body, headers, seconds, limit)

    def _ask(self, body: bytes | None, headers: dict[str, str], seconds: float, limit: int) -> Reply:
        headers, deadline = {**headers, **self._password}, time.monotonic() + seconds
        try:
            if body is None:
                return get(self.url, headers, deadline, limit, self._context)
            return post(self.url, headers, body, deadline, limit, self._context)
        except NotConnected as error:
            raise self._error(error.__cause__ or error, seconds, was_sent=False) from error
        except (OSError, ValueError, InvalidResponse) as error:
            raise self._error(error, seconds, was_sent=True) from error

    def _error(self, error: BaseException, seconds: float, was_sent: bool) -> SiteError:
        if isinstance(error, TimeoutError):
            return SiteError("timeout", f"it did not answer within {seconds:g} s", IF_SLOW, was_sent)
        if isinstance(error, ssl.SSLError):
            reason, advice = self._about_tls(error)
            return SiteError("tls", f"no secure connection to it: {reason}", advice, was_sent)
        if isinstance(error, IncompleteResponse):
            reason = "its answer was cut short" if error.has_begun else "it closed the connection without an answer"
            return SiteError("cut", reason, SEE_LOGS, was_sent)
        if isinstance(error, InvalidResponse | ValueError):
            advice = f"check whether {self._setting} needs https://, and its port"
            return SiteError("http", "its answer is not HTTP", advice, was_sent)
        advice = f"check that its web server is running, and check the host and the port in {self._setting}"
        reason = f"no connection to it: {getattr(error, 'strerror', None) or 'it broke'}"
        return SiteError("connection", reason, advice, was_sent)

    def _about_tls(self, error: ssl.SSLError) -> tuple[str, str]:
        """Return the reason and the advice for a TLS connection that failed."""
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message, self._about_certificate(error.verify_message)
        return error.reason or "TLS failed", f"check whether {self._setting} should begin with http://, and its port"

    def _about_certificate(self, reason: str) -> str:
        """Return what to do about a certificate that was rejected for this reason, in OpenSSL's words."""
        if "issuer" in reason or "self-signed" in reason or "self signed" in reason:
            return (
                "if a CA of your own has signed its certificate, name that CA's file in the setting auth_ca; otherwise "
                "have the web server send the intermediate certificates as well"
            )
        if "mismatch" in reason or "not valid for" in reason:
            return f"write a host name that its certificate names into {self._setting}"
        if "expired" in reason:
            return "renew its certificate (certbot renew)"
        return "try it with: curl -v, and the same URL"


def _password(url: SplitResult) -> dict[str, str]:
    """Return the header for a name and a password in the URL (RFC 7617), for a site behind Basic authentication."""
    if url.username is None:
        return {}
    pair = f"{unquote(url.username)}:{unquote(url.password or '')}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
