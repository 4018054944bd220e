"""The setup of logging: what is logged, in which format, and the tracebacks that end a thread or the process."""

import contextlib
import logging
import sys
import threading
from typing import Any, ClassVar

from .formats import FORMATTERS
from .handler import BackgroundHandler
from .problems import Problems

log = logging.getLogger("pushrelay")  # the settings apply to it and to those below it

# These belong to python-socketio and python-engineio, which log whole packets at the level info: data and tokens too.
LIBRARIES = ("pushrelay.socketio", "pushrelay.engineio")


class _Own:
    """The relay's own setup in this process. It changes nothing that another program has set up."""

    handler: BackgroundHandler | None = None
    levels: ClassVar[dict[str, int]] = {}  # by the names of loggers


def start_log(
    level: str = "info", format: str = "text", is_imported: bool = False, also: logging.Handler | None = None
) -> None:
    """Send all logging through a BackgroundHandler, with the tracebacks that end a thread or the process.

    `level` and `format` are settings. In a program that has set up logging itself, only set the level. With
    `is_imported`, another program serves: only the relay's own lines go through the handler. `also` gets the relay's
    own lines in any case.
    """
    theirs = [each for each in log.handlers if not isinstance(each, Problems)]
    if not (_Own.handler or logging.getLogger().handlers or theirs):
        _Own.handler = BackgroundHandler()
        if is_imported:
            log.addHandler(_Own.handler)
        else:
            _take_over(_Own.handler)
    if also is not None and also not in log.handlers:
        log.addHandler(also)
    set_log(level, format)


def set_log(level: str, format: str) -> None:
    """Use this level and this format from now on. Other programs' loggers and handlers stay as they are."""
    number = logging.getLevelNamesMapping()[level.upper()]
    _set_level(log, number)
    for name in LIBRARIES:
        _set_level(logging.getLogger(name), max(number, logging.WARNING))
    if _Own.handler is not None:
        _Own.handler.setFormatter(FORMATTERS[format]())


def _set_level(logger: logging.Logger, level: int) -> None:
    """Set a logger's level, unless another program has."""
    if logger.level == _Own.levels.get(logger.name, logging.NOTSET):
        _Own.levels[logger.name] = level
        logger.setLevel(level)


def _take_over(handler: BackgroundHandler) -> None:
    logging.basicConfig(handlers=[handler])
    logging.captureWarnings(True)
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _uncaught
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _uncaught_in_thread
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _unraisable


def _uncaught(kind: Any, error: Any, traceback: Any) -> None:
    log.critical("the relay ends because of an error", exc_info=(kind, error, traceback))


def _uncaught_in_thread(args: Any) -> None:
    if args.exc_type is not SystemExit:
        log.critical("a thread ended because of an error", exc_info=args[:3])


def _unraisable(args: Any) -> None:
    with contextlib.suppress(Exception):
        exc_info = (args.exc_type, args.exc_value, args.exc_traceback)
        log.error("%s: %r", args.err_msg or "an error that nobody can handle, in", args.object, exc_info=exc_info)
