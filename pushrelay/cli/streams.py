"""The standard streams of `python relay.py`: usable even if some of them are closed when it starts."""

import atexit
import io
import os
import sys

from .output import discard

_STREAMS = (("stdin", os.O_WRONLY, "r"), ("stdout", os.O_RDWR, "w"), ("stderr", os.O_RDWR, "w"))


def prepare() -> None:
    """Make all three streams usable. Call it before any file is opened.

    A closed descriptor would be reused for the next file that is opened, such as the store, and a printed line would
    then be written into that file. A closed standard input becomes one that cannot be read.
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
        # Paths and origins may have letters that this terminal's encoding lacks.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    atexit.register(_flush_at_exit)


def _flush_at_exit() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            discard(stream)
