"""The front: the WSGI app that a server calls. It answers pushes itself and passes other requests to Flask.

A push is answered on the bare environ, with the function that Flask's view calls too. Flask's path from the environ to
the view and back takes longer than everything else about a push. If an app hooks functions into Flask
(`before_request`, for example), they are called: its pushes go through Flask.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from pushrelay.access import instance
from pushrelay.access.callers import Access
from pushrelay.answers import failure, refusal, send
from pushrelay.errors import Refused
from pushrelay.paths import PROGRAM_PATHS, PUSH_PATHS
from pushrelay.push.lane import lane_for
from pushrelay.push.publisher import Publisher
from pushrelay.server.conversation import Conversation
from pushrelay.store.maintenance import Maintenance

from . import hosts

log = logging.getLogger(__name__)

WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

# Socket.IO servers have their client's script here. The engine would mistake it for one of its own requests.
SCRIPT_PATHS = {"/socket.io/socket.io.js", "/socket.io/socket.io.min.js"}
SCRIPT_ENDS = (".js", ".mjs", ".map")
NO_SUCH_SCRIPT = Refused(
    404,
    "not_found",
    "here is one script, socket.io.js (or socket.io.min.js, the same): load that one, or have the other builds of "
    "socket.io-client, and source maps, on your own site",
)


class FlaskApp(Protocol):
    """The part of a Flask app that the front uses."""

    wsgi_app: WSGIApp
    # By the name of a Blueprint, None for the whole app.
    before_request_funcs: Mapping[Any, Any]
    after_request_funcs: Mapping[Any, Any]
    teardown_request_funcs: Mapping[Any, Any]
    url_value_preprocessors: Mapping[Any, Any]

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Call wsgi_app."""


class Front:
    """The WSGI app in front of a Flask app. Any thread may call it.

    `base_path` is the setting. `open()` is called for the requests that come before `maintenance` has started.
    """

    def __init__(
        self,
        app: FlaskApp,
        publisher: Publisher,
        access: Access,
        maintenance: Maintenance,
        base_path: str,
        open: Callable[[], None],
    ):
        self.app = app
        self.outermost: WSGIApp = self  # the app's wsgi_app as long as nobody has wrapped it
        self._flask = app.wsgi_app
        self._publisher = publisher
        self._access = access
        self._maintenance = maintenance
        self._open = open
        self._is_wrong_server = False  # the log has the reason
        # As the server sees them.
        self._push_paths = {base_path + path: at_root for path, at_root in PUSH_PATHS.items()}
        self._program_paths = {base_path + path for path in PROGRAM_PATHS}

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not self._maintenance.started:
            if reason := hosts.refusal(environ):
                return self._refuse_to_serve(reason, environ, start_response)
            self._open()
        path = environ["PATH_INFO"]
        if path in PUSH_PATHS and environ["REQUEST_METHOD"] == "POST" and not is_hooked(self.app):
            return self._push(environ, start_response, PUSH_PATHS[path])
        if instance.ENVIRON_KEY in environ:
            start_response = instance.reporting(environ, start_response, self._access)
        if path in SCRIPT_PATHS:
            environ["PATH_INFO"] = path = "/static/relay.js"
        if not path.startswith("/socket.io/"):
            # A server may ignore an upgrade (RFC 9110, 7.8). Only the engine offers one; Werkzeug would answer 400.
            environ.pop("HTTP_UPGRADE", None)
        elif path.endswith(SCRIPT_ENDS):
            return send(refusal(NO_SUCH_SCRIPT), environ, start_response)
        return self._flask(environ, start_response)

    def _push(self, environ: dict[str, Any], start_response: Callable[..., Any], at_root: bool) -> Iterable[bytes]:
        try:
            answer = self._publisher.answer(environ, at_root, environ.get("pushrelay.http"))
        except Exception:
            log.exception("a push failed")
            answer = refusal(failure())
        # None: the push is answered when it is stored or acknowledged, and no thread waits for that.
        return () if answer is None else send(answer, environ, start_response)

    def _refuse_to_serve(
        self, reason: str, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer everybody while the relay must not run in this server. Log it once: health checks may repeat."""
        if not self._is_wrong_server:
            self._is_wrong_server = True
            log.error("the relay does not serve: %s", reason)
        return send(refusal(Refused(503, "wrong_server", reason)), environ, start_response)

    # Called by the relay's own server.

    def lane(self, environ: dict[str, Any]) -> Callable[[bytes, Conversation], bool] | None:
        """Return the function that takes pushes with this header, or None if each of them needs an environ.

        The server asks once for each header that clients repeat. See push.lane.
        """
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] != "POST" or path not in self._push_paths:
            return None
        return lane_for(self._publisher, environ, self._push_paths[path], self._is_unwatched)

    def share_of(self, environ: dict[str, Any]) -> str | None:
        """Return the name under which a request takes its turn among others, or None for a push, which goes first.

        That is the client's address. Requests from programs have a separate share: behind a proxy, programs may have
        the same address as all visitors.
        """
        path = environ["PATH_INFO"]
        if path in self._push_paths and environ["REQUEST_METHOD"] == "POST":
            return None
        share = self._access.share_of(environ)
        return f"{share} {path}" if path in self._program_paths else share

    def _is_unwatched(self) -> bool:
        """Return whether the store is open and nothing but the relay itself wants to see pushes."""
        return self._maintenance.started and self.app.wsgi_app is self.outermost and not is_hooked(self.app)


def is_hooked(app: FlaskApp) -> bool:
    """Return whether Flask calls functions of `app` for a push. Those of a Blueprint's own routes do not count."""
    before, after, teardown = app.before_request_funcs, app.after_request_funcs, app.teardown_request_funcs
    if not (before or after or teardown or app.url_value_preprocessors):  # the usual case, and each push asks
        return False
    return any(each.get(None) for each in (before, after, teardown, app.url_value_preprocessors))
