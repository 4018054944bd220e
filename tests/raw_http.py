"""Requests and responses as bytes, and small WSGI apps, for tests of the server."""

import json

TEXT = [("Content-Type", "text/plain")]


def echo(environ, start_response):
    """Respond with the method, the path and the body."""
    body = environ["wsgi.input"].read()
    start_response("200 OK", TEXT)
    return [f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ['QUERY_STRING']} ".encode() + body]


def shows(**wanted):
    """Return an app that responds with these entries of its environ, under other names."""

    def app(environ, start_response):
        start_response("200 OK", TEXT)
        return [json.dumps({name: environ.get(key) for name, key in wanted.items()}).encode()]

    return app


def status_of(answer):
    """Return the status of a response."""
    return int(answer.split(b" ", 2)[1])


def body_of(answer):
    """Return the body of a response."""
    return answer.split(b"\r\n\r\n", 1)[1]


def request(*lines, body=b""):
    """Return a request with these header lines."""
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


GET = ("GET / HTTP/1.1", "Host: x")
POST = ("POST / HTTP/1.1", "Host: x")


def receivers(client, kind):
    """Return the receivers of a class among the server's connections."""
    return [each.receiver for each in list(client.server._connections) if isinstance(each.receiver, kind)]


def answering(result, status="200 OK", headers=TEXT):
    """Return an app with this result, or with the result of calling it."""

    def app(environ, start_response):
        start_response(status, headers)
        return result() if callable(result) else result

    return app
