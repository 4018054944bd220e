"""The doctor's check of the folder of the spool."""

from pushrelay.settings import Settings

from .report import Advice, Report


def spool_folder(report: Report, settings: Settings) -> None:
    """Check that the relay can take files from the folder, and report those that were refused."""
    if not settings.spool:
        return
    from pushrelay.spool.folder import Folder, FolderTrouble  # they need a POSIX system
    from pushrelay.spool.refused_files import REFUSED

    try:
        found = Folder(settings.spool).examine()
    except FolderTrouble as error:
        report.fail("spool", str(error))
        return
    waiting = f"waiting files: {found.waiting}, in {settings.spool}"
    if found.is_held:
        report.ok("spool", waiting)
    else:
        advice = Advice("Start the relay. If it runs, its log has the reason.")
        report.warn("spool", f"{waiting}; no relay takes files from there", advice)
    if found.refused:
        folder = f"{settings.spool}/{REFUSED}"
        advice = Advice(f"Correct the files in {folder} and move them back, or remove them.")
        report.warn("spool", f"files: {found.refused} refused, for the reasons beside them", advice)
