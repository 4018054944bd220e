"""The standard streams of `python relay.py`, whatever state they are in when it starts."""

import atexit
import contextlib
import os
import sys
from typing import TextIO

_STREAMS = (("stdin", os.O_WRONLY, "r"), ("stdout", os.O_RDWR, "w"), ("stderr", os.O_RDWR, "w"))


def prepare() -> None:
    """Make all three usable. Call it before any file is opened.

    A descriptor that is closed would be given to the next file, for example to the store, and what somebody prints
    would be written into it. A closed standard input becomes one that cannot be read.
    """
    for fd, (name, flags, mode) in enumerate(_STREAMS):
        try:
            os.fstat(fd)
        except OSError:
            opened = os.open(os.devnull, flags)
            if opened != fd:
                os.dup2(opened, fd)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(fd, mode, closefd=False))
    for stream in (sys.stdout, sys.stderr):
        # A path or an origin may hold what this terminal's encoding does not.
        stream.reconfigure(errors="backslashreplace")
    atexit.register(_end_quietly)


def say(text: str) -> OSError | None:
    """Print to the standard output; returns the error if it cannot be written."""
    try:
        print(text, flush=True)
    except OSError as error:
        drop(sys.stdout)
        return error
    return None


def complain(text: str) -> None:
    """Write a line to the standard error output, if anybody can be reached there."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def drop(stream: TextIO) -> None:
    """Let what is still to be written to a stream go nowhere; otherwise Python complains about it at the end."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _end_quietly() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            drop(stream)
