"""Writing to the terminal: text that is safe to show, and streams whose reader may be gone."""

import contextlib
import os
import sys
from typing import TextIO


def printable(text: str) -> str:
    """Return the text with "?" in place of control characters, which a terminal would obey.

    Part of what a command prints comes from strangers: an error page, a header, the message of another server.
    """
    return "".join(each if each.isprintable() else "?" for each in text)


def print_text(text: str) -> OSError | None:
    """Print to the standard output. Return the error if that fails: from then on, output is discarded."""
    try:
        print(text, flush=True)
    except OSError as error:
        discard(sys.stdout)
        return error
    return None


def print_data(line: str) -> None:
    """Write a line to the standard output, in UTF-8 whatever the terminal's encoding. Raises OSError."""
    sys.stdout.buffer.write(line.encode("utf-8", "replace") + b"\n")
    sys.stdout.buffer.flush()


def print_error(text: str) -> None:
    """Write a line to the standard error output, and ignore failures."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def print_status(text: str) -> None:
    """Write to the standard error output what a command is doing, apart from the data on the standard output."""
    print_error(printable(text))


def fail(message: str, code: int = 1) -> int:
    """Write an error to the standard error output, and return the exit code."""
    print_error(f"relay: {printable(message)}")
    return code


def discard(stream: TextIO) -> None:
    """Discard what is buffered in a stream, and everything that is written to it later.

    Otherwise Python reports at its exit that the stream cannot be flushed.
    """
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
