"""The output of a command is safe to show, and a reader that has gone causes no traceback."""

import os
import subprocess
import sys

from conftest import ROOT

from pushrelay.cli.output import fail, printable


def test_control_characters_do_not_reach_the_terminal(capsys):
    assert printable("\x1b]0;owned\x07 ü\r\n\u2028") == "?]0;owned? ü???"
    assert fail("no\x1b[2J", 3) == 3
    assert capsys.readouterr() == ("", "relay: no?[2J\n")


def run_with(program, output):
    begin = "import sys; sys.path.insert(0, sys.argv[1]); from pushrelay.cli.output import *; "
    command = [sys.executable, "-c", begin + program, str(ROOT)]
    return subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, timeout=30)


def test_an_output_that_cannot_be_written_is_an_error_once_and_discarded_then():
    with open("/dev/full", "wb") as full:
        ran = run_with("print(type(print_text('x')).__name__, print_text('y'), file=sys.stderr)", full)
    assert (ran.returncode, ran.stderr) == (0, "OSError None\n")


def test_a_reader_that_is_gone_causes_no_traceback():
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as nobody:
        ran = run_with("print(repr(print_text('x')), file=sys.stderr)", nobody)
    assert ran.returncode == 0 and ran.stderr.startswith("BrokenPipeError")


def test_data_is_utf_8_whatever_the_encoding_of_the_terminal():
    with subprocess.Popen(
        [sys.executable, "-c", "from pushrelay.cli.output import print_data; print_data('ü \\ud800')"],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    ) as process:
        assert process.communicate(timeout=30)[0] == "ü ?\n".encode()
