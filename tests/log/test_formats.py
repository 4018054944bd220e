"""The formats of the log."""

import json
import logging
import re

import pytest

from pushrelay.log.formats import LONGEST_LINE, JsonFormatter, TextFormatter

FORGED = "gone\r\n2026-01-01 00:00:00,000 ERROR pushrelay: forged\x1b[31m\u2028\x00\u202e"


def record(message, /, *args, error=None, **fields):
    made = logging.LogRecord("pushrelay.test", logging.WARNING, __file__, 1, message, args, None)
    if error is not None:
        try:
            raise error
        except Exception as raised:
            made.exc_info = (type(raised), raised, raised.__traceback__)
    if fields:
        made.fields = fields
    return made


def test_a_line_in_json_has_its_time_level_logger_message_and_fields():
    made = record("%s left", "a client", address="203.0.113.9", sid=None, destinations=["42", "ü"])
    made.created = 1767225600.9876
    assert json.loads(JsonFormatter().format(made)) == {
        "time": "2026-01-01T00:00:00.987Z",
        "level": "warning",
        "logger": "pushrelay.test",
        "message": "a client left",
        "address": "203.0.113.9",
        "destinations": ["42", "ü"],
    }


def test_a_field_does_not_replace_what_every_line_has():
    line = json.loads(JsonFormatter().format(record("true", message="false", time=0, level="none", error=ValueError())))
    assert line["message"] == "true" and line["level"] == "warning" and "ValueError" in line["exception"]


def test_a_traceback_is_one_line_in_json_and_indented_lines_in_text():
    made = record("it failed", error=RuntimeError(FORGED))
    line = JsonFormatter().format(made)
    assert "\n" not in line and line.isascii() and json.loads(line)["exception"].startswith("Traceback (most recent")
    first, *more = TextFormatter().format(made).split("\n")
    assert first.endswith(" WARNING pushrelay.test: it failed")
    assert len(more) > 3 and all(each.startswith("    ") and each.isprintable() for each in more)


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_nobody_forges_a_line(formatter):
    line = formatter.format(record("%s from %s", FORGED, "x", path=FORGED))
    assert line.isprintable() and "forged" in line
    if isinstance(formatter, JsonFormatter):
        assert json.loads(line)["path"] == FORGED


@pytest.mark.parametrize("text", ["x" * 200_000, "\u20ac" * 100_000, "\n" * 100_000, "\U0001f600" * 100_000])
def test_a_very_long_line_is_cut_and_is_still_json(text):
    line = JsonFormatter().format(record("%s", text, path=text, destinations=[text] * 10))
    assert len(line) <= LONGEST_LINE and json.loads(line)["message"].endswith("…")


def test_a_line_in_text_begins_with_its_time_and_level():
    line = TextFormatter().format(record("all is well"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING pushrelay\.test: all is well", line)
