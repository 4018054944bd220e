"""An Engine on the relay's own server that sends back what it gets, for the tests of the engine."""

import json
import threading

import engineio
from conftest import DEADLINE

from pushrelay.engine.engine import Engine

POLLING = "/engine.io/?EIO=4&transport=polling"
WEBSOCKET = "/engine.io/?EIO=4&transport=websocket"


class Echo:
    """The Engine, a client of its server, and the sids and reasons of the sessions that have ended."""

    def __init__(self, serve, limiter=None, **options):
        self.eio = Engine(**{"ping_interval": 25, "ping_timeout": 20, **options})
        self.gone = []
        self.eio.on("connect", lambda sid, environ: None)
        self.eio.on("message", lambda sid, data: self.eio.send(sid, data))
        self.eio.on("disconnect", lambda sid, reason: self.gone.append((sid, reason)))
        self.client = serve(engineio.WSGIApp(self.eio), **({"limiter": limiter} if limiter else {}))

    def get(self, sid, extra=""):
        status, _, body = self.client.request("GET", f"{POLLING}&sid={sid}{extra}")
        return status, body.decode()

    def post(self, sid, body, extra=""):
        status, _, answer = self.client.request("POST", f"{POLLING}&sid={sid}{extra}", body)
        return status, answer.decode()

    def open(self):
        """Open a session over polling; return its sid."""
        status, _, body = self.client.request("GET", POLLING)
        assert status == 200
        return json.loads(body[1:])["sid"]

    def open_websocket(self):
        """Open a session over a WebSocket; return its client, which has read the open packet."""
        client = self.client.websocket(WEBSOCKET)
        assert client.receive().startswith("0")
        return client

    def websocket_of(self, sid):
        """Return a WebSocket that may take over from polling."""
        client = self.client.websocket(f"{WEBSOCKET}&sid={sid}")
        client.sock.settimeout(DEADLINE)
        return client

    def upgrading(self):
        """Return the sid of a polling session, and a WebSocket that is about to take over."""
        sid = self.open()
        client = self.websocket_of(sid)
        client.send("2probe")
        assert client.receive() == "3probe"
        return sid, client

    def is_parked(self, sid):
        """Return a function that returns whether a poll of this session is parked."""
        return lambda: self.eio.sockets[sid]._poll is not None


class Parked:
    """A poll that is parked, and the packets that answered it."""

    def __init__(self):
        self.got = None

    def answer(self, packets):
        self.got = [each.part for each in packets]


def in_background(function, *args):
    """Call a function on a thread; return a function that waits for its result."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function(*args)))
    thread.start()

    def result():
        thread.join(DEADLINE)
        return results[0]

    return result
