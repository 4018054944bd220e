"""The facts that a Redis reports about itself: its version, its role, and how it keeps data."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import hiredis

from .wire import Wire

# Parameters for CONFIG GET. A Redis of a hosting company often forbids the command.
_ASKED = (
    "appendfsync",
    "no-appendfsync-on-rewrite",
    "timeout",
    "client-output-buffer-limit",
    "min-replicas-to-write",
)


@dataclasses.dataclass(frozen=True)
class Facts:
    """A Redis as it described itself when the connection was made."""

    run_id: str  # a restart and a failover to a replica change it
    version: tuple[int, ...]  # of Redis, or the one that a Valkey is compatible with
    name: str  # for people: "Redis 7.0.15", "Valkey 8.1.8"
    is_valkey: bool
    mode: str  # "standalone", "cluster" or "sentinel"
    role: str  # "master" or "slave"
    replicas: int  # that are connected
    policy: str  # maxmemory-policy
    maxmemory: int  # bytes; 0: no limit
    appends: bool  # appendonly yes
    loading: bool  # it still reads its files
    # From CONFIG GET; None if this user may not use it.
    appendfsync: str | None = None  # "always", "everysec" or "no"
    skips_syncs: bool = False  # no-appendfsync-on-rewrite yes: no sync while the file is rewritten
    timeout: int | None = None  # seconds after which Redis closes idle connections; 0: never
    pubsub_limit: tuple[int, int, int] | None = None  # client-output-buffer-limit pubsub: bytes, bytes, seconds
    min_replicas: int | None = None  # min-replicas-to-write

    @property
    def syncs(self) -> bool | None:
        """Whether each write is on the disk before its reply; None if that cannot be known."""
        if not self.appends:
            return False
        return None if self.appendfsync is None else self.appendfsync == "always" and not self.skips_syncs


def read_facts(wire: Wire, deadline: float) -> Facts:
    """Ask a Redis about itself. Raises hiredis.ReplyError if INFO is refused, and what Wire.ask_all raises."""
    info, *config = wire.ask_all(deadline, [("INFO",), *(("CONFIG", "GET", name) for name in _ASKED)])
    if isinstance(info, hiredis.ReplyError):
        raise info
    return facts_of(_fields(info), _config(config))


def facts_of(info: Mapping[str, str], config: Mapping[str, str]) -> Facts:
    """Return the facts in the fields of INFO and the answers of CONFIG GET."""
    is_valkey = "valkey_version" in info
    version = info.get("redis_version", "0")
    called = f"Valkey {info['valkey_version']}" if is_valkey else f"Redis {version}"
    return Facts(
        run_id=info.get("run_id", ""),
        version=tuple(map(int, re.findall(r"\d+", version)[:3])),
        name=called,
        is_valkey=is_valkey,
        mode=info.get("redis_mode", "standalone"),
        role=info.get("role", "master"),
        replicas=int(info.get("connected_slaves", "0")),
        policy=info.get("maxmemory_policy", "noeviction"),
        maxmemory=int(info.get("maxmemory", "0")),
        appends=info.get("aof_enabled", "0") == "1",
        loading=info.get("loading", "0") != "0",
        appendfsync=config.get("appendfsync"),
        skips_syncs=config.get("no-appendfsync-on-rewrite") == "yes",
        timeout=_number(config.get("timeout")),
        pubsub_limit=_pubsub(config.get("client-output-buffer-limit", "")),
        min_replicas=_number(config.get("min-replicas-to-write")),
    )


def _fields(info: bytes) -> dict[str, str]:
    lines = info.decode("utf-8", "replace").splitlines()
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}


def _config(answers: list[Any]) -> dict[str, str]:
    """Return the values in answers to CONFIG GET: maps in RESP3, lists in RESP2; errors are left out."""
    found: dict[str, str] = {}
    for answer in answers:
        if isinstance(answer, list):
            answer = dict(zip(answer[::2], answer[1::2], strict=False))
        if isinstance(answer, dict):
            found.update({name.decode(): value.decode("utf-8", "replace") for name, value in answer.items()})
    return found


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _pubsub(text: str) -> tuple[int, int, int] | None:
    found = re.search(r"pubsub (\d+) (\d+) (\d+)", text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None
