"""The doctor examines the outbox of the settings."""

import contextlib
import importlib.metadata
import io

from conftest import free_port
from mariadb import PASSWORD, MariaDB

from pushrelay.cli.doctor.outbox_table import outbox_table
from pushrelay.cli.doctor.report import Report
from pushrelay.settings import load


def examined(url):
    """Return what the doctor prints about this outbox, on one line, and its numbers of failures and warnings."""
    report = Report()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        outbox_table(report, load({}, {"config": "/dev/null", "outbox": url}))
    text = " ".join(said.getvalue().split())
    assert PASSWORD not in text
    return text, report.failures, report.warnings


def test_the_doctor_tells_what_waits_and_what_is_wrong(tmp_path, monkeypatch):
    assert examined("") == ("", 0, 0)
    text, failures, _ = examined(f"mysql://relay:{PASSWORD}@127.0.0.1:{free_port()}/shop")
    assert failures == 1 and "cannot be reached" in text
    with MariaDB(tmp_path) as server:
        site = server.site()
        site.insert(("42", "x"), ("42", "y"))
        site.ask("UPDATE relay_outbox SET error = 'too_large' WHERE id = 2")
        text, failures, warnings = examined(site.url)
        assert (failures, warnings) == (0, 1) and "1 rows wait" in text and "the first is 2: too_large" in text

    def missing(name):
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "version", missing)
    text, failures, _ = examined(site.url)
    assert failures == 1 and "requirements-outbox.txt" in text
