"""The same service in stock Flask-SocketIO, in threading mode, without tuning, for comparison.

`python stock.py PORT` serves on Werkzeug; `gunicorn -k gthread --threads N stock:app` on gunicorn.
"""

import sys

from flask import Flask, request
from flask_socketio import SocketIO, join_room

app = Flask(__name__)
socketio = SocketIO(app, async_mode="threading")


@socketio.on("register")
def register(message):
    join_room(str(message["id"]))


@app.post("/")
def push():
    fields = request.get_json() if request.is_json else request.form
    socketio.emit("push", {"data": fields["data"]}, to=fields["destination"])
    return ""


if __name__ == "__main__":
    socketio.run(app, "127.0.0.1", int(sys.argv[1]), allow_unsafe_werkzeug=True)
