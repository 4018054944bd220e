"""Numbers, durations and sizes as people read them."""

import re
import time

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
# Messages say what happened, then what to do. The advice begins with one of these words.
_ADVICE = re.compile(
    r"[:;] (?=(?:add|ask|check|choose|close|compare|correct|create|end|find|free|give|have|if there is a proxy|install"
    r"|let|list|load|look|lower|make|move|name|raise|remove|rename|replace|restart|run|send|serve|set|start|stop|try|use"
    r"|wait|write)\b)",
    re.IGNORECASE,
)


def number(value: float) -> str:
    """Return a whole number with its thousands separated: 1,284."""
    return f"{value:,.0f}"


def counted(value: int, singular: str, plural: str = "") -> str:
    """Return a number with its noun: 1 browser, 1,284 browsers."""
    return f"{number(value)} {singular if value == 1 else plural or singular + 's'}"


def percent(part: float, whole: float) -> int | None:
    """Return a part in percent: 100 only if it is the whole, 0 only if it is nothing. None of nothing."""
    if not whole:
        return None
    rounded = round(100 * part / whole)
    if 0 < part < whole:
        rounded = min(99, max(1, rounded))
    return rounded


def size(bytes_: float) -> str:
    """Return a number of bytes: 12 MiB."""
    unit = 0
    while bytes_ >= 1024 and unit < len(_UNITS) - 1:
        bytes_, unit = bytes_ / 1024, unit + 1
    return f"{bytes_:.1f} {_UNITS[unit]}" if 0 < bytes_ < 10 and unit else f"{bytes_:.0f} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    """Return a duration: 1.2 s, 42 s, 12 minutes, 3 hours, 2 days."""
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return counted(round(seconds / 60), "minute")
    if seconds < 36 * 3600:
        return counted(round(seconds / 3600), "hour")
    return counted(round(seconds / 86400), "day")


def clock_time(at: float) -> str:
    """Return the time of day with this machine's time zone, because a reader may be in another: 20:15 UTC."""
    return time.strftime("%H:%M %Z", time.localtime(at)).strip()


def split_advice(message: str) -> tuple[str, str]:
    """Split a message into what happened and what to do. The second part is empty if there is no advice to be found."""
    found = _ADVICE.search(message)
    if not found or not found.start():
        return message, ""
    advice = message[found.end() :]
    return message[: found.start()], advice[0].upper() + advice[1:]


def sentence(text: str) -> str:
    """Return half a sentence as a whole one."""
    return text and text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?", ":")) else ".")
