"""The formats of the log: text for people, and a JSON object a line for programs. One event is one line.

Strangers choose parts of what is logged, so no format writes their control characters: nobody can forge a line.
"""

import json
import logging
import re
import time

LONGEST_LINE = 60_000  # characters of a line in JSON; BackgroundHandler cuts lines that are longer than this
SHORTEST_TEXT = 100  # characters to which a text is cut at most
# The names that every line in JSON has, which fields cannot replace.
_RESERVED = {"time", "level", "logger", "message", "exception"}
_LINE_ENDS = re.compile("\r\n?|\n")

Fields = dict[str, object]


class TextFormatter(logging.Formatter):
    """Text: time, level, logger and message. The lines of a traceback follow, each indented by four spaces."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and those of the traceback, none of which looks like the beginning of an event."""
        first = f"{self.formatTime(record)} {record.levelname} {record.name}: {record.getMessage()}"
        below = self.formatException(record.exc_info) if record.exc_info else ""
        more = [f"    {escaped(each)}" for each in _LINE_ENDS.split(below)] if below else []
        return "\n".join([escaped(first), *more])


class JsonFormatter(logging.Formatter):
    """A JSON object in ASCII: time (RFC 3339), level, logger, message, the fields of the line, and the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object, with its texts cut if the line would be too long."""
        fields: Fields = {
            "time": _rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        given: Fields = getattr(record, "fields", None) or {}
        fields |= {name: value for name, value in given.items() if name not in _RESERVED and value is not None}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        line, longest = json.dumps(fields, default=str), LONGEST_LINE
        while len(line) > LONGEST_LINE and longest > SHORTEST_TEXT:
            longest //= 2
            fields = {name: _cut(value, longest) for name, value in fields.items()}
            line = json.dumps(fields, default=str)
        return line


FORMATTERS: dict[str, type[logging.Formatter]] = {"text": TextFormatter, "json": JsonFormatter}


def escaped(text: str) -> str:
    """Return a text without line breaks and other control characters: a backslash and their number instead."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _rfc3339(seconds: float) -> str:
    """Return a time as 2026-01-31T23:59:59.123Z."""
    whole, thousandths = divmod(int(seconds * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{thousandths:03d}Z"


def _cut(value: object, longest: int) -> object:
    """Return a field with at most this many characters in each of its texts."""
    if isinstance(value, list):
        return [_cut(each, longest) for each in value]
    return f"{value[:longest]}…" if isinstance(value, str) and len(value) > longest else value
