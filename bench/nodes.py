"""Several nodes on one Redis: of the relay, or of socket.io with its Redis adapter or emitter. Linux only."""

import contextlib

import kinds
from kinds import Kind
from servers import REDIS_PACKAGES, Server, Target, prepare, prepare_seed, relay_command, run_tool

SEED = "node {cache}/seed.js {port} BROKER"
KINDS = {
    kind.name: kind
    for kind in [
        Kind("relay", "the relay", "", "/push"),  # its command is relay_command()
        Kind("adapter", "socket.io, Redis adapter", SEED, "/"),
        Kind("emitter", "socket.io, Redis emitter", SEED, "/"),
    ]
}
EMITTER = Kind("front", "socket.io's emitter", f"{SEED} emitter", "/")
REDIS = Kind("redis", "Redis", kinds.REDIS, "")
FSYNC = {  # when Redis writes its append-only file to the disk
    "everysec": "--appendonly yes --appendfsync everysec",
    "always": "--appendonly yes --appendfsync always",
    "none": "--appendonly no",
}


def prepare_nodes(kinds: list[str]) -> None:
    """Put what these nodes and the load need into the cache. Raise Failed if there is no redis-server."""
    prepare([])
    redis_version()
    if {"adapter", "emitter"} & set(kinds):
        prepare_seed(*REDIS_PACKAGES)


def redis_version() -> str:
    return run_tool("redis-server", "--version").split("v=")[1].split()[0]


class Cluster:
    """Nodes of one kind on a Redis of their own, or one relay on SQLite if `fsync` is empty.

    `relay` is another command for a relay, with {port} and BROKER in it, or empty.
    """

    def __init__(self, kind: Kind, count: int, fsync: str, relay: str = ""):
        self.kind = kind
        self.count = count
        self.redis = Server(REDIS, f"{REDIS.command} {FSYNC[fsync]}", 0) if fsync else None
        broker = f"redis://127.0.0.1:{self.redis.port}" if self.redis else "sqlite:{dir}/relay.db"
        command = (relay or relay_command("BROKER")) if kind.name == "relay" else kind.command
        self.nodes = [Server(kind, command.replace("BROKER", broker), 0) for _ in range(count)]
        emitters = count if kind.name == "emitter" else 0
        self.emitters = [Server(EMITTER, EMITTER.command.replace("BROKER", broker), 0) for _ in range(emitters)]
        self._running = contextlib.ExitStack()

    def __enter__(self) -> "Cluster":
        with contextlib.ExitStack() as started:
            for server in [self.redis] if self.redis else []:
                started.enter_context(server)
            for server in self.nodes + self.emitters:
                started.enter_context(server)
            self._running = started.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    # Targets for the load generator.

    def publishers(self) -> Target:
        """Return all servers that accept pushes."""
        return self._target(self.emitters or self.nodes)

    def publisher(self) -> Target:
        """Return the first server that accepts pushes."""
        return self._target((self.emitters or self.nodes)[:1])

    def all_nodes(self) -> Target:
        return self._target(self.nodes)

    def other_nodes(self) -> Target:
        """Return the nodes apart from the one that accepts the pushes to publisher(), or a single node itself."""
        return self._target(self.nodes[1:] or self.nodes)

    def _target(self, servers: list[Server]) -> Target:
        return Target(self.kind, ",".join(str(server.port) for server in servers))

    # Use of CPU and memory.

    def cpu(self) -> tuple[float, float]:
        """Return the seconds of CPU that all nodes, and Redis, have used so far."""
        return sum(server.cpu() for server in self.nodes + self.emitters), self.redis.cpu() if self.redis else 0.0

    def redis_memory(self) -> int:
        """Return the bytes that Redis uses for data."""
        told = run_tool("redis-cli", "-p", self.redis.port, "info", "memory")
        return int(told.split("used_memory:")[1].split()[0])

    def ended(self) -> str:
        """Return the last words of those that have ended, or an empty string."""
        servers = [*self.nodes, *self.emitters, *([self.redis] if self.redis else [])]
        return "; ".join(f"{each.kind.label} ended: {each.last_words()}" for each in servers if not each.alive())
