"""A log handler that writes on its own thread, so that a stalled log reader costs lines but never a push.

Writing to a pipe that nobody reads, or to a terminal that was stopped (Ctrl-S), blocks until somebody reads. The
standard library's QueueListener is not suitable: at the end it waits for its thread without a limit, and its queue
counts lines, not bytes.
"""

import contextlib
import logging
import os
import select
import sys
import threading
import time
from collections import deque
from typing import Any

log = logging.getLogger("pushrelay")

STANDARD_ERROR = 2
# Bytes that may wait to be written; beyond them lines are dropped. This is enough for a thousand tracebacks, or for
# ten thousand lines of access log.
MOST_WAITING = 1 << 20
LONGEST_LINE = 64 * 1024  # characters; a line of the access log has an address as long as a header may be
FLUSH_SECONDS = 1.0  # for which the process waits at its end for lines that are not written yet
LOST = "%s pushrelay.log: %d lines were lost because nobody read the log fast enough\n"


class BackgroundHandler(logging.Handler):
    """A handler that never blocks its caller: a thread writes the lines to a file descriptor, in their order.

    It does not use Python's stream, which stays locked while a thread is blocked in it, and the process needs that lock
    to exit.
    """

    def __init__(self, fd: int = STANDARD_ERROR, most_waiting: int = MOST_WAITING):
        super().__init__()
        self._fd = fd
        self._most_waiting = most_waiting
        self._changed = threading.Condition()  # guards all that follows
        self._lines: deque[bytes] = deque()
        self._size = 0  # bytes of these lines and of the one that is being written
        self._lost = 0  # lines that were dropped since the last note about them
        self._closed = False
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line, or drop it if too many bytes wait."""
        try:
            line = self.format(record)
        except Exception:  # wrong arguments must not raise in the code that logs; logging's own handlers do the same
            line = f"a log line could not be formatted: {record.msg!r:.200}"
        data = (line[:LONGEST_LINE] + "\n").encode("utf-8", "backslashreplace")
        with self._changed:
            if self._closed or self._size + len(data) > self._most_waiting:
                self._lost += 1
                return
            if self._lost:
                self._append(self._lost_line())
            self._append(data)

    def _append(self, data: bytes) -> None:
        self._lines.append(data)
        self._size += len(data)
        self._changed.notify_all()

    def _lost_line(self) -> bytes:
        lost, self._lost = self._lost, 0
        return (LOST % (time.strftime("%Y-%m-%d %H:%M:%S"), lost)).encode()

    def flush(self) -> None:
        """Wait until all lines are written, but at most FLUSH_SECONDS."""
        end = time.monotonic() + FLUSH_SECONDS
        with self._changed:
            while (self._size or self._lost) and (left := end - time.monotonic()) > 0:
                self._changed.notify_all()
                self._changed.wait(left)

    def close(self) -> None:
        """Drop all further lines. logging.shutdown() calls flush() before this."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        super().close()

    def _run(self) -> None:
        while (data := self._next()) is not None:
            self._write(data)
            with self._changed:
                self._size -= len(data)
                if not self._size:
                    self._changed.notify_all()

    def _next(self) -> bytes | None:
        """Wait for the next line and return it; None if the handler is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._lost or self._closed)
            if not self._lines and self._lost:
                self._append(self._lost_line())
            return self._lines.popleft() if self._lines else None

    def _write(self, data: bytes) -> None:
        """Write the whole line, however long that takes. Drop it if the descriptor accepts nothing more."""
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # another program has set this terminal or pipe to non-blocking
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll(1000)
            except OSError:  # closed, or a full disk
                return


def start_log() -> None:
    """Send all logging through a BackgroundHandler, with the tracebacks that end a thread or the process.

    Do nothing in a program that has set up logging itself.
    """
    if logging.getLogger().handlers:
        return
    handler = BackgroundHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
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
