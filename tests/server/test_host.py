"""The interface between the server, its conversations and the app."""

from pushrelay.server.host import Host
from pushrelay.server.server import Server


def test_the_server_has_everything_that_a_conversation_needs():
    server = Server(lambda environ, start_response: [], port=0)
    try:
        names = [*Host.__annotations__, *(name for name in vars(Host) if not name.startswith("_"))]
        assert [name for name in names if not hasattr(server, name)] == []
    finally:
        server.close()
