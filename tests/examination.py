"""A run of the doctor, and its report."""

import contextlib
import io
import os
import re
import signal
import subprocess
import sys

import starter
from conftest import DEADLINE, ROOT, clean_environ, wait_for
from fronts import connects

from pushrelay.cli.commands import run
from pushrelay.cli.doctor.outbox_table import outbox_table
from pushrelay.cli.doctor.report import Report
from pushrelay.settings import load

DOCTOR = [sys.executable, str(ROOT / "relay.py"), "doctor"]


class Examination:
    """A run of the doctor as a program. `advice` has the sentence and the lines of each advice below a failure."""

    def __init__(self, *arguments, **process):
        command = [*DOCTOR, *map(str, arguments)]
        if process:
            process = {"env": clean_environ(), "timeout": DEADLINE * 3, **process}
            ran = subprocess.run(command, capture_output=True, text=True, **process)
        else:
            ran = starter.run(command, clean_environ(), seconds=3 * DEADLINE)
        self.code, self.complaint = ran.returncode, ran.stderr
        assert "Traceback" not in ran.stderr, ran.stderr
        self.read(ran.stdout)

    def read(self, said):
        self.said = said
        for line in self.said.splitlines():  # lines to copy and long paths are never wrapped
            assert len(line) <= 80 or line.startswith(" " * 12) or max(map(len, line.split())) > 60, line
        failed = re.findall(r"^FAIL  (.*\n(?: .*\n)*)", self.said, re.MULTILINE)
        self.failures = [" ".join(text.partition("\n      -> ")[0].split()) for text in failed]
        self.advice = [found for text in failed for found in _advice(text)]

    def failed_once(self, *words):
        """Assert that there is one failure, with these words, and return its advice."""
        assert (self.code, len(self.failures)) == (1, 1), (self.said, self.complaint)
        assert all(word in self.failures[0] for word in words), self.failures
        return self.advice

    def is_well(self):
        assert (self.code, self.failures) == (0, []), (self.said, self.complaint)


def _advice(text):
    blocks = re.findall(r"^ {6}-> (.*\n(?: {9}(?! ).*\n)*)((?: {12}.*\n)+)", text, re.MULTILINE)
    return [(" ".join(sentence.split()), [line[12:] for line in lines.splitlines()]) for sentence, lines in blocks]


def settings_of(relay, **others):
    """Return the flags with which the doctor has the settings of this relay."""
    told = {
        "max_connections": 1000,
        **{k: v for k, v in relay.settings.items() if k != "broker" and v is not None},
        **others,
    }
    return [f"--{name.replace('_', '-')}={value}" for name, value in told.items()]


class Inside(Examination):
    """A run of the doctor in this process, which is much faster."""

    def __init__(self, *arguments):
        said, complaint = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complaint):
            self.code = run(["doctor", *map(str, arguments)])
        self.complaint = complaint.getvalue()
        self.read(said.getvalue())

    @property
    def text(self):
        return " ".join(self.said.split())


@contextlib.contextmanager
def running(port, script, folder, **process):
    """Run a relay that a line of shell starts."""
    log = folder / "log"
    with log.open("wb") as output:
        command = ["sh", "-c", script]
        started = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=folder, env=clean_environ(), start_new_session=True, **process
        )
    try:
        wait_for(lambda: b"serves on" in log.read_bytes() or started.poll() is not None, "the start")
        yield
    finally:
        os.killpg(started.pid, signal.SIGTERM)
        started.wait(DEADLINE)
        # The shell ends before the program that it has started.
        wait_for(lambda: not connects(("127.0.0.1", port)), "the port to be free")


def doctor(*arguments):
    command = [sys.executable, str(ROOT / "relay.py"), "doctor", *arguments]
    ran = starter.run(command, clean_environ(), seconds=3 * DEADLINE)
    return " ".join(ran.stdout.split())


def outbox_examined(url):
    """Return what the doctor prints about an outbox, on one line, and its numbers of failures and warnings."""
    report = Report()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        outbox_table(report, load({}, {"config": "/dev/null", "outbox": url}))
    return " ".join(said.getvalue().split()), report.failures, report.warnings
