"""The demo page: its address, its facts, and those of the page that strangers get instead.

A visitor who sees the demo page on this machine may push, and gets a token for one id, because programs on this machine
may push and read every history anyway. All others see the page without these, and only if `demo` is set.
"""

import re
import shlex
import time
from typing import Any

from pushrelay.access.tokens import sign
from pushrelay.addresses import is_loopback
from pushrelay.pages.phone import options_for_phones, phone_url
from pushrelay.places import HOME
from pushrelay.settings import Settings

# Only the relay's own scripts and styles may run, and no other page may embed this one.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",  # the page's id is in its address
    "Cache-Control": "no-store",
}
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # nosec B104: not bound
TOKEN_SECONDS = 86400  # until the demo page's own token ends, so a page can stay open for a day


def address(settings: Settings, port: int) -> tuple[str, str]:
    """Return the relay's address for programs on this machine, and a shell command that pushes there."""
    fields = f"-d destination={first_id(settings).replace('me', 'SESSION-ID')} -d data=hello"
    if settings.host.startswith("unix:"):
        path = shlex.quote(settings.host.removeprefix("unix:"))
        return settings.host, f"curl --unix-socket {path} {fields} http://localhost{settings.base_path}/push"
    url = f"http://{_local_host(settings)}:{port}{settings.base_path}"
    key = "" if is_at_loopback(settings) else "-H 'Authorization: Bearer KEY' "
    return url, f"curl {key}{fields} {url}/push"


def _local_host(settings: Settings) -> str:
    host = ANYWHERE.get(settings.host, settings.host)
    return f"[{host}]" if ":" in host else host


def is_at_loopback(settings: Settings) -> bool:
    """Return whether programs on this machine reach the relay at a loopback address or a Unix socket."""
    return settings.host in ANYWHERE or settings.host.startswith("unix:") or is_loopback(settings.host)


def first_id(settings: Settings) -> str:
    """Return the id of a demo page that is opened without one. Two windows of a browser share it."""
    return "me" if settings.id_cookie and not settings.secret else "demo"


def tunnel(settings: Settings, port: int) -> str:
    """Return the argument of `ssh -L` that forwards the relay to another machine; empty if it is not local here."""
    if settings.host.startswith("unix:"):
        return f"8080:/PATH/OF/{_socket_name(settings)}"
    return f"{port}:{_local_host(settings)}:{port}" if is_at_loopback(settings) else ""


def _socket_name(settings: Settings) -> str:
    return settings.host.rpartition("/")[2].removeprefix("unix:")


def page_facts(settings: Settings, environ: dict[str, Any], id_: str, is_local: bool) -> dict[str, Any]:
    """Return what demo.html needs, for a page with this id. `is_local`: the browser is on this machine."""
    return {
        "may_push": is_local,
        "token": token_for(id_, settings) if is_local else "",
        "relay_php": str(HOME / "php" / "Relay.php") if is_local else "Relay.php",
        "phone": phone_url(settings, environ, id_),
        "phone_options": options_for_phones(settings) if is_local else "",
        **demo_facts(settings, environ.get("SERVER_PORT", "")),
    }


def demo_facts(settings: Settings, port: str) -> dict[str, Any]:
    """Return the settings that the demo page shows. Anybody may read them, so no path and no secret is among them."""
    needs = {"token": settings.secret, "cookie": settings.id_cookie, "site": settings.auth_url}
    is_socket = settings.host.startswith("unix:")
    return {
        "needs": " ".join(name for name, is_set in needs.items() if is_set),
        "cookie": settings.id_cookie,
        "local_url": f"http://localhost{settings.base_path}" if is_socket else address(settings, int(port or 0))[0],
        "local_option": _socket_name(settings) if is_socket else "",
        "needs_key": not is_at_loopback(settings),
    }


def token_for(id_: str, settings: Settings) -> str:
    """Return a token that allows this id; empty without a secret. It is only for callers on this machine."""
    if not settings.secret or len(id_) > settings.max_id_length:
        return ""
    return sign({"ids": [id_], "exp": int(time.time()) + TOKEN_SECONDS}, settings.secret[0])


def ways_in(settings: Settings, environ: dict[str, Any]) -> dict[str, str]:
    """Return the facts of not_shown.html, which replaces the demo page: the ways to see the demo page after all."""
    port = int(environ.get("SERVER_PORT") or 0)
    asked = re.match(r"[\w.-]+|\[[\da-fA-F:.]+\]", environ.get("HTTP_HOST", ""), re.ASCII)
    server = asked[0] if asked and not is_loopback(asked[0].strip("[]")) else "SERVER"
    is_socket = settings.host.startswith("unix:")
    local = f"http://127.0.0.1:8080{settings.base_path}" if is_socket else address(settings, port)[0]
    return {
        "local": "" if is_socket or not is_at_loopback(settings) else f"{local}/?id={first_id(settings)}",
        "tunnel": tunnel(settings, port) and f"ssh -L {tunnel(settings, port)} USER@{server}",
        "through": f"{local}/?id={first_id(settings)}",
    }
