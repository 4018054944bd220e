"""The doctor examines the folder of the spool."""

import contextlib
import io
import pathlib

from pushrelay.cli.doctor.report import Report
from pushrelay.cli.doctor.spool_folder import spool_folder
from pushrelay.settings import load
from pushrelay.spool.folder import Folder


def examined(path):
    """Return what the doctor prints about this spool, on one line, and its numbers of failures and warnings."""
    report = Report()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        spool_folder(report, load({}, {"config": "/dev/null", "spool": str(path)}))
    return " ".join(said.getvalue().split()), report.failures, report.warnings


def test_the_doctor_tells_what_waits_and_what_is_wrong(tmp_path):
    assert examined("") == ("", 0, 0)
    path = tmp_path / "spool"
    text, failures, _ = examined(path)
    assert failures == 1 and f"there is no folder {path}" in text
    path.mkdir(mode=0o700)
    text, failures, warnings = examined(path)
    assert (failures, warnings) == (0, 1) and "waiting files: 0, in" in text and "no relay takes files" in text
    relay = Folder(str(path))
    relay.hold(0)
    for name in ("1.json", "2.json"):
        (path / name).write_text("{}")
    text, failures, warnings = examined(path)
    assert (failures, warnings) == (0, 0) and "waiting files: 2, in" in text
    relay.refuse("1.json", "it is no push")
    text, failures, warnings = examined(path)
    assert (failures, warnings) == (0, 1) and "waiting files: 1, in" in text
    assert "1 refused, for the reasons" in text and f"Correct the files in {path}/refused" in text
    relay.release()
    assert not [each for each in pathlib.Path("/proc/self/fd").iterdir() if str(each.resolve()).startswith(str(path))]
