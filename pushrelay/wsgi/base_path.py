"""The app under a path, where the proxy in front of it passes the whole path on."""

from collections.abc import Callable, Iterable
from typing import Any

from pushrelay.answers import refusal, send
from pushrelay.errors import Refused


def at_base_path(
    app: Callable[..., Any], base: str, note: Callable[[dict[str, Any], Refused], None] = lambda environ, error: None
) -> Callable[..., Any]:
    """The app at `base` (such as `/relay`) and nowhere else.

    Below it the app is called with SCRIPT_NAME and PATH_INFO as PEP 3333 has them: the one longer by `base`, the other
    shorter. A container that was told of the path has done so already, and says it by its SCRIPT_NAME. `note` gets the
    requests for anything else.
    """
    below = base + "/"

    def serve(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path, script = environ["PATH_INFO"], environ.get("SCRIPT_NAME", "")
        if script == base:
            return app(environ, start_response)
        if path != base and not path.startswith(below):
            return _elsewhere(base, environ, start_response, note)
        # A copy: the server goes on knowing the request by its whole path.
        inside = {**environ, "SCRIPT_NAME": script + base, "PATH_INFO": path[len(base) :] or "/"}
        return app(inside, start_response)

    return serve


def _elsewhere(base: str, environ: dict[str, Any], start_response: Any, note: Any) -> Iterable[bytes]:
    message = f"everything here is below {base} (setting base_path): POST pushes to {base}/push"
    error = Refused(404, "not_found", message)
    note(environ, error)
    return send(refusal(error), start_response)
