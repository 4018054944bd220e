"""The doctor examines the outbox. tests/outbox/test_examination.py has it examine a database."""

import importlib.metadata

from conftest import free_port
from examination import outbox_examined


def test_a_database_that_is_away_and_a_package_that_is_missing_are_failures(monkeypatch):
    assert outbox_examined("") == ("", 0, 0)
    url = f"mysql://relay:secret@127.0.0.1:{free_port()}/shop"
    text, failures, _ = outbox_examined(url)
    assert failures == 1 and "cannot be reached" in text and "secret" not in text

    def missing(name):
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "version", missing)
    text, failures, _ = outbox_examined(url)
    assert failures == 1 and "requirements-outbox.txt" in text
