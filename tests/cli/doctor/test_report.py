"""The doctor's report is at most 80 columns wide, except for lines to copy, and its exit code counts failures."""

import pytest

from pushrelay.cli.doctor.report import Advice, Report, Stop


def test_each_check_is_a_line_and_lines_to_copy_stay_whole(capsys):
    report, line = Report(), "x " * 60
    report.title("Here")
    report.ok("Python", "3.11")
    report.warn("store", "in memory " * 20, Advice("Do this:", (line,)))
    with pytest.raises(Stop):
        report.stop("relay", "down\x1b[2J")
    assert report.end() == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[1:3] == ["Here", "ok    Python: 3.11"]
    assert " " * 12 + line in printed and "      -> Do this:" in printed
    assert max(len(each) for each in printed if each.strip() != line.strip()) <= 80
    assert printed[-3:] == ["FAIL  relay: down?[2J", "", printed[-1]] and printed[-1].startswith("1 check failed.")


@pytest.mark.parametrize(("warnings", "last"), [(0, "All is well."), (1, "It works; 1 warning."), (2, "2 warnings.")])
def test_warnings_are_counted_and_fail_nothing(capsys, warnings, last):
    report = Report()
    for _ in range(warnings):
        report.warn("clock", "late")
    assert report.end() == 0 and capsys.readouterr().out.rstrip().endswith(last)
