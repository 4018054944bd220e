"""A Flask-SocketIO app in the style of its documentation, on the relay or without it.

`python tests/own_app.py relay` serves it on the relay, with the settings in RELAY_*.
`python tests/own_app.py stock PORT` serves it on plain Flask-SocketIO.
"""

import pathlib
import sys
import threading

from flask import Blueprint, Flask, abort, g, jsonify, request, session, url_for
from flask_socketio import (
    Namespace,
    SocketIO,
    call,
    close_room,
    disconnect,
    emit,
    join_room,
    leave_room,
    rooms,
    send,
)

KIND = sys.argv[1]
if KIND == "stock":
    app = Flask("own_app")
    socketio = SocketIO(app, async_mode="threading")
else:
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
    from relay import app, socketio

app.secret_key = "for the session cookie"
released = threading.Event()
seen = []  # the arguments of the connect and disconnect handlers


# Arguments and return values.


@socketio.on("two")
def two(a, b):
    return a, b


@socketio.on("many")
def many(*args):
    return {"args": list(args), "count": len(args)}


@socketio.on("nothing")
def nothing():
    pass


@socketio.event
def by_name(data):
    return ["by_name", data]


@socketio.on("message")
def on_message(text):
    send(f"heard {text}")
    return "thanks"


@socketio.on("json")
def on_json(value):
    send(value, json=True)


socketio.on_event("plain", lambda data: {"plain": data})


@socketio.on("late")
def late(value):
    """Record the order in which one client's events are handled."""
    seen.append(value)
    return len(seen) > 0


# The context.


@socketio.on("who")
def who():
    own = request.sid in rooms()
    known = request.event["message"], request.namespace, request.args.get("q"), request.headers.get("X-Own")
    return [own, *known, request.cookies.get("session") is not None, url_for("shop.index")]


@socketio.on("remember")
def remember(value):
    session["value"] = value


@socketio.on("recall")
def recall():
    return session.get("value"), session.get("user")


# Errors.


@socketio.on("boom")
@socketio.on("boom", namespace="/chat")
@socketio.on("boom", namespace="/admin")
def boom(text):
    raise ValueError(text)


@socketio.on_error_default
def failed(error):
    return "default", str(error), request.event["message"]


@socketio.on_error("/chat")
def failed_in_chat(error):
    return "chat", str(error), request.event["args"]


# Sending.


@socketio.on("join")
def join(room):
    join_room(room)
    return sorted(each for each in rooms() if each != request.sid)


@socketio.on("leave")
def leave(room):
    leave_room(room)
    return sorted(each for each in rooms() if each != request.sid)


@socketio.on("close")
def close(room):
    close_room(room)


@socketio.on("tell")
def tell(room, *args):
    emit("told", args, to=room, include_self=False)
    return "done"


@socketio.on("everyone")
def everyone(text):
    emit("everyone", {"text": text}, broadcast=True)


@socketio.on("outside")
def outside(text):
    socketio.emit("outside", text, to=request.sid)
    socketio.send("sent " + text, to=request.sid)


@socketio.on("ask_me")
def ask_me(question):
    asked = request.sid

    def answered(*args):
        emit("thanks", [*args, request.sid == asked])

    emit("question", question, callback=answered)


@socketio.on("call_me")
def call_me(question):
    return ["they said", call("question", question, timeout=10)]


@socketio.on("count")
def count(most):
    sid = request.sid

    def run():
        for n in range(most):
            socketio.sleep(0.01)
            socketio.emit("tick", n, to=sid)

    socketio.start_background_task(run)
    return "counting"


@socketio.on("hold")
def hold(value):
    released.wait(30)
    return value


@socketio.on("bye")
def bye():
    disconnect()


# Bytes.


@socketio.on("bytes")
@socketio.on("bytes", namespace="/chat")
def take_bytes(first, *more):
    emit("bytes", (first, {"deep": [first[::-1]]}))
    return type(first).__name__, len(first), [type(each).__name__ for each in more]


@socketio.on("bytes_back")
def bytes_back():
    return {"data": b"\x00\xff"}, b"second"


# Namespaces.


@socketio.on("connect", namespace="/chat")
def connect_chat(auth):
    seen.append(["connect", auth])
    if auth == {"token": "wrong"}:
        raise ConnectionRefusedError("not with that token")
    emit("welcome", {"auth": auth})


@socketio.on("disconnect", namespace="/chat")
def leave_chat(reason):
    seen.append(["disconnect", reason])


@socketio.on("ping2", namespace="/chat")
def ping_chat(a, b):
    return [request.namespace, a, b]


@socketio.on("seen", namespace="/chat")
def tell_seen():
    return seen


@socketio.on("*", namespace="/any")
def on_any(event, *args):
    return [event, *args]


class Admin(Namespace):
    """A namespace as a class."""

    def on_connect(self, auth):
        return (auth or {}).get("user") == "root"

    def on_disconnect(self, reason):
        seen.append(["admin left", reason])

    def on_ping2(self, a, b):
        self.emit("pong2", {"a": a})
        return a, b

    def on_bytes(self, data):
        return data[::-1]


socketio.on_namespace(Admin("/admin"))


# Routes.

shop = Blueprint("shop", __name__, url_prefix="/shop")


@shop.before_request
def in_shop():
    g.shop = "open"
    if request.args.get("closed"):
        return "closed", 503
    return None


@shop.get("/")
def index():
    return jsonify(shop=g.shop)


@shop.get("/code/<int:code>")
def fail(code):
    if code == 500:
        raise ZeroDivisionError("by hand")
    abort(code)


@shop.errorhandler(418)
def teapot(error):
    return "short and stout", 418


@shop.post("/only")
def only():
    return "taken"


@shop.get("/release")
def release():
    released.set()
    return "released"


@app.get("/login/<user>")
def login(user):
    session["user"] = user
    return "welcome"


@app.get("/broadcast/<text>")
def broadcast(text):
    socketio.emit("news", {"text": text})
    return "sent"


@app.errorhandler(410)
def gone(error):
    return {"gone": True}, 410


@app.errorhandler(ZeroDivisionError)
def divided(error):
    return f"divided {error}", 500


app.register_blueprint(shop)

if __name__ == "__main__":
    if KIND == "stock":
        socketio.run(app, port=int(sys.argv[2]), allow_unsafe_werkzeug=True)
    else:
        socketio.run(app)
