"""The doctor's check of the outbox in the site's database."""

from pushrelay.errors import StoreError
from pushrelay.outbox.packages import check_outbox_packages
from pushrelay.settings import Settings
from pushrelay.settings.mysql_url import mysql_url

from .report import Report


def outbox_table(report: Report, settings: Settings) -> None:
    """Check that the relay can take rows out of the table, and report those that cannot be pushed."""
    if not settings.outbox:
        return
    url = mysql_url(settings.outbox)
    try:
        check_outbox_packages()
        from pushrelay.outbox.examination import examine
        from pushrelay.outbox.explanations import DatabaseError
    except StoreError as error:
        report.fail("outbox", str(error))
        return
    try:
        found = examine(url)
    except DatabaseError as error:
        report.fail("outbox", str(error))
        return
    waiting, *refused = found.lines()
    report.ok("outbox", f"{found.server} at {url}; {waiting}")
    for each in refused:
        report.warn("outbox", each)
