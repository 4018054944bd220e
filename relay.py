"""The relay: PHP posts to /push, and the browsers that registered that destination have it at once.

`python relay.py` serves; `relay:app` is the same as a WSGI app. Importing starts nothing.
"""

import errno
import logging
import signal
import sys
from functools import wraps
from typing import Any, NoReturn

from pushrelay.commands import run_command


def stop_with(message: str) -> NoReturn:
    """End the process because it cannot start: one sentence, exit code 2."""
    sys.stderr.write(f"relay: {message}\n")
    raise SystemExit(2)


if __name__ == "__main__":
    run_command(sys.argv[1:])  # a first word such as doctor; to serve, there is none

try:
    from flask import Flask, Response, render_template, request
    from flask_socketio import SocketIO, emit, join_room, leave_room, rooms
    from werkzeug.exceptions import HTTPException, InternalServerError

    from pushrelay import serving
    from pushrelay.access import may_push, open_to, origin_allowed
    from pushrelay.broker import open_broker
    from pushrelay.errors import Refused, bad
    from pushrelay.mount import mounted
    from pushrelay.packets import INVALID, Packet
    from pushrelay.publication import Publication, StoreError, encode, offset_in, offset_of
    from pushrelay.publisher import Answer, Publisher, store_away
    from pushrelay.pushes import checked, destinations_of
    from pushrelay.settings import SettingsError, load, parse_flags
    from pushrelay.systemd import notify
    from pushrelay.upkeep import Upkeep
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

    A push is answered on the bare environ, by what the view calls as well; from here to the view and back Flask takes
    longer than all the rest of a push. Whoever hooks functions into Flask's way has them called: then it is taken.
    """

    def serve(environ: dict[str, Any], start_response: Any) -> Any:
        if not upkeep.started:
            upkeep.see_to_it()
        path = environ["PATH_INFO"]
        if path in SEED_AT and environ["REQUEST_METHOD"] == "POST" and not is_hooked():
            return push_lane(environ, start_response, SEED_AT[path])
        if path == "/socket.io/socket.io.js":  # where Socket.IO servers have it; the engine would take it for its own
            environ["PATH_INFO"] = "/static/relay.js"
        return wsgi_app(environ, start_response)

    return serve


PUSH_PATH = f"{settings.base_path}/push"  # as the server sees it
SEED_AT = {"/push": False, "/": True}  # where pushes are taken, and whether the answer is the seed's there


app.wsgi_app = front(app.wsgi_app)
if settings.base_path:
    app.wsgi_app = mounted(app.wsgi_app, settings.base_path)


def is_hooked() -> bool:
    return app.before_request_funcs or app.after_request_funcs or app.teardown_request_funcs


def push_lane(environ: dict[str, Any], start_response: Any, seed: bool) -> Any:
    try:
        answer = publisher.answer(environ, seed, environ.get("pushrelay.http"))
    except Exception:
        app.logger.exception("a push failed")
        return http_error(InternalServerError())(environ, start_response)
    # None: it is answered when it is stored, or acknowledged, and no thread waits for that.
    return () if answer is None else answered_by(answer, start_response)


def answered_by(answer: Answer, start_response: Any) -> list[bytes]:
    start_response(answer.status, [*answer.headers, ("Content-Length", str(len(answer.body)))])
    return [answer.body]


def shortcut(environ: dict[str, Any]) -> Any:
    """The still shorter way for pushes that come with this very header, again and again: see Publisher.shortcut."""
    if environ["REQUEST_METHOD"] != "POST" or environ["PATH_INFO"] != PUSH_PATH:
        return None
    take = publisher.shortcut(environ)
    return take and (lambda body, conversation: upkeep.started and not is_hooked() and take(body, conversation))


HAD = "relay.had"  # in the environ that is a socket's own: the position of each id that it was recovered from


def room_of(destination: str) -> str:
    """The Socket.IO room of a destination. No sid holds a colon, so no destination is ever taken for one."""
    return f"to:{destination}"


def deliver(publication: Publication, skip_sid: str | None) -> int:
    """Hand a publication to the sockets that registered its destination; returns how many those are."""
    return manager.deliver_text(publication.as_event, room_of(publication.destination), skip_sid)


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
    stop_with(str(error))
publisher = Publisher(broker, settings)
upkeep = Upkeep(broker)


def json_response(value: Any, status: int = 200) -> Response:
    return Response(encode(value), status, mimetype="application/json")


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
    may_push(request.environ)
    destination = destinations_of(request.args.get("destination", ""), settings)[0]
    kept = broker.history(destination, request.args.get("since"))
    publications = [
        {"id": each.position, "event": each.event, "data": each.data, "created": each.created, "expires": each.expires}
        for each in kept.publications
    ]
    answer = {"destination": destination, "position": kept.position, "recovered": kept.recovered}
    return json_response({**answer, "publications": publications})


@app.get("/")
def demo() -> str:
    return render_template("demo.html")


@app.get("/health/live")
def live() -> Response:
    return json_response({"live": True})


@app.get("/health/ready")
def ready() -> Response:
    """Whether a push would be taken."""
    if trouble := upkeep.trouble or broker.trouble:
        return json_response({"ready": False, "reason": trouble}, 503)
    return json_response({"ready": True})


@app.errorhandler(Refused)
def refused(error: Refused) -> Response:
    return json_response(error.body(), error.status)


@app.errorhandler(StoreError)
def store_error(error: StoreError) -> Response:
    return refused(store_away(error, "the history cannot be read; ask again later"))


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


def answering(not_done: str = "nothing was done"):
    """Make a handler's result the acknowledgement; a refusal is an event where no acknowledgement was asked for.

    `not_done` is what is said where the store is in trouble.
    """

    def decorate(handler):
        @wraps(handler)
        def answered(message: Any, wants_answer: bool) -> dict[str, Any]:
            try:
                return {"ok": True, **handler(message)}
            except Refused as error:
                refused = error
            except StoreError as error:
                refused = store_away(error, not_done)
            except Exception:
                app.logger.exception("the handler of %s failed", handler.__name__)
                refused = Refused(500, "internal_server_error", HELP[500])
            answer = {"ok": False, **refused.body()}
            if not wants_answer:
                emit("relay_error", answer)
            return answer

        return answered

    return decorate


def fields_of(message: Any, example: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        bad("invalid_message", f"send an object such as {example}")
    return message


def ids_of(message: Any) -> list[str]:
    fields = fields_of(message, '{id: "42"}')
    if "id" not in fields:
        bad("missing_id", 'say which id you mean: {id: "42"}, or a list of ids')
    return destinations_of(fields["id"], settings, settings.max_ids)


def since_of(since: Any, ids: list[str]) -> dict[str, str | None]:
    """For each id, from where on it is to be replayed. Raises Refused."""
    if since is None or since == "acked":
        return dict.fromkeys(ids, since)
    if isinstance(since, str):
        if len(ids) > 1:
            bad("invalid_since", "a position is one id's: for several ids, since is an object, a position for each")
        return {ids[0]: since}
    if not isinstance(since, dict) or not all(each is None or isinstance(each, str) for each in since.values()):
        bad("invalid_since", 'since is a position, "acked", or an object with one of these for each id')
    return {each: since.get(each) for each in ids}


def recover(destination: str, since: str | None) -> dict[str, Any]:
    """Replay to the socket that asks what it missed, and let it into the room; what it is told about this id."""
    sid, room = request.sid, room_of(destination)
    if since == "acked":
        since = broker.acked(destination)
    held = room in rooms()
    if held and (since is None or has_had(destination, since)):
        return {"position": broker.position(destination), "recovered": since is not None, "replayed": 0}
    if held:  # it asks for more than it has had: all of that in order, and so what came live once more
        leave(destination)
    try:
        recovery = broker.recover(
            destination,
            since,
            send=lambda publication: manager.send_text(publication.as_event(), sid),
            join=lambda: join_room(room),
            pace=lambda: manager.pace(sid),
        )
    except ValueError:  # python-socketio's word for a room that nobody can enter any more
        bad("disconnected", "the socket was closed while it registered")
    except StoreError:
        if held:
            join_room(room)
        raise
    if recovery.recovered:
        request.environ.setdefault(HAD, {})[destination] = since
    return recovery._asdict()


def leave(destination: str) -> None:
    leave_room(room_of(destination))
    request.environ.get(HAD, {}).pop(destination, None)


def has_had(destination: str, since: str) -> bool:
    """Whether a socket that is registered was sent all that came after a position."""
    first, last = request.environ.get(HAD, {}).get(destination), broker.position(destination)
    offset = offset_in(since, broker.epoch)
    if offset is None or offset > offset_of(last):
        return False
    return since == last or (first is not None and offset >= offset_of(first))


@socketio.on("register")
@answering("nothing was registered; register again later, with the last position that you have")
def on_register(message: Any) -> dict[str, Any]:
    ids = ids_of(message)
    since = since_of(message.get("since"), ids)
    held = set(rooms()) - {request.sid}
    if len(held.union(map(room_of, ids))) > settings.max_ids:
        bad("too_many_ids", f"a socket registers {settings.max_ids} ids at most (setting max_ids)")
    try:
        return {"ids": {each: recover(each, since[each]) for each in ids}}
    except StoreError:
        for each in ids:  # all of them or none
            if room_of(each) not in held:
                leave(each)
        raise


@socketio.on("ack")
@answering("it was not acknowledged; acknowledge it again later")
def on_ack(message: Any) -> dict[str, Any]:
    """All up to this position has been dealt with, for every socket that asks for what is not acknowledged."""
    ids, position = ids_of(message), message.get("position")
    if len(ids) > 1:
        bad("invalid_id", "a position is one id's: acknowledge each id on its own")
    destination = ids[0]
    if room_of(destination) not in rooms():
        bad("not_registered", "register an id before you acknowledge what came for it")
    if not isinstance(position, str):
        bad("invalid_position", "position is the id of the publication that is acknowledged")
    try:
        broker.ack(destination, position)
    except ValueError as error:
        bad("invalid_position", str(error))
    publisher.waiters.note(destination, offset_of(position), request.sid)
    return {}


@socketio.on("unregister")
@answering()
def on_unregister(message: Any) -> dict[str, Any]:
    for each in ids_of(message):
        leave(each)
    return {}


@socketio.on("push")
@answering("the push was not taken; send it again later")
def on_push(message: Any) -> dict[str, Any]:
    fields = fields_of(message, '{destination: "42", data: "hello"}')
    if not settings.socket_push:
        raise Refused(403, "not_allowed", "pages may not push here (setting socket_push); let your server push for it")
    push = checked(fields, settings)
    if push.wait:
        bad("invalid_wait", "only a push over HTTP can wait for an acknowledgement")
    answers = publisher.publish(push)
    return {"answers": answers} if push.several else answers[0]


@socketio.on(INVALID)
@answering()
def on_invalid(why: Any) -> NoReturn:
    bad("invalid_packet", f"this is not a Socket.IO packet that the relay can read: {why}")


@socketio.on("*")
def on_unknown(event: str, message: Any, wants_answer: bool) -> dict[str, Any]:
    @answering()
    def refuse(_: Any) -> NoReturn:
        bad("unknown_event", f"the relay knows register, unregister, ack and push, not {event[:50]!r}")

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
    if error.errno is None:  # of our own, and a sentence
        return str(error)
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
        server = serving.make_server(app, settings, shortcut)
    except OSError as error:
        stop_with(cannot_listen(error))
    try:
        upkeep.start()
        print(banner(server.port), flush=True)
        notify("READY=1")
        server.serve_forever()
    except StoreError as error:
        stop_with(str(error))
    finally:
        notify("STOPPING=1")
        publisher.waiters.finish()
        server.close()
        upkeep.close()


if __name__ == "__main__":
    main()
