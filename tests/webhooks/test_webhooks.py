"""Webhooks: a real relay, and receivers in PHP."""

import pytest
from conftest import Client, own_only
from receivers import SECRET, Receivers

pytestmark = own_only


@pytest.fixture
def site(tmp_path):
    with Receivers(tmp_path) as receivers:
        yield receivers


def test_php_learns_who_is_online(site, start_relay):
    relay = start_relay(webhook_url=site.url("a"), webhook_secret=SECRET)
    client = Client(relay.url, "42")
    site.wait("a", [("online", "42")])
    client.socket.disconnect()
    site.wait("a", [("online", "42"), ("offline", "42")])
