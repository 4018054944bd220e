"""The doctor's check of a Redis in which the relay stores pushes."""

from pushrelay.cli.redis_report import report_on
from pushrelay.errors import StoreError
from pushrelay.settings import Settings

from .report import Report


def redis_store(report: Report, settings: Settings) -> None:
    """Check that the relay can use the Redis of the settings, and report when an accepted push would be lost."""
    try:
        found = report_on(settings)
    except StoreError as error:
        report.fail("store", str(error))
        return
    if found is None:
        return
    for each in found.refusals:
        report.fail("store", f"{found.name}: {each}")
    for each in found.warnings:
        report.warn("store", each)
    if not found.refusals:
        report.ok("store", found.name)
        report.ok("accepted pushes", "; ".join(" ".join(line.split()) for line in found.survives))
