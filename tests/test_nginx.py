"""The relay behind a real nginx, with deploy/nginx-relay*.conf."""

import contextlib

import pytest
from conftest import Relay, free_port
from fronts import HOST, Nginx
from test_apache import KEEPS_PATH, SETTINGS, Promises, push_by_php, visit  # noqa: F401 a fixture

OWN_PORT = """
server {{
  listen 127.0.0.1:{port} ssl;
  include {folder}/nginx-relay-location.conf;
}}
"""


@pytest.fixture(scope="module")
def front(tmp_path_factory, certificate, php_fpm):
    relay = Relay(tmp_path_factory.mktemp("relay") / "log", **SETTINGS)
    with contextlib.closing(Nginx(relay, certificate, php_fpm)) as nginx:
        yield nginx
    assert relay.stop() == 0
    assert "Traceback" not in relay.log.read_text()


class TestNginx(Promises):
    pass
