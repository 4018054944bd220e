"""A log handler that writes on its own thread, so that a stalled log reader costs lines but never a push.

Writing to a pipe that nobody reads, or to a terminal that was stopped (Ctrl-S), blocks until somebody reads. The
standard library's QueueListener is not suitable: at the end it waits for its thread without a limit, and its queue
counts lines, not bytes.
"""

import logging
import os
import select
import threading
import time
from collections import deque

STANDARD_ERROR = 2
# Bytes that may wait to be written; beyond them lines are dropped. This is enough for a thousand tracebacks, or for
# ten thousand lines of access log.
MOST_WAITING = 1 << 20
LONGEST_LINE = 64 * 1024  # characters; a line of the access log has an address as long as a header may be
FLUSH_SECONDS = 1.0  # for which the process waits at its end for lines that are not written yet
LOST = "%d lines were lost because nobody read the log fast enough"


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
            data = self._line(record)
        except Exception:  # wrong arguments must not raise in the code that logs; logging's own handlers do the same
            data = self._line(_record(record.name, "a log line could not be formatted: %.200r", record.msg))
        with self._changed:
            if self._closed or self._size + len(data) > self._most_waiting:
                self._lost += 1
                return
            if self._lost:
                self._append(self._lost_line())
            self._append(data)

    def _line(self, record: logging.LogRecord) -> bytes:
        return (self.format(record)[:LONGEST_LINE] + "\n").encode("utf-8", "backslashreplace")

    def _append(self, data: bytes) -> None:
        self._lines.append(data)
        self._size += len(data)
        self._changed.notify_all()

    def _lost_line(self) -> bytes:
        lost, self._lost = self._lost, 0
        return self._line(_record("pushrelay.log", LOST, lost))

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


def _record(name: str, message: str, *args: object) -> logging.LogRecord:
    """Return a record of the handler's own, which is written without a logger."""
    return logging.LogRecord(name, logging.WARNING, __file__, 0, message, args, None)
