"""The setup of logging, in a process of its own each time."""

import json
import os
import subprocess
import sys

from conftest import DEADLINE, ROOT


def output_of(program):
    """Run a program that may use `logging` and `setup`; return its standard error."""
    begin = "import logging, sys\nfrom pushrelay.log import setup\nours = logging.getLogger('pushrelay.any')\n"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", begin + program], capture_output=True, env=environ, text=True, timeout=DEADLINE
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stderr


ALL = "for each in (ours.debug, ours.info, ours.warning, ours.error): each(each.__name__)\n"


def test_the_level_decides_what_the_relay_logs_and_other_loggers_have_warnings():
    told = output_of(
        f"setup.start_log('debug')\n{ALL}logging.getLogger('app').info('app-info')\n"
        f"logging.getLogger('app').warning('app-warning')\nsetup.set_log('error', 'text')\n{ALL}"
    )
    assert [line.rsplit(": ", 1)[1] for line in told.splitlines()] == [
        *("debug", "info", "warning", "error", "app-warning", "error")
    ]


def test_the_format_can_change_between_two_lines():
    told = output_of("setup.start_log()\nours.info('one')\nsetup.set_log('info', 'json')\nours.info('two')")
    one, two = told.splitlines()
    assert one.endswith(" INFO pushrelay.any: one") and json.loads(two)["message"] == "two"


def test_libraries_that_would_log_data_do_not_at_any_level():
    told = output_of(
        "setup.start_log('debug')\nfor name in ('socketio', 'engineio'):\n"
        "    log = logging.getLogger('pushrelay.' + name)\n    log.info('packet SECRET')\n    log.warning('broken')"
    )
    assert told.count("broken") == 2 and "SECRET" not in told


def test_a_program_that_has_set_up_logging_keeps_its_handlers_and_gets_the_fields():
    told = output_of(
        "class Mine(logging.StreamHandler):\n"
        "    def emit(self, record): sys.stderr.write(f'{record.getMessage()} {record.fields}\\n')\n"
        "logging.basicConfig(handlers=[Mine()])\nhook = sys.excepthook\n"
        "setup.start_log('info', 'json', is_imported=True)\nsetup.start_log('info', 'json')\n"
        "ours.info('once', extra={'fields': {'sid': 'x'}})\nours.debug('never')\nassert sys.excepthook is hook"
    )
    assert told == "once {'sid': 'x'}\n"


def test_a_level_that_a_program_has_chosen_for_the_relay_stays():
    told = output_of(f"logging.getLogger('pushrelay').setLevel('ERROR')\nsetup.start_log('debug')\n{ALL}")
    assert told.count("\n") == 1 and told.endswith("error\n")


def test_in_a_program_that_imports_the_relay_only_its_own_lines_have_its_format():
    told = output_of(
        "for _ in range(2): setup.start_log('info', 'json', is_imported=True)\n"
        "ours.warning('ours')\nlogging.getLogger('app').warning('theirs')\nlogging.getLogger('pushrelay').info('more')"
    )
    lines = told.splitlines()
    assert "theirs" in lines and {json.loads(line)["message"] for line in lines if line != "theirs"} == {"ours", "more"}


def test_the_handlers_own_lines_are_json_too():
    told = output_of(
        "setup.start_log('info', 'json')\nours.warning('%d', 'no number')\nhandler = setup._Own.handler\n"
        "handler._most_waiting = 0\nours.warning('lost')\nhandler._most_waiting = 1 << 20\nours.warning('then')"
    )
    first, second, third = (json.loads(line) for line in told.splitlines())
    assert "could not be formatted" in first["message"] and first["logger"] == "pushrelay.any"
    assert "1 lines were lost" in second["message"] and second["level"] == "warning"
    assert third["message"] == "then"
