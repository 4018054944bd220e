"""Names that clients and programs choose: of destinations and of events."""

import re
from typing import Any

from pushrelay.errors import bad
from pushrelay.settings import Settings

# Pushes in a batch, and destinations of a push. Send more as one push to a topic, or as several batches.
MAX_PUSHES = 1000
USUAL_EVENT = "push"  # the event of a push that names none
MAX_EVENT_LENGTH = 100  # characters
MOST_EXACT = (1 << 53) - 1  # up to this number JavaScript does not round whole numbers (RFC 7493, 2.2)
# Socket.IO's own events. Its clients could not distinguish an event with one of these names from their own.
RESERVED_EVENTS = {"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def destinations_of(value: Any, settings: Settings, most: int = MAX_PUSHES) -> list[str]:
    """Return the destinations that a decoded JSON value names: one id, or a list of at most `most`.

    Ids become strings, in their order and without repetitions. Raises Refused (400).
    """
    if not isinstance(value, list):
        return [_destination(value, settings.max_id_length)]
    if not value:
        bad("missing_destination", "the list of destinations is empty: name at least one")
    if len(value) > most:
        bad("too_many_destinations", f"{len(value)} destinations are too many: send at most {most} at once")
    return list(dict.fromkeys(_destination(each, settings.max_id_length) for each in value))


def check_exact(value: Any) -> None:
    """Raise Refused (400) for an id, or a list of ids, with a number that JavaScript may have rounded."""
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, int | float) and abs(each) > MOST_EXACT:
            bad(
                "invalid_id",
                f"JavaScript rounds whole numbers beyond {MOST_EXACT}, so this may be another id: write it as text",
            )


def event_of(value: Any) -> str:
    """Return the name of an event that may be emitted to a page. Raises Refused (400)."""
    if not isinstance(value, str) or not value or len(value) > MAX_EVENT_LENGTH or not is_clean(value):
        bad("invalid_event", f"event must be a name of 1 to {MAX_EVENT_LENGTH} characters without control characters")
    if value in RESERVED_EVENTS or value.startswith("relay_"):
        bad("invalid_event", f"the event name {value} is reserved for Socket.IO and the relay: choose another")
    return value


def _destination(value: Any, longest: int) -> str:
    text = value if isinstance(value, str) else id_text(value)
    if not text:
        bad(
            "missing_destination", "the id (destination) is empty: pages register an id, and PHP pushes to the same one"
        )
    if len(text) > longest:
        bad("invalid_destination", f"a destination must have at most {longest} characters (setting max_id_length)")
    if not is_clean(text):
        bad("invalid_destination", "a destination must be Unicode text without control characters")
    return text


def id_text(value: Any) -> str:
    """Return a number as the text of an id. Raises Refused (400) if it is not a whole number."""
    # JavaScript has one kind of number. There, 42 and 42.0 are the same id, and so are 0 and -0, so they are here too.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        bad("invalid_destination", f"a destination must be a string or a whole number, not {kind_of(value)}")
    # Python itself refuses to write out integers of more than some 4,300 digits.
    if abs(value) >= 10**40:
        bad("invalid_destination", "this number is too long for a destination: use at most 40 digits")
    return str(value)


def is_clean(text: str) -> bool:
    """Return whether a text contains neither control characters nor halves of surrogate pairs."""
    # isprintable() is the fastest check, but it is false for characters that are allowed, such as a no-break space.
    return text.isprintable() or not (_CONTROL.search(text) or LONE_SURROGATE.search(text))


def kind_of(value: Any) -> str:
    """Return the kind of a decoded JSON value in words, such as "an object"."""
    names = {dict: "an object", list: "a list", bool: "true or false", type(None): "null", float: "a fraction"}
    return names.get(type(value), "a number" if isinstance(value, int) else "a string")
