"""The demo page on a phone: the address that a phone can open, its QR code, and how to get one if there is none."""

import io
import re
from typing import Any
from urllib.parse import quote

from pushrelay.addresses import is_loopback, own_address
from pushrelay.settings import Settings

ANYWHERE = ("0.0.0.0", "::")  # noqa: S104  # nosec B104: not bound
HEADERS = {"Content-Type": "image/svg+xml", "Cache-Control": "no-store"}
LONGEST = 600  # characters of an address: the code of a longer one is too dense for cameras, or does not exist
_HOST = re.compile(r"([\w.-]{1,253}|\[[\da-fA-F:.]{2,45}\])(:\d{1,5})?", re.ASCII)


def phone_url(settings: Settings, environ: dict[str, Any], id_: str) -> str:
    """Return the address at which other devices can open the demo page with this id; empty if they cannot.

    They cannot if the page is only for this machine, or if the relay listens only here and the request did not come
    through a proxy. Nor can they if ids need a token, a cookie or the consent of the site: another device has none.
    An address that is too long for a code is left out too.
    """
    if not settings.demo or settings.secret or settings.id_cookie or settings.auth_url:
        return ""
    asked = _HOST.fullmatch(environ.get("HTTP_HOST", ""))
    if asked is None or len(id_) > settings.max_id_length:
        return ""
    host, port = asked[1], asked[2] or ""
    if is_loopback(host.strip("[]")):
        host = own_address() if settings.host in ANYWHERE else ""
        if not host or is_loopback(host):
            return ""
    url = f"{_scheme(environ)}://{host}{port}{settings.base_path}/?id={quote(id_, safe='')}"
    return url if len(url) <= LONGEST else ""


def _scheme(environ: dict[str, Any]) -> str:
    """Return the scheme of the browser's request. A false header misleads only the browser that sends it."""
    is_https = "https" in (environ.get("wsgi.url_scheme"), environ.get("HTTP_X_FORWARDED_PROTO", "").strip().lower())
    return "https" if is_https else "http"


def options_for_phones(settings: Settings) -> str:
    """Return the options with which a phone could open the demo page; empty if options alone do not help."""
    if settings.host.startswith("unix:"):
        return ""
    host = "--host 0.0.0.0 " if is_loopback(settings.host) else ""
    return "" if settings.demo and not host else f"{host}--demo yes"


def qr_svg(url: str) -> bytes:
    """Return the QR code of an address as SVG, black on white in every color scheme, so that cameras can read it."""
    import segno  # here, because commands that run without third-party packages import this module

    out = io.BytesIO()
    code = segno.make(url, error="m", micro=False)
    code.save(out, kind="svg", border=3, dark="#000", light="#fff", xmldecl=False, omitsize=True)
    return out.getvalue()
