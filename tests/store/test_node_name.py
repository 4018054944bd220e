"""The name of a relay that was given none."""

import socket

import pytest

from pushrelay.settings.table import NAMES
from pushrelay.store.node_name import default_node


@pytest.mark.parametrize("host", ["web-1.example.com", "", "länger als jeder Name, den ein Host haben sollte", "a_b"])
def test_a_name_is_one_that_the_setting_takes_and_no_other_relay_has(monkeypatch, host):
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    names = {default_node() for _ in range(20)}
    assert len(names) == 20
    assert all(NAMES["node"].parse(name) == name for name in names)
