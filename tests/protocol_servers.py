"""The servers that the protocol suites of the Socket.IO project test, on the relay's engine.

Check out github.com/socketio/engine.io-protocol and github.com/socketio/socket.io-protocol. Start the server that
belongs to the suite, and run the suite in another terminal:

    python tests/protocol_servers.py engine       # or: engine werkzeug
    cd engine.io-protocol/test-suite && npm ci && npm test

    python tests/protocol_servers.py socket       # or: socket werkzeug
    cd socket.io-protocol/test-suite && npm ci && npm test

Under gunicorn or uWSGI, from the folder tests:

    PYTHONPATH=.. gunicorn --threads 20 -b 127.0.0.1:3000 'protocol_servers:engine_app()'
    PYTHONPATH=.. uwsgi --http-socket 127.0.0.1:3000 --add-header 'Connection: close' --enable-threads --threads 20 \\
        --master --module 'protocol_servers:engine_app()'

Port 3000 and the short pings are the suites' own.
"""

import pathlib
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import engineio
import flask
import flask_socketio
import werkzeug.serving

from pushrelay.engine.engine import Engine, install
from pushrelay.rooms.manager import RoomManager
from pushrelay.server.server import Server
from pushrelay.wsgi.carriers import carrier_of

PORT = 3000
OPTIONS = {"ping_interval": 0.3, "ping_timeout": 0.2, "max_http_buffer_size": 1_000_000, "cors_allowed_origins": "*"}


def engine_app():
    """Return the WSGI app that sends back every message."""
    eio = Engine(carrier_of=carrier_of, **OPTIONS)
    eio.on("connect", lambda sid, environ: None)
    eio.on("message", lambda sid, data: eio.send(sid, data))
    return engineio.WSGIApp(eio)


def socket_app():
    """Return the Flask app with the handlers of the Socket.IO suite, on the engine and the manager of the relay."""
    install(carrier_of=carrier_of)
    app = flask.Flask(__name__)
    # The suite waits for CONNECT before the handler's own events, so that goes out before the handler is called.
    io = flask_socketio.SocketIO(
        app, client_manager=RoomManager(), async_handlers=False, always_connect=True, **OPTIONS
    )

    def greet(auth):
        # Not in the same segment as CONNECT: under Node.js the suite's waitFor() loses the second of two messages
        # that come together, because it listens for one at a time. (In a browser, it does not.)
        greeting = {"to": flask.request.sid, "namespace": flask.request.namespace}
        threading.Timer(0.02, io.emit, ("auth", auth or {}), greeting).start()

    io.on_event("connect", greet)
    io.on_event("connect", greet, namespace="/custom")

    @io.on("message")
    def message(*arguments):
        flask_socketio.emit("message-back", arguments)

    @io.on("message-with-ack")
    def message_with_ack(*arguments):
        return arguments

    return app


def serve(protocol, server):
    app = {"engine": engine_app, "socket": socket_app}[protocol]()
    if server == "werkzeug":
        werkzeug.serving.make_server("127.0.0.1", PORT, app, threaded=True).serve_forever()
    else:
        Server(app, "127.0.0.1", PORT).serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "own")
