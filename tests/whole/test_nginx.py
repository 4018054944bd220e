"""The relay behind a real nginx, with deploy/nginx-relay*.conf."""

import contextlib
import re

import pytest
from conftest import Relay, free_port
from fronts import HOST, Nginx

from tests.whole.test_apache import SETTINGS, Promises, documented, push_by_php


@pytest.fixture(scope="module")
def front(tmp_path_factory, certificate, php_fpm):
    relay = Relay(tmp_path_factory.mktemp("relay") / "log", **SETTINGS)
    with contextlib.closing(Nginx(relay, certificate, php_fpm)) as nginx:
        yield nginx
    assert relay.stop() == 0
    assert "Traceback" not in relay.log.read_text()


class TestNginx(Promises):
    pass


def test_an_own_port_and_a_path_that_stays_on_work_as_documented(certificate, php_fpm, start_relay, visit):
    """The page comes from the site, and connects to another port of the same host."""
    port = free_port()
    server = documented("nginx.md", "listen 8443").replace("listen 8443", f"listen 127.0.0.1:{port}")
    server = re.sub(r"ssl_certificate.*", "", server).replace("snippets/relay.conf", "nginx-relay-location.conf")
    keeps_path = [("http://relay/", "http://relay/relay/")]
    relay = start_relay(base_path="/relay")
    with contextlib.closing(Nginx(relay, certificate, php_fpm, keeps_path, server)) as nginx:
        page = visit(nginx, "42", "websocket", "https", relay=f"https://{HOST}:{port}")
        assert push_by_php(page, "42", "hello")["connections"] == 1
        page.wait_for_function("got.length")
        assert str(port) in page.evaluate("document.scripts[0].src")
