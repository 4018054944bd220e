"""The app below a base path, for proxies that forward the whole path (setting base_path)."""

from collections.abc import Callable, Iterable
from typing import Any

from pushrelay.answers import refusal, send
from pushrelay.errors import Refused

WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def at_base_path(
    app: WSGIApp, base: str, log_refusal: Callable[[dict[str, Any], Refused], object] = lambda environ, error: None
) -> WSGIApp:
    """Return a WSGI app that has `app` at `base` (such as `/relay`) and nothing elsewhere.

    Below `base`, `app` is called with SCRIPT_NAME and PATH_INFO as PEP 3333 defines them: `base` moves from the second
    to the first. A server that knows the base path has done so already, which its SCRIPT_NAME shows. Requests for
    anything else are answered with 404, and `log_refusal` gets them. If everything had two addresses, both would have
    to be protected.
    """
    below = base + "/"

    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path, script = environ["PATH_INFO"], environ.get("SCRIPT_NAME", "")
        if script == base:
            return app(environ, start_response)
        if path != base and not path.startswith(below):
            message = f"everything here is below {base} (setting base_path): POST pushes to {base}/push"
            error = Refused(404, "not_found", message)
            log_refusal(environ, error)
            return send(refusal(error), environ, start_response)
        # A copy: the server still identifies the request by its whole path.
        inside = {**environ, "SCRIPT_NAME": script + base, "PATH_INFO": path[len(base) :] or "/"}
        return app(inside, start_response)

    return serve
