"""The doctor's report: a line for each check, and what to do about each problem."""

import sys
import textwrap
from typing import NamedTuple, NoReturn

from pushrelay.cli.output import printable

WIDTH = 80
INDENT = " " * 6
COPIED = " " * 12  # the indent of lines to copy, which are never wrapped
COLORS = {"ok": "\x1b[32m", "warn": "\x1b[33m", "FAIL": "\x1b[31m"}


class Advice(NamedTuple):
    """An instruction: a sentence, and the lines to write or to run, if there are any."""

    sentence: str
    lines: tuple[str, ...] = ()


class Stop(Exception):
    """A check failed on which all further checks of this path depend."""


class Report:
    """Prints each check to the standard output as soon as it is done, and counts failures and warnings.

    By default, `colors` is set if the standard output is a terminal.
    """

    def __init__(self, colors: bool | None = None):
        self._colors = sys.stdout.isatty() if colors is None else colors
        self.failures = 0
        self.warnings = 0

    def title(self, text: str) -> None:
        """Print the title of a group of checks."""
        self._write(f"\n{text}")

    def ok(self, what: str, found: str) -> None:
        """Print that a check passed."""
        self._line("ok", what, found)

    def warn(self, what: str, found: str, *advice: Advice) -> None:
        """Print a problem that does not keep the relay from working."""
        self.warnings += 1
        self._line("warn", what, found, *advice)

    def fail(self, what: str, found: str, *advice: Advice) -> None:
        """Print a problem that keeps pushes from arriving or lets strangers in."""
        self.failures += 1
        self._line("FAIL", what, found, *advice)

    def stop(self, what: str, found: str, *advice: Advice) -> NoReturn:
        """Print a failure, and raise Stop because later checks depend on this one."""
        self.fail(what, found, *advice)
        raise Stop

    def end(self) -> int:
        """Print the summary, and return the exit code."""
        if self.failures:
            self._write(f"\n{_counted(self.failures, 'check')} failed. Apply the fixes above and run the doctor again.")
        elif self.warnings:
            self._write(f"\nIt works; {_counted(self.warnings, 'warning')}.")
        else:
            self._write("\nAll is well.")
        return 1 if self.failures else 0

    def _line(self, word: str, what: str, found: str, *advice: Advice) -> None:
        found, colon, command = found.partition(":  ")  # with a line to copy, as all messages write it
        text = self._wrapped(f"{what}: {found}{colon}", f"{word:<{len(INDENT)}}", INDENT)
        if self._colors:
            text = f"{COLORS[word]}{word}\x1b[0m{text[len(word) :]}"
        self._write(text)
        if command:
            self._write(COPIED + printable(command))
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
        encoding = sys.stdout.encoding or "utf-8"  # some terminals lack certain letters, which become "?"
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding) + "\n")
        sys.stdout.flush()


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'s' if number > 1 else ''}"
