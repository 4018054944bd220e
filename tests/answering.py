"""The response of a WSGI app to a request for its Engine.IO path."""


def answer_of(app, method, **environ):
    """Return the status and the headers with which a WSGI app answers a request to its Engine.IO path."""
    answered = []
    environ = {"REQUEST_METHOD": method, "PATH_INFO": "/socket.io/", "HTTP_HOST": "relay.example", **environ}
    environ = {"QUERY_STRING": "EIO=4&transport=polling", "SERVER_PROTOCOL": "HTTP/1.1", **environ}
    list(app(environ, lambda status, headers, *_: answered.append((int(status[:3]), headers))))
    (status, headers), names = answered[0], {}
    for name, value in headers:
        names[name.lower()] = f"{names[name.lower()]}, {value}" if name.lower() in names else value
    return status, names
