"""The relay: PHP posts to /push, and the browsers that registered the destination get the push at once.

    python relay.py                                        serves, on the relay's own server
    gunicorn --threads 8 --bind 127.0.0.1:8080 relay:app   serves the same app on another WSGI server

This is an ordinary Flask-SocketIO app: routes, error handlers and event handlers, in the order of this file. They are
short because pushrelay.core has the parts. Importing this file starts nothing: no thread, no file, no socket.
To add your own routes, handlers or broker, see docs/extending.md.
"""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from pushrelay.cli import startup

# First, because `python relay.py doctor` and other commands run here, even if packages that serving needs are missing.
settings = startup.settings(__name__)  # at the start; relay.settings has those that are in force

from flask import Flask, Response, render_template, request
from flask_socketio import SocketIO
from jinja2 import DictLoader
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.routing import RoutingException, Rule  # a RoutingException is a redirect

from pushrelay import __version__, answers
from pushrelay.core import Core
from pushrelay.errors import Refused, StoreError
from pushrelay.json_text import encode
from pushrelay.pages import demo, phone, status
from pushrelay.pages.docs import PICTURES, Docs
from pushrelay.pages.static_files import StaticFiles
from pushrelay.places import HOME
from pushrelay.push.body import read_query
from pushrelay.push.fields import Page, history_query, presence_query, queried_destinations
from pushrelay.rooms.answering import Reply, answering
from pushrelay.rooms.packet import OUR_EVENTS, Packet
from pushrelay.wsgi import hosts


class RelayApp(Flask):
    """Flask, with compressed static files, and JSON for the errors that HTTP itself has, such as 404."""

    def send_static_file(self, filename: str) -> Response:
        return static_files.response(filename, request)

    def inject_url_defaults(self, endpoint: str, values: dict[str, Any]) -> None:
        # A page gets the files of its own version: static_files.py.
        if endpoint == "static" and "filename" in values:
            values["filename"] = static_files.address_of(values["filename"])
        super().inject_url_defaults(endpoint, values)

    def make_response(self, rv: Any) -> Response:
        # Not in an errorhandler, so that handlers for your own routes come first and those routes keep Flask's errors.
        if isinstance(rv, HTTPException) and not isinstance(rv, RoutingException) and is_our_request(rv):
            rv = refused(answers.werkzeug_error(rv))
        return super().make_response(rv)

    def process_response(self, response: Response) -> Response:
        response.headers.set(*answers.NO_SNIFFING)
        return super().process_response(response)


class RelaySocketIO(SocketIO):
    """Flask-SocketIO, with the names of the relay's own events reserved, and run() on the relay's own server."""

    def on(self, message: str, namespace: str | None = None) -> Any:
        if message in OUR_EVENTS and namespace in (None, "/"):
            raise ValueError(f"the event {message!r} in namespace / is the relay's own: choose another name")
        return super().on(message, namespace)

    def run(self, app: Any, host: str | None = None, port: int | None = None, **options: Any) -> None:
        startup.check_options(options)
        if "debug" in options:
            app.debug = bool(options["debug"])
        startup.serve(relay, app, host, port)


# Everything except Flask. Your own files can import it: from relay import relay
relay = Core(settings)
# Both folders are given because Flask would search them from the working folder, which may have been removed.
app = RelayApp(__name__, root_path=str(HOME), instance_path=str(HOME / "instance"))
app.url_map.merge_slashes = False  # its redirects would name whatever host a stranger asked for
app.jinja_env.globals["version"] = __version__  # for the footer of the pages
static_files = StaticFiles(app.static_folder)
# Read at the start, so that they fit static_files and this program until it ends, even if an upgrade replaces them.
app.jinja_loader = DictLoader({file.name: file.read_text("utf-8") for file in (HOME / "templates").iterdir()})
docs = Docs(HOME)
pictures = StaticFiles(str(HOME / PICTURES))
socketio = RelaySocketIO(
    app,
    async_mode="threading",
    client_manager=relay.rooms,
    logger=logging.getLogger("pushrelay.socketio"),  # their own loggers would write everything twice
    engineio_logger=logging.getLogger("pushrelay.engineio"),
    serializer=Packet,  # reads Socket.IO's packets, and gives a reason for each that it refuses
    cors_allowed_origins=relay.access.origin_allowed,
    ping_interval=settings.ping_interval,
    ping_timeout=settings.ping_timeout,
    max_http_buffer_size=settings.max_message,
)
# Pushes skip Flask, which takes longer than everything else about a push: pushrelay.wsgi.front answers them with the
# function that push() below calls too. If you hook functions into Flask, such as before_request, pushes go through
# Flask and your functions are called.
app.wsgi_app = relay.wsgi(app)


def for_programs(view: Callable[..., Any]) -> Callable[..., Any]:
    """Admit only callers that may push: programs with one of push_keys, and programs on this machine."""

    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        caller = relay.access.may_push(request.environ)
        caller.identify(request.environ)  # for the access log
        return view(*args, **kwargs)

    return guarded


def respond(answer: answers.Answer) -> Response:
    """Return Flask's response for a complete answer."""
    return Response(answer.body, answer.status, answer.headers)


def json_response(value: Any, status: str = "200 OK") -> Response:
    """Return a value as JSON."""
    return respond(answers.json_answer(encode(value), status))


# Pushing.


@app.post("/push")
def push_route() -> Response:
    return respond(relay.publisher.answer(request.environ))  # waits until the push is stored


@app.post("/")
def push_at_root() -> Response:
    """Take the pushes of programs that were written for the first server, which had this address."""
    return respond(relay.publisher.answer(request.environ, at_root=True))


@app.post("/ring")
@for_programs
def ring() -> Response:
    """Have the outbox and the spool look for pushes now, because PHP has put some there."""
    relay.backend.ring()
    return json_response({"ok": True})


# Asking.


@app.get("/history")
@for_programs
def history() -> Response:
    """Return the publications that are kept for a destination, and its current position. Send a long list in pieces."""
    listing = relay.broker.listing(*history_query(request.environ, relay.settings))
    body = "".join(listing.answer()) if listing.is_short else listing.answer()
    return Response(body, headers=answers.JSON_HEADERS)


@app.get("/presence")
@for_programs
def presence() -> Response:
    """Return how many sockets hold each of these destinations, or of all, since when, and who their members are."""
    asked = presence_query(request.environ, relay.settings)
    return json_response(relay.directory.page(*asked) if isinstance(asked, Page) else relay.presence(asked))


@app.delete("/connections")
@for_programs
def close_connections() -> Response:
    """Close all sockets that hold one of these destinations, at all nodes."""
    destinations, _ = queried_destinations(request.environ, relay.settings)
    return json_response(relay.broker.close_connections(destinations))


@app.get("/webhooks")
@for_programs
def webhooks() -> Response:
    """Return what waits for the URLs in webhook_url and request_url."""
    return json_response(relay.webhooks.admin.show())


@app.post("/webhooks")
@for_programs
def act_on_webhooks() -> Response:
    """Try URLs again at once, or resume one that unsubscribed."""
    return json_response(relay.webhooks.admin.act(read_query(request.environ)))


@app.delete("/webhooks")
@for_programs
def drop_webhooks() -> Response:
    """Drop what waits for URLs."""
    return json_response(relay.webhooks.admin.drop(read_query(request.environ)))


@app.get("/metrics")
def metrics() -> Response:
    """Return the relay's metrics, for Prometheus."""
    relay.access.may_read_metrics(request.environ).identify(request.environ)
    return respond(relay.exposition.answer(request.environ))


# For people, and for proxies.


@app.get("/")
def demo_page() -> Response:
    """Return the demo page. Redirect a browser that brings no id to one that two windows share."""
    try:
        relay.access.may_see_demo(request.environ)
    except Refused as error:
        return demo_not_shown(error)
    id_ = request.args.get("id") or demo.first_id(relay.settings)
    if not request.args.get("id") and wants_page():
        return Response(status=302, headers={"Location": f"?id={id_}", **demo.HEADERS})
    facts = demo.page_facts(relay.settings, request.environ, id_, relay.access.is_local(request.environ))
    return Response(render_template("demo.html", **facts), headers=demo.HEADERS)


@app.get("/qr.svg")
def qr_code() -> Response:
    """Return the QR code with which a phone opens the demo page. A page's CSP allows images of its own origin only."""
    relay.access.may_see_demo(request.environ)
    url = phone.phone_url(relay.settings, request.environ, request.args.get("id") or demo.first_id(relay.settings))
    if not url:
        raise Refused(404, "not_found", "a phone cannot open the demo page at this address: see the setting demo")
    return Response(phone.qr_svg(url), headers=phone.HEADERS)


def demo_not_shown(error: Refused) -> Response:
    """Return a page with the ways to the demo page, and JSON for programs."""
    response = refused(error)
    if wants_page():
        facts = demo.ways_in(relay.settings, request.environ)
        page = render_template("not_shown.html", why=relay.access.why_not_local(request.environ), **facts)
        response = Response(page, error.status, demo.HEADERS)
    response.headers["Vary"] = "Accept"
    return response


def wants_page() -> bool:
    """Return whether this is a browser: health checks and other programs prefer JSON or accept anything."""
    return request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"


@app.get("/docs")
def docs_without_slash() -> Response:
    return Response(status=302, headers={"Location": "docs/", **demo.HEADERS})


@app.get("/docs/")
@app.get("/docs/<name>")
def docs_page(name: str = "") -> Response:
    """Return a page of the documentation, to those who may see the demo page. The first one is README.md."""
    try:
        relay.access.may_see_demo(request.environ)
    except Refused as error:
        return demo_not_shown(error)
    page = docs.page(name)
    if page is None and not wants_page():
        raise NotFound
    html = render_template("docs.html", page=page, contents=docs.contents())
    return Response(html, 200 if page else 404, headers=demo.HEADERS)


@app.get("/docs/pictures/<name>")
def docs_picture(name: str) -> Response:
    relay.access.may_see_demo(request.environ)
    return pictures.response(name, request)


@app.get("/status")
def status_page() -> Response:
    """Return the page that shows how the relay is doing."""
    try:
        relay.access.may_see_demo(request.environ)
    except Refused as error:
        return demo_not_shown(error)
    is_local = relay.access.is_local(request.environ)
    facts = status.page_facts(relay.settings, is_local)
    page = render_template("status.html", verdict=relay.status.verdict(is_local), backend=relay.backend.parts, **facts)
    return Response(page, headers=demo.HEADERS)


@app.get("/status.json")
def status_json() -> Response:
    """Return the figures of that page. They are there whatever the state of the store."""
    relay.access.may_see_demo(request.environ)
    is_local = relay.access.is_local(request.environ)
    return respond(relay.status.answer(is_local, request.accept_encodings.quality("gzip") > 0))


@app.get("/health/live")
def live() -> Response:
    return json_response({"live": True})


@app.get("/health/ready")
def ready() -> Response:
    """Return 200 if the relay accepts pushes now, and what else does not work, such as the outbox."""
    reason = relay.trouble(request.environ)
    facts: dict[str, Any] = {"ready": False, "reason": reason} if reason else {"ready": True}
    trouble = relay.backend.trouble(relay.access.is_local(request.environ))
    if trouble:
        facts["trouble"] = trouble
    return json_response(facts, "503 Service Unavailable" if reason else "200 OK")


# Errors.


@app.errorhandler(Refused)
def refused(error: Refused) -> Response:
    relay.refusal_log.log_request(request.environ, error)
    return respond(answers.refusal(error))


@app.errorhandler(StoreError)
def store_failed(error: StoreError) -> Response:
    is_local = relay.access.is_local(request.environ)
    return refused(answers.store_refusal(error, "the history cannot be read; ask again later", is_local))


def is_our_request(error: HTTPException) -> bool:
    """Return whether an error belongs to a route of this file, or to a path without a route."""
    if error.response is not None:
        return False  # the whole response is somebody's own, as in abort(Response(…))
    if request.url_rule is not None:
        return is_our_route(request.url_rule)
    same_path = [rule for rule in app.url_map.iter_rules() if rule.rule == request.path]
    return error.code == 404 or request.path.startswith("/static/") or any(map(is_our_route, same_path))


def is_our_route(rule: Rule) -> bool:
    """Return whether a route has its view in this file, or is Flask's for static files."""
    return rule.endpoint == "static" or getattr(app.view_functions.get(rule.endpoint), "__module__", None) == __name__


# Socket.IO. The acknowledgement of an event is what its handler returns, or why it refuses.

relay_event = answering(socketio.server, relay.refusal_log)


@relay_event("register", not_done="nothing was registered; register again later, with the last position that you have")
def on_register(message: Any, sid: str, environ: dict[str, Any]) -> dict[str, Any]:
    return relay.registrations.register(message, sid, environ)


@relay_event("ack", not_done="it was not acknowledged; acknowledge it again later")
def on_ack(message: Any, sid: str, environ: dict[str, Any]) -> dict[str, Any]:
    relay.registrations.ack(message, sid, environ)
    return {}


@relay_event("unregister")
def on_unregister(message: Any, sid: str, environ: dict[str, Any]) -> dict[str, Any]:
    relay.registrations.unregister(message, sid, environ)
    return {}


@relay_event("push", not_done="the push was not taken; send it again later")
def on_push(message: Any, sid: str, environ: dict[str, Any]) -> dict[str, Any]:
    asked = relay.registrations.read_push(message, sid, environ)
    receipts = relay.publisher.publish(asked)
    relay.rooms.let_stay(sid)  # a client that may push need not register
    return {"answers": receipts} if asked.several else receipts[0]


@relay_event.late("presence", not_done="the members could not be read; ask again later")
def on_presence(message: Any, sid: str, environ: dict[str, Any], reply: Reply) -> None:
    relay.people.handle(message, sid, environ, reply)


@relay_event.late("request")
def on_request(message: Any, sid: str, environ: dict[str, Any], reply: Reply) -> None:
    relay.requests.request(message, sid, environ, reply)


@relay_event.late("send")
def on_send(message: Any, sid: str, environ: dict[str, Any], reply: Reply) -> None:
    relay.requests.sends.send(message, sid, environ, reply)


# Running.


def paste_app(global_conf: dict[str, str], **local_conf: str) -> Flask:
    """Return the app to PasteDeploy ([app:main] in wsgi.ini). The settings are those of [relay] in the same file."""
    hosts.check_paste(settings, global_conf, local_conf)
    return app


startup.run(relay, app)  # serves if this is the program
