"""What the doctor says: a line for each thing that it looked at, and what to do about what is wrong."""

import sys
import textwrap
from typing import NamedTuple, NoReturn

from pushrelay.cli.output import printable

WIDTH = 80
INDENT = " " * 6
# Lines to be copied stand deeper than everything else, as they are, however long.
COPIED = " " * 12
COLOURS = {"ok": "\x1b[32m", "warn": "\x1b[33m", "FAIL": "\x1b[31m"}


class Advice(NamedTuple):
    """What to do: a sentence, and the lines to write or to run, if there are any."""

    sentence: str
    lines: tuple[str, ...] = ()


class Stop(Exception):
    """A hop failed, so there is no use in looking at what is behind it."""


class Report:
    """Written to the standard output as it comes."""

    def __init__(self, colours: bool | None = None):
        self._colours = sys.stdout.isatty() if colours is None else colours
        self.failures = 0
        self.warnings = 0

    def title(self, text: str) -> None:
        self._write(f"\n{text}")

    def ok(self, what: str, found: str) -> None:
        self._line("ok", what, found)

    def warn(self, what: str, found: str, *advice: Advice) -> None:
        self.warnings += 1
        self._line("warn", what, found, *advice)

    def fail(self, what: str, found: str, *advice: Advice) -> None:
        self.failures += 1
        self._line("FAIL", what, found, *advice)

    def stop(self, what: str, found: str, *advice: Advice) -> NoReturn:
        """Fail, and look no further on this way. Raises Stop."""
        self.fail(what, found, *advice)
        raise Stop

    def end(self) -> int:
        """The last line; returns the exit code."""
        if self.failures:
            self._write(f"\n{_counted(self.failures, 'check')} failed. Apply the fixes above and run the doctor again.")
        else:
            self._write("\nAll is well." if not self.warnings else f"\nIt works; {_counted(self.warnings, 'warning')}.")
        return 1 if self.failures else 0

    def _line(self, word: str, what: str, found: str, *advice: Advice) -> None:
        text = self._wrapped(f"{what}: {found}", f"{word:<{len(INDENT)}}", INDENT)
        if self._colours:
            text = f"{COLOURS[word]}{word}\x1b[0m{text[len(word) :]}"
        self._write(text)
        for sentence, lines in advice:
            self._write(self._wrapped(sentence, f"{INDENT}-> ", INDENT + " " * 3))
            for line in lines:
                self._write(COPIED + line)

    def _wrapped(self, text: str, first: str, rest: str) -> str:
        return textwrap.fill(
            printable(text),
            WIDTH,
            initial_indent=first,
            subsequent_indent=rest,
            break_long_words=False,
            break_on_hyphens=False,
        )

    def _write(self, text: str) -> None:
        encoding = sys.stdout.encoding or "utf-8"  # not every terminal has all letters
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding) + "\n")
        sys.stdout.flush()


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'s' if number > 1 else ''}"
