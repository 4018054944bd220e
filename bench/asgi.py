"""The same service in python-socketio's asyncio server, for uvicorn with uvloop: `uvicorn asgi:app`.

The push handler is plain ASGI, without a framework, which is the fastest way.
"""

import json
from urllib.parse import parse_qsl

import socketio

server = socketio.AsyncServer(async_mode="asgi")


@server.on("register")
async def register(sid, message):
    await server.enter_room(sid, str(message["id"]))


async def push(scope, receive, send):
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    is_json = dict(scope["headers"]).get(b"content-type") == b"application/json"
    fields = json.loads(body) if is_json else dict(parse_qsl(body.decode()))
    await server.emit("push", {"data": fields["data"]}, to=fields["destination"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


app = socketio.ASGIApp(server, push)
