"""A browser as the site would see it if it visited the site directly."""

from typing import Any, NamedTuple

MOST_AGENT = 512  # characters of a User-Agent that are forwarded


class Visitor(NamedTuple):
    """A browser: its header Cookie, its User-Agent and its address. Sites bind sessions to these."""

    cookies: str = ""
    agent: str = ""
    address: str = ""

    def headers(self) -> dict[str, str]:
        """Return the headers of a request to the site on behalf of this browser."""
        agent = "".join(each for each in self.agent[:MOST_AGENT] if each.isprintable())
        given = {"Cookie": self.cookies, "User-Agent": agent, "X-Forwarded-For": self.address}
        return {"Accept": "application/json", **{name: value for name, value in given.items() if value}}


def visitor_of(environ: dict[str, Any], address: str | None) -> Visitor:
    """Return the browser of a socket from the environ of its handshake; `address` is None for this machine's own."""
    return Visitor(environ.get("HTTP_COOKIE", ""), environ.get("HTTP_USER_AGENT", ""), address or "")
