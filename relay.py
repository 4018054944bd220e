"""The relay: PHP posts to /push, and the browsers that registered that destination have it at once.

`python relay.py` serves; `relay:app` is the same as a WSGI app. Importing starts nothing.
"""

import errno
import logging
import signal
import sys
from functools import wraps
from http import HTTPStatus
from json.encoder import encode_basestring as quote
from typing import Any, NoReturn


def stop_with(message: str) -> NoReturn:
    """End the process because it cannot start: one sentence, exit code 2."""
    sys.stderr.write(f"relay: {message}\n")
    raise SystemExit(2)


try:
    from flask import Flask, Response, render_template, request
    from flask_socketio import SocketIO, emit, join_room, leave_room, rooms
    from werkzeug.exceptions import HTTPException, InternalServerError

    from pushrelay import serving
    from pushrelay.access import may_push, open_to, origin_allowed
    from pushrelay.broker import MemoryBroker, Publication, encode
    from pushrelay.errors import Refused
    from pushrelay.packets import INVALID, Packet
    from pushrelay.pushes import Push, checked, destinations_of, read_push
    from pushrelay.settings import SettingsError, load, parse_flags
except ModuleNotFoundError as missing:
    if __name__ != "__main__":
        raise
    stop_with(
        f"the Python package {missing.name} is missing: run  pip install -r requirements.txt  in this Python's venv"
    )

try:
    # Flags are this program's own; an app that another server imports has its settings from the file and RELAY_*.
    flags, check_only = parse_flags(sys.argv[1:]) if __name__ == "__main__" else ({}, False)
    settings = load(flags=flags)
    manager = serving.make_manager(settings)
except SettingsError as error:
    if __name__ != "__main__":
        raise
    stop_with(str(error))


class RelayApp(Flask):
    """Flask, with a lighter context for what happens all the time."""

    def create_url_adapter(self, request: Any) -> Any:
        """No route is looked up for a Socket.IO event: it has none, and looking costs more than most handlers."""
        if request is not None and serving.is_socket(request.environ):
            return None
        return super().create_url_adapter(request)


app = RelayApp(__name__)
socketio = SocketIO(
    app,
    async_mode="threading",
    async_handlers=False,  # one browser's events are handled in the order in which it sent them
    manage_session=False,
    client_manager=manager,
    serializer=Packet,
    cors_allowed_origins=origin_allowed,
    ping_interval=settings.ping_interval,
    ping_timeout=settings.ping_timeout,
    max_http_buffer_size=settings.max_message,
)


def front(wsgi_app: Any) -> Any:
    """The app as a server calls it, with a shorter way for pushes and one for the client's script.

    A push is answered on the bare environ, by the function behind its view; from here to the view and back Flask takes
    longer than all the rest of a push. Whoever hooks functions into Flask's way has them called: then it is taken.
    """

    def serve(environ: dict[str, Any], start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        if path == "/push" and environ["REQUEST_METHOD"] == "POST" and not is_hooked():
            return push_lane(environ, start_response)
        if path == "/socket.io/socket.io.js":  # where Socket.IO servers have it; the engine would take it for its own
            environ["PATH_INFO"] = "/static/relay.js"
        return wsgi_app(environ, start_response)

    return serve


app.wsgi_app = front(app.wsgi_app)


def is_hooked() -> bool:
    return bool(app.before_request_funcs or app.after_request_funcs or app.teardown_request_funcs)


def push_lane(environ: dict[str, Any], start_response: Any) -> Any:
    try:
        status, body = answer_push(environ)
    except Exception:
        app.logger.exception("a push failed")
        return http_error(InternalServerError())(environ, start_response)
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def room_of(destination: str) -> str:
    """The Socket.IO room of a destination. No sid holds a colon, so no destination is ever taken for one."""
    return f"to:{destination}"


def deliver(publication: Publication, skip_sid: str | None) -> int:
    """Hand a publication to the sockets that registered its destination; returns how many those are."""
    return manager.deliver_text(publication.as_event, room_of(publication.destination), skip_sid)


broker = MemoryBroker(deliver)


def publish(push: Push) -> list[dict[str, Any]]:
    """Publish to each destination of a push; returns what the publisher is told about each."""
    answers = []
    for destination in push.destinations:
        position, connections = broker.publish(destination, push.event, push.data, push.skip_sid)
        answers.append({"destination": destination, "id": position, "connections": connections})
    return answers


def encode_answer(answer: dict[str, Any]) -> str:
    """The same as encode() makes of it, in a tenth of the time."""
    return (
        f'{{"destination":{quote(answer["destination"])},"id":"{answer["id"]}","connections":{answer["connections"]}}}'
    )


def json_response(value: Any, status: int = 200) -> Response:
    return Response(encode(value), status, mimetype="application/json")


def answer_push(environ: dict[str, Any]) -> tuple[str, bytes]:
    """What a POST to /push is answered with, whichever way it came: HTTP status and JSON."""
    try:
        may_push(environ)
        push = read_push(environ, settings)
    except Refused as error:
        return f"{error.status} {HTTPStatus(error.status).phrase}", encode(error.body()).encode()
    answers = [encode_answer(answer) for answer in publish(push)]
    return "200 OK", (f"[{','.join(answers)}]" if push.several else answers[0]).encode()


@app.post("/push")
def push_route() -> Response:
    status, body = answer_push(request.environ)
    return Response(body, status, mimetype="application/json")


@app.post("/")
def push_at_root() -> Response:
    """The seed's own address. PHP prints what it gets back, so the body is empty and the facts are headers."""
    may_push(request.environ)
    answers = publish(read_push(request.environ, settings, seed=True))
    facts = {
        "Relay-Id": ", ".join(answer["id"] for answer in answers),
        "Relay-Connections": ", ".join(str(answer["connections"]) for answer in answers),
    }
    return Response(b"", 200, facts, mimetype="text/plain")


@app.get("/")
def demo() -> str:
    return render_template("demo.html")


@app.get("/health/live")
def live() -> Response:
    return json_response({"live": True})


@app.errorhandler(Refused)
def refused(error: Refused) -> Response:
    return json_response(error.body(), error.status)


HELP = {
    404: "there is nothing here: POST pushes to /push, and connect with Socket.IO at /socket.io/",
    405: "this address does not take that method: the Allow header says which it takes",
    500: "the relay failed at this, and its log says why: the request may be sent again",
}


@app.errorhandler(HTTPException)
def http_error(error: HTTPException) -> Response:
    response = error.get_response()
    name = error.name.lower().replace(" ", "_")
    message = HELP.get(error.code, error.description)
    response.data = encode({"error": name, "message": message})
    response.content_type = "application/json"
    return response


def answering(handler):
    """Make a handler's result the acknowledgement; a refusal is an event where no acknowledgement was asked for."""

    @wraps(handler)
    def answer(message: Any, wants_answer: bool) -> dict[str, Any]:
        try:
            return {"ok": True, **handler(message)}
        except Refused as error:
            refusal = {"ok": False, **error.body()}
        except Exception:
            app.logger.exception("the handler of %s failed", handler.__name__)
            refusal = {"ok": False, "error": "internal_server_error", "message": HELP[500]}
        if not wants_answer:
            emit("relay_error", refusal)
        return refusal

    return answer


def fields_of(message: Any, example: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise Refused(400, "invalid_message", f"send an object such as {example}")
    return message


def ids_of(message: Any) -> list[str]:
    fields = fields_of(message, '{id: "42"}')
    if "id" not in fields:
        raise Refused(400, "missing_id", 'say which id you mean: {id: "42"}, or a list of ids')
    return destinations_of(fields["id"], settings, settings.max_ids)


@socketio.on("register")
@answering
def on_register(message: Any) -> dict[str, Any]:
    ids = ids_of(message)
    held = set(rooms()) - {request.sid}
    if len(held.union(map(room_of, ids))) > settings.max_ids:
        raise Refused(400, "too_many_ids", f"a socket registers {settings.max_ids} ids at most (setting max_ids)")
    for each in ids:
        join_room(room_of(each))
    # There is no history yet, so what came before cannot be had, and `since` is answered as it must be then.
    return {"ids": {each: {"position": broker.position(each), "recovered": False, "replayed": 0} for each in ids}}


@socketio.on("unregister")
@answering
def on_unregister(message: Any) -> dict[str, Any]:
    for each in ids_of(message):
        leave_room(room_of(each))
    return {}


@socketio.on("push")
@answering
def on_push(message: Any) -> dict[str, Any]:
    fields = fields_of(message, '{destination: "42", data: "hello"}')
    if not settings.socket_push:
        raise Refused(403, "not_allowed", "pages may not push here (setting socket_push); let your server push for it")
    several = isinstance(fields.get("destination"), list)
    answers = publish(checked(fields, several, settings))
    return {"answers": answers} if several else answers[0]


@socketio.on(INVALID)
@answering
def on_invalid(why: Any) -> NoReturn:
    raise Refused(400, "invalid_packet", f"this is not a Socket.IO packet that the relay can read: {why}")


@socketio.on("*")
def on_unknown(event: str, message: Any, wants_answer: bool) -> dict[str, Any]:
    @answering
    def refuse(_: Any) -> NoReturn:
        raise Refused(400, "unknown_event", f"the relay knows register, unregister and push, not {event[:50]!r}")

    return refuse(message, wants_answer)


def banner(port: int) -> str:
    """What the start prints: where it serves, what is open to whom, and a line to try."""
    url, curl = serving.address(settings, port)
    lines = [
        f"The relay serves on {url}",
        *(f"  {line}" for line in (*open_to(settings), *serving.remarks(settings))),
        f"Open {url}/?id=demo and try:" if url.startswith("http") else "Try:",
        f"  {curl}",
    ]
    return "\n".join(lines)


def cannot_listen(error: OSError) -> str:
    where = f"{settings.host} port {settings.port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is taken by another program: stop that one, or choose another port with --port"
    return f"cannot listen on {where}: {error.strerror}; choose others with --host and --port"


def stop(*_: Any) -> NoReturn:
    raise SystemExit(0)


def main() -> None:
    if check_only:
        print(f"The settings are sound ({settings.file or 'no file, all defaults'}).", *open_to(settings), sep="\n  ")
        return
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s")
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        server = serving.make_server(app, settings)
    except OSError as error:
        stop_with(cannot_listen(error))
    print(banner(server.port), flush=True)
    try:
        server.serve_forever()
    finally:
        server.close()


if __name__ == "__main__":
    main()
