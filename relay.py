"""The relay: PHP posts to /push, and the browsers that registered that destination have it at once.

`python relay.py` serves; `relay:app` is the same as a WSGI app. Importing starts nothing.

Python 3.6 and later can compile this file, so that an old one gets the sentence below and not a traceback.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (see above)
    TOO_OLD = f"the relay needs Python 3.11 or later, and this is Python {sys.version_info[0]}.{sys.version_info[1]}: "
    TOO_OLD += "install a newer one, make a venv with it, and run  pip install -r requirements.txt  there"
    if __name__ != "__main__":
        raise ImportError(TOO_OLD)
    sys.stderr.write("relay: " + TOO_OLD + "\n")
    raise SystemExit(2)

import copy
import logging
import signal
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn

from pushrelay.cli import output, streams
from pushrelay.cli.commands import run_command


def stop_with(message: str) -> NoReturn:
    """End the process because it cannot start: one sentence, exit code 2."""
    output.print_error(f"relay: {message}")
    raise SystemExit(2)


if __name__ == "__main__":
    streams.prepare()
    run_command(sys.argv[1:])  # a first word such as doctor; to serve, there is none
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until it serves, Ctrl+C needs no traceback

try:
    from flask import Flask, Response, render_template, request
    from flask_socketio import SocketIO
    from werkzeug.exceptions import HTTPException
    from werkzeug.routing import RoutingException

    from pushrelay import answers, core, dependencies
    from pushrelay.access import instance
    from pushrelay.access.callers import Access
    from pushrelay.answers import Answer, refusal, store_away
    from pushrelay.cli import banner
    from pushrelay.cli.flags import parse_flags
    from pushrelay.errors import HELP, OTHER_ERROR, Refused, StoreError, bad
    from pushrelay.json_text import encode
    from pushrelay.lifecycle import Draining, exit_at_signals
    from pushrelay.log.handler import start_log
    from pushrelay.log.limiter import LogLimiter
    from pushrelay.log.refusals import RefusalLog
    from pushrelay.pages import demo
    from pushrelay.pages.static_files import StaticFiles
    from pushrelay.places import HOME
    from pushrelay.push.fields import asked_of, limit_of
    from pushrelay.push.publisher import Publisher
    from pushrelay.register.registrations import Registrations
    from pushrelay.register.subscription import delivery, rooms_of
    from pushrelay.rooms.packet import OURS, Packet
    from pushrelay.server.systemd import notify
    from pushrelay.settings import SettingsError, load
    from pushrelay.store import open_broker
    from pushrelay.store.maintenance import Maintenance
    from pushrelay.wsgi import hosts
    from pushrelay.wsgi.base_path import at_base_path
except ModuleNotFoundError as missing:
    if __name__ != "__main__":
        raise
    stop_with(
        f"the Python package {missing.name} is missing: run  pip install -r requirements.txt  in this Python's venv"
    )

try:
    dependencies.check()
    # Flags are this program's own; an app that another server imports has its settings from the file and RELAY_*.
    flags, check_only = parse_flags(sys.argv[1:]) if __name__ == "__main__" else ({}, False)
    settings = load(flags=flags)
    if __name__ != "__main__":
        hosts.check_processes()
    access = Access(settings)
    log_limiter = LogLimiter()
    refusal_log = RefusalLog(log_limiter, access.client_address)
    manager = core.make_manager(settings, access.client_address, __name__ != "__main__", log_limiter)
except (SettingsError, dependencies.Incompatible) as error:
    if __name__ != "__main__":
        raise
    stop_with(str(error))


class RelayApp(Flask):
    """Flask, with the relay's errors in JSON, and a header that every response has."""

    def create_url_adapter(self, request: Any) -> Any:
        if request is not None:
            # A server may ignore an upgrade (RFC 9110, 7.8). Only the engine offers one; Werkzeug would answer 400.
            request.environ.pop("HTTP_UPGRADE", None)
        return super().create_url_adapter(request)

    def send_static_file(self, filename: str) -> Any:
        return static_files.response(filename, request)

    def make_response(self, rv: Any) -> Response:
        """Errors that no handler took become the relay's JSON, except in an app's own routes."""
        if isinstance(rv, HTTPException) and not isinstance(rv, RoutingException) and is_our_request(rv):
            rv = http_error(rv)
        return super().make_response(rv)

    def process_response(self, response: Response) -> Response:
        response.headers.set(*answers.NO_SNIFFING)
        return super().process_response(response)


def is_our_request(error: HTTPException) -> bool:
    """Whether an error is of one of the relay's own routes, or of a path that nobody has."""
    if request.url_rule is not None:
        return request.endpoint in our_endpoints
    return error.code == 404 or request.path in our_paths or request.path.startswith("/static/")


class RelaySocketIO(SocketIO):
    """Flask-SocketIO, on the relay's server, with the names of the relay's events taken."""

    def on(self, message: str, namespace: str | None = None) -> Any:
        if message in OURS and namespace in (None, "/"):
            raise ValueError(f"the event {message!r} in namespace / is the relay's own: choose another name")
        return super().on(message, namespace)

    def run(self, app: Any, host: str | None = None, port: int | None = None, **options: Any) -> None:
        """Serve `app` on the relay's own server until the process is told to end.

        `host` and `port` replace the settings of these names. Of `options`, the ones that concern Werkzeug's
        development server change nothing.
        """
        banner.check_options(options)
        if "debug" in options:
            app.debug = bool(options["debug"])
        chosen = copy.copy(settings)
        chosen.host = settings.host if host is None else host
        chosen.port = settings.port if port is None else port
        serve(app, chosen)


# Both folders are given, because Flask would look for them from the working folder, which may have been removed.
app = RelayApp(__name__, root_path=str(HOME), instance_path=str(HOME / "instance"))
app.url_map.merge_slashes = False  # its redirects would name whatever host a stranger asked for
static_files = StaticFiles(app.static_folder)
socketio = RelaySocketIO(
    app,
    async_mode="threading",
    client_manager=manager,
    logger=logging.getLogger("pushrelay.socketio"),  # their own would write beside the log, and everything twice
    engineio_logger=logging.getLogger("pushrelay.engineio"),
    serializer=Packet,
    cors_allowed_origins=access.origin_allowed,
    ping_interval=settings.ping_interval,
    ping_timeout=settings.ping_timeout,
    max_http_buffer_size=settings.max_message,
)


def front(wsgi_app: Any) -> Any:
    """The app as a server calls it, with a shorter way for pushes and one for the client's script.

    A push is answered on the bare environ, by what the view calls as well; from here to the view and back Flask takes
    longer than all the rest of a push. Whoever hooks functions into Flask's way has them called: then it is taken.
    """

    def serve(environ: dict[str, Any], start_response: Any) -> Any:
        if not maintenance.started:
            reason = hosts.refusal(environ)
            if reason:
                return unfit(reason)(environ, start_response)
            maintenance.ensure_open()
        path = environ["PATH_INFO"]
        if path in SEED_AT and environ["REQUEST_METHOD"] == "POST" and not is_hooked():
            return push_lane(environ, start_response, SEED_AT[path])
        if instance.ASKED in environ:
            start_response = instance.reporting(environ, start_response, access)
        if path in SCRIPT_AT:  # where Socket.IO servers have their client; the engine would take it for its own
            environ["PATH_INFO"] = "/static/relay.js"
        elif path.startswith("/socket.io/") and path.endswith(SCRIPT_ENDS):
            return answered_by(refusal(NO_SUCH_SCRIPT), start_response)
        return wsgi_app(environ, start_response)

    return serve


def unfit(reason: str) -> Response:
    """The answer to everybody where the relay must not run. It is logged once: the first may be a health check."""
    global told_unfit
    if not told_unfit:
        told_unfit = True
        app.logger.error("the relay does not serve: %s", reason)
    return json_response({"error": "wrong_server", "message": reason}, 503)


told_unfit = False
SCRIPT_AT = {"/socket.io/socket.io.js", "/socket.io/socket.io.min.js"}
SCRIPT_ENDS = (".js", ".mjs", ".map")
NO_SUCH_SCRIPT = Refused(
    404,
    "not_found",
    "here is one script, socket.io.js (or socket.io.min.js, the same): load that one, or have the other builds of "
    "socket.io-client, and source maps, on your own site",
)
SEED_AT = {"/push": False, "/": True}  # where pushes are taken, and whether the answer is the seed's there


app.wsgi_app = front(app.wsgi_app)
if settings.base_path:
    app.wsgi_app = at_base_path(app.wsgi_app, settings.base_path, refusal_log.log_request)
whole_app = app.wsgi_app  # an app that wraps it wants to see pushes too


def is_hooked() -> bool:
    """Whether Flask calls functions for a push. Those of a Blueprint's own routes do not count."""
    before, after, teardown = app.before_request_funcs, app.after_request_funcs, app.teardown_request_funcs
    if not (before or after or teardown or app.url_value_preprocessors):  # as it mostly is: a push asks this
        return False
    return any(each.get(None) for each in (before, after, teardown, app.url_value_preprocessors))


def push_lane(environ: dict[str, Any], start_response: Any, seed: bool) -> Any:
    try:
        answer = publisher.answer(environ, seed, environ.get("pushrelay.http"))
    except Exception:
        app.logger.exception("a push failed")
        answer = refusal(Refused(500, "internal_server_error", HELP[500]))
    # None: it is answered when it is stored, or acknowledged, and no thread waits for that.
    return () if answer is None else answered_by(answer, start_response)


def answered_by(answer: Answer, start_response: Any) -> list[bytes]:
    start_response(answer.status, [*answer.headers, ("Content-Length", str(len(answer.body)))])
    return [answer.body]


def is_unwatched() -> bool:
    """Return whether the relay has started and nothing but the relay itself has to see a push."""
    return maintenance.started and app.wsgi_app is whole_app and not is_hooked()


PUSH_PATHS = {f"{settings.base_path}{path}": seed for path, seed in SEED_AT.items()}  # as the server sees them


def shortcut(environ: dict[str, Any]) -> Callable[[bytes, Any], bool] | None:
    """Return what takes the pushes that come with this very header, again and again: see Publisher.shortcut."""
    path = environ["PATH_INFO"]
    if environ["REQUEST_METHOD"] != "POST" or path not in PUSH_PATHS:
        return None
    return publisher.shortcut(environ, PUSH_PATHS[path], is_unwatched)


PROGRAM_PATHS = {
    f"{settings.base_path}{path}" for path in ("/history", "/presence", "/connections", "/health/live", "/health/ready")
}


def share_of(environ: dict[str, Any]) -> str | None:
    """Return whose turn a request takes: None for a push, which goes first; see server.Server.

    What programs ask has a share of its own: behind a proxy they may have the address of all visitors.
    """
    path = environ["PATH_INFO"]
    if path in PUSH_PATHS and environ["REQUEST_METHOD"] == "POST":
        return None
    share = access.share_of(environ)
    return f"{share} {path}" if path in PROGRAM_PATHS else share


RELOAD_SECONDS = 10.0
deliver = delivery(manager, settings)
try:
    broker = open_broker(
        settings.broker,
        deliver,
        durability=settings.durability,
        history_size=settings.history_size,
        history_ttl=settings.history_ttl,
        history_bytes=settings.history_bytes,
    )
except ValueError as error:
    if __name__ != "__main__":
        raise
    stop_with(str(error))
publisher = Publisher(broker, settings, access, refusal_log)
registrations = Registrations(broker, manager, settings, publisher.waiters.note, access.full_address)
# A container's reload starts the next process before, or as soon as, the last one ends.
maintenance = Maintenance(broker, registrations.each_second, patience=RELOAD_SECONDS if __name__ != "__main__" else 0.0)
draining = Draining(manager, publisher.waiters, settings.drain_spread)


def json_response(value: Any, status: int = 200, more: Any = ()) -> Response:
    return Response(encode(value), status, [*more, answers.NO_STORE], mimetype="application/json")


@app.post("/push")
def push_route() -> Response:
    status, headers, body = publisher.answer(request.environ)
    return Response(body, status, headers)


@app.post("/")
def push_at_root() -> Response:
    """The seed's own address."""
    status, headers, body = publisher.answer(request.environ, seed=True)
    return Response(body, status, headers)


@app.get("/history")
def history() -> Response:
    """What is kept of a destination, and the position now."""
    access.may_push(request.environ)
    (destination, *more), fields = asked_of(request.environ, settings, "since", "limit")
    if more:
        bad("too_many_destinations", "a history is one destination's: ask for each on its own")
    listing = broker.listing(destination, fields.get("since"), limit_of(fields))
    if listing.is_short:
        return Response("".join(listing.answer()), 200, [answers.NO_STORE], mimetype="application/json")
    return Response(listing.answer(), 200, [answers.NO_STORE], mimetype="application/json")


@app.get("/presence")
def presence() -> Response:
    """Who is there: for each destination how many sockets hold it, and since when one does."""
    access.may_push(request.environ)
    destinations, _ = asked_of(request.environ, settings)
    return json_response({each: manager.presence(rooms_of(each)) for each in destinations})


@app.delete("/connections")
def close_connections() -> Response:
    """Close all sockets that hold one of these destinations."""
    access.may_push(request.environ)
    destinations, _ = asked_of(request.environ, settings)
    return json_response({"closed": registrations.close(destinations)})


@app.get("/")
def demo_page() -> Response:
    """Return the demo page. Lead browsers without an id to one that two windows share."""
    try:
        access.may_see_demo(request.environ)
    except Refused as error:
        return not_shown(error)
    id_ = request.args.get("id")
    if not id_ and wants_page():  # others, such as health checks, get the page at once
        return Response(status=302, headers={"Location": f"?id={demo.first_id(settings)}", **answers.DEMO_PAGE})
    is_local = access.is_local(request.environ)
    facts = demo.demo_facts(settings, request.environ.get("SERVER_PORT", ""))
    token = demo.token_for(id_ or demo.first_id(settings), settings) if is_local else ""
    page = render_template("demo.html", may_push=is_local, token=token, **facts)
    return Response(page, headers=answers.DEMO_PAGE)


def wants_page() -> bool:
    """Return whether a person asks, by a browser, and not a program."""
    return request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"


def not_shown(error: Refused) -> Response:
    """Return a page for people, and JSON for programs."""
    if not wants_page():
        response = refused(error)
    else:
        refusal_log.log_request(request.environ, error)
        facts = demo.ways_in(settings, request.environ)
        page = render_template("not_shown.html", why=access.distance(request.environ), **facts)
        response = Response(page, error.status, answers.DEMO_PAGE)
    response.headers["Vary"] = "Accept"
    return response


STORE_TROUBLE = "the store takes no pushes: the relay's log has the reason"


@app.get("/health/live")
def live() -> Response:
    return json_response({"live": True})


@app.get("/health/ready")
def ready() -> Response:
    """Return 200 if a push would be taken. The file's path is for callers on this machine and for the log."""
    trouble = draining.reason or maintenance.trouble or broker.trouble
    if trouble:
        told = draining.reason or (trouble if access.is_local(request.environ) else STORE_TROUBLE)
        return json_response({"ready": False, "reason": told}, 503)
    return json_response({"ready": True})


@app.errorhandler(Refused)
def refused(error: Refused) -> Response:
    refusal_log.log_request(request.environ, error)
    return json_response(error.body(), error.status, error.headers)


@app.errorhandler(StoreError)
def store_error(error: StoreError) -> Response:
    what = "the history cannot be read; ask again later"
    return refused(store_away(error, what, access.is_local(request.environ)))


def http_error(error: HTTPException) -> Response:
    response = error.get_response()
    response.status = f"{error.code} {error.name}"  # as everywhere else, where Werkzeug would shout
    name = error.name.lower().replace(" ", "_")
    message = HELP.get(error.code, OTHER_ERROR)
    allowed = f" ({response.headers['Allow']})" if "Allow" in response.headers else ""
    refusal_log.log_request(request.environ, Refused(error.code, name, message + allowed))
    response.headers.set(*answers.NO_STORE)
    response.data = encode({"error": name, "message": message})
    response.content_type = "application/json"
    return response


our_paths = {rule.rule for rule in app.url_map.iter_rules()}
our_endpoints = {rule.endpoint for rule in app.url_map.iter_rules()}


def answering(name: str, not_done: str = "nothing was done") -> Any:
    """Make a function the handler of one of the relay's own events, in namespace "/", and its result the answer.

    A refusal is an event if no acknowledgement was asked for. `not_done` is for trouble with the store.
    """

    def decorate(handler: Any) -> Any:
        @wraps(handler)
        def answered(sid: str, message: Any, wants_answer: bool) -> dict[str, Any] | None:
            environ = socketio.server.get_environ(sid)
            if environ is None:  # the client has just left
                return None
            try:
                return {"ok": True, **handler(message, sid, environ)}
            except Refused as error:
                refusal_log.log_event(environ, name, error)
                refusal = error.body()
            except StoreError as error:
                refusal = store_away(error, not_done).body()
            except Exception:
                app.logger.exception("the handler of %s failed", handler.__name__)
                refusal = Refused(500, "internal_server_error", HELP[500]).body()
            answer = {"ok": False, **refusal}
            if not wants_answer:
                manager.emit("relay_error", answer, "/", room=sid)
            return answer

        socketio.server.on(name, answered)
        return answered

    return decorate


@answering("register", "nothing was registered; register again later, with the last position that you have")
def on_register(message: Any, sid: str, environ: dict[str, Any]) -> dict[str, Any]:
    return registrations.register(message, sid, environ)


@answering("ack", "it was not acknowledged; acknowledge it again later")
def on_ack(message: Any, sid: str, environ: dict[str, Any]) -> dict[str, Any]:
    registrations.ack(message, sid, environ)
    return {}


@answering("unregister")
def on_unregister(message: Any, sid: str, environ: dict[str, Any]) -> dict[str, Any]:
    registrations.unregister(message, sid, environ)
    return {}


@answering("push", "the push was not taken; send it again later")
def on_push(message: Any, sid: str, environ: dict[str, Any]) -> dict[str, Any]:
    push = registrations.read_push(message, sid, environ)
    answers = publisher.publish(push)
    manager.settle(sid)
    return {"answers": answers} if push.several else answers[0]


def paste_app(global_conf: dict[str, str], **local_conf: str) -> Any:
    """The app for PasteDeploy: `[app:main]` in wsgi.ini. The settings are those of `[relay]`, in the same file."""
    if local_conf:
        raise SettingsError(f"[app:main]: {', '.join(local_conf)}: the relay's settings belong into [relay]")
    hosts.check_file(settings, global_conf["__file__"])
    return app


def end() -> None:
    """Let go of the clients and of the store: another server ends this process."""
    with ending:
        draining.send_away()
        socketio.server.eio.shutdown()
        maintenance.close()


ending = threading.Lock()
if __name__ != "__main__":
    hosts.at_end(end)


def main() -> None:
    if check_only:
        print_checked()
    else:
        serve(app, settings)


def print_checked() -> None:
    error = output.print_text(banner.checked(settings))
    if isinstance(error, BrokenPipeError):
        raise SystemExit(141)  # as for a program that SIGPIPE ended: its reader has enough
    if error:
        stop_with(f"the result of --check cannot be written ({error.strerror}): check where its output goes")


def serve(wsgi_app: Any, settings: Any) -> None:
    """Serve until a signal or an exception comes, and go down in order."""
    start_log()
    if threading.current_thread() is threading.main_thread():
        exit_at_signals()
    try:
        server = core.make_server(wsgi_app, settings, shortcut if wsgi_app is app else None, share_of, log_limiter)
    except OSError as error:
        stop_with(banner.cannot_listen(settings, error))
    try:
        maintenance.start()
        error = output.print_text(banner.banner(settings, server.port))
        if error:
            app.logger.warning(
                "where the relay serves could not be printed (%s); it serves all the same", error.strerror
            )
        notify("READY=1")
        draining.serve(server)
    except StoreError as error:
        stop_with(str(error))
    finally:
        server.close()
        maintenance.close()


if __name__ == "__main__":
    main()
