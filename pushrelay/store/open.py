"""From the setting `broker` to a broker."""

from collections.abc import Callable
from typing import Any

from .broker import Broker
from .publication import Publication


def open_broker(url: str, deliver: Callable[[Publication, str | None], int], **options: Any) -> Broker:
    """The broker that a setting names, not started: no file is opened and no thread runs before start().

    `options` are those of Broker, and `durability` for SQLite: "process" or "power". Raises ValueError with what to
    write instead.
    """
    durability = options.pop("durability", "process")
    if durability not in ("process", "power"):
        raise ValueError(f"durability is process or power, not {durability!r}")
    kind, _, rest = url.partition(":")
    if url == "memory:":
        from .memory import MemoryBroker

        return MemoryBroker(deliver, **options)
    if kind == "sqlite" and rest and not rest.startswith("//"):
        from .sqlite import SQLiteBroker

        return SQLiteBroker(rest, deliver, durability=durability, **options)
    raise ValueError(
        f"broker is memory: or sqlite:FILE, such as sqlite:relay.db or sqlite:/var/lib/relay.db, not {url!r}"
    )
