"""The interface between the server, its conversations and the app."""

from types import SimpleNamespace

from pushrelay.server.host import KEY, Host, set_user
from pushrelay.server.server import Server


def test_the_user_is_set_on_the_conversation_even_in_a_copy_of_the_environ():
    conversation = SimpleNamespace(user="-")
    environ = {KEY: conversation}
    set_user(dict(environ), "shop")
    assert conversation.user == "shop"


def test_under_another_server_there_is_no_user_to_set():
    set_user({}, "shop")


def test_the_server_has_everything_that_a_conversation_needs():
    server = Server(lambda environ, start_response: [], port=0)
    try:
        names = [*Host.__annotations__, *(name for name in vars(Host) if not name.startswith("_"))]
        assert [name for name in names if not hasattr(server, name)] == []
    finally:
        server.close()
