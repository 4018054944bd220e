"""HTTP/1.1 and WebSocket on epoll, for any WSGI app. It knows nothing about the relay.

A `Server` accepts connections, as many as its `ConnectionLimiter` allows. The threads of a `Poller` handle events.
Each `Connection` has a receiver. The first is a `Conversation`: it parses requests, calls the app and sends its
responses. An app can park a request and answer it later from any thread, or upgrade the connection to another protocol
and so to another receiver. WSGI servers have no such interface, and python-engineio needs four threads for each client.
"""

from .server import Server as Server
