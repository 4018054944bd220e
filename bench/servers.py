"""The servers under test: their requirements, start, observation through /proc, and stop. Linux only."""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from kinds import KINDS, Kind

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "relay-bench"
CFLAGS = ["-O2", "-Wall", "-Wextra", "-pthread"]
SOCKET_IO = "socket.io@4.8"
REDIS_PACKAGES = ["@socket.io/redis-adapter@8.3", "@socket.io/redis-emitter@5.1", "redis@5.12"]
START = 20.0  # seconds within which a server must listen
STOP = 10.0  # seconds within which a server must end after SIGTERM, before it is killed


class Failed(Exception):
    """A failure of a server, or of a requirement. The message is for the reader of the table."""


def prepare(kinds: list[str]) -> dict[str, str]:
    """Put everything that these servers and the load need into the cache, unless it is there and up to date.

    Return the servers that cannot be measured here, each with the reason. Raise Failed if the load generator cannot be
    compiled.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    load, sources = CACHE / "relayload", [HERE / "relayload.c", HERE / "polling.h"]
    if not load.exists() or load.stat().st_mtime < max(source.stat().st_mtime for source in sources):
        run_tool("cc", *CFLAGS, "-o", load, sources[0])
    missing = {}
    for name in kinds:
        try:
            prepare_server(KINDS[name])
        except Failed as error:
            missing[name] = str(error)
    return missing


def prepare_server(kind: Kind) -> None:
    for program in kind.needs:
        if not (shutil.which(program) or pathlib.Path(program).exists()):
            raise Failed(f"{program} is not on this machine (apt-get install {kind.package})")
    if "{cache}/seed.js" in kind.command:
        prepare_seed(*(REDIS_PACKAGES if kind.beside else ()))
    if "{cache}/venv" in kind.command:
        prepare_venv()


def version_of(kind: Kind) -> str:
    """Return the version of its package; empty if it has none."""
    where, _, name = kind.version.partition(":")
    if where == "deb":
        return (
            run_tool("dpkg-query", "-W", "-f", "${Version}", name)
            .rpartition(":")[2]
            .partition("+")[0]
            .partition("-")[0]
        )
    if where == "npm":
        return json.loads((CACHE / "node_modules" / name / "package.json").read_text())["version"]
    if where == "pip":
        code = f"import importlib.metadata as m; print(m.version({name!r}))"
        return run_tool(CACHE / "venv/bin/python", "-c", code).strip()
    return ""


def prepare_seed(*more: str) -> None:
    """Put seed.js, socket.io and `more` npm packages, as name@version, into the cache."""
    packages = [SOCKET_IO, *more]
    if not all((CACHE / "node_modules" / package.rpartition("@")[0]).exists() for package in packages):
        run_tool("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", CACHE, *packages)
    shutil.copy(HERE / "seed.js", CACHE)  # Node looks for modules beside the importing file


def prepare_venv() -> pathlib.Path:
    """Make a venv with bench/requirements.txt, and return its Python."""
    wanted = b"".join(file.read_bytes() for file in (HERE / "requirements.txt", ROOT / "requirements.txt"))
    stamp, digest = CACHE / "venv/requirements", hashlib.sha256(wanted).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        run_tool(sys.executable, "-m", "venv", CACHE / "venv")
        install = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", HERE / "requirements.txt"]
        run_tool(CACHE / "venv/bin/python", *install)
        stamp.write_text(digest)
    return CACHE / "venv/bin/python"


def run_tool(*command: object) -> str:
    """Return what the command prints. Raise Failed if it fails or is not there."""
    try:
        ran = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    except FileNotFoundError as missing:
        raise Failed(f"{command[0]} is not on this machine") from missing
    if ran.returncode:
        raise Failed(f"{shlex.join(map(str, command))} failed:\n{(ran.stdout + ran.stderr)[-2000:]}")
    return ran.stdout


def relay_command(broker: str = "sqlite:{dir}/relay.db") -> str:
    """Return `python relay.py` with the project's venv, if there is one, and a broker, by default in {dir}."""
    own = ROOT / ".venv/bin/python"
    python = str(own) if own.exists() else sys.executable
    told = subprocess.run([python, str(ROOT / "relay.py"), "--help"], capture_output=True, text=True)
    store = f" --broker {broker}" if "--broker" in told.stdout else ""
    return f"{shlex.quote(python)} {shlex.quote(str(ROOT / 'relay.py'))} --port {{port}}{store}"


def free_port() -> int:
    """Return a free port outside the system's own range: others could get one of those before the server has it."""
    while True:
        port = 10_000 + secrets.randbelow(5_000)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port


class Target(NamedTuple):
    """One or several nodes of a kind, for the load generator."""

    kind: Kind
    port: str  # their ports, separated by commas

    @property
    def push_port(self) -> str:
        return self.port


class Server:
    """A server on a free port, in a session of its own, so that its child processes are counted and stopped too."""

    def __init__(self, kind: Kind, command: str, threads: int):
        self.kind = kind
        self.command = command or kind.command
        self.threads_allowed = threads
        self.port = free_port()
        self.push_port = free_port() if kind.api == "grip" else self.port
        self.beside = Server(Kind(kind.beside.split()[0], "", kind.beside, ""), "", 0) if kind.beside else None
        self.dir = tempfile.mkdtemp(prefix="relay-bench-")
        self.process = None

    def __enter__(self) -> "Server":
        try:
            if self.beside:
                self.beside.__enter__()
            self._start()
            for port in {self.port, self.push_port}:
                self._wait_until_it_listens(port)
        except BaseException:
            self.stop()
            raise
        return self

    def _start(self) -> None:
        names = {"port": self.port, "dir": self.dir, "cache": CACHE, "bench": HERE, "threads": self.threads_allowed}
        names |= {"push_port": self.push_port, "beside": self.beside.port if self.beside else ""}
        argv = [part.format(**names) for part in shlex.split(self.command)]
        self._write_config(names)
        environ = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
        with open(os.path.join(self.dir, "log"), "wb") as log:
            options = {"cwd": self.dir, "stdout": log, "stderr": log, "env": environ, "start_new_session": True}
            try:
                self.process = subprocess.Popen(argv, **options)
            except OSError as error:
                raise Failed(f"cannot be started: {error}") from error

    def _write_config(self, names: dict[str, object]) -> None:
        if not self.kind.config:
            return
        text = (HERE / self.kind.config).read_text()
        for name, value in names.items():
            text = text.replace(f"@{name}@", str(value))
        pathlib.Path(self.dir, self.kind.config).write_text(text)

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wait_until_it_listens(self, port: int) -> None:
        deadline = time.monotonic() + START
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise Failed(f"did not start: {self.last_words()}") from error
            time.sleep(0.05)

    def last_words(self) -> str:
        """Return the last line of its log, or of that of the program beside it if that has ended."""
        if self.beside and self.process is not None and not self.beside.alive():
            return f"{self.beside.kind.name}: {self.beside.last_words()}"
        lines = pathlib.Path(self.dir, "log").read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it printed nothing"

    def alive(self) -> bool:
        return self.process.poll() is None and (not self.beside or self.beside.alive())

    def _sum(self, of_pid) -> float:
        """Return the sum of a figure over its processes: those of its session, and of the program beside it."""
        total = self.beside._sum(of_pid) if self.beside else 0
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if os.getsid(int(folder.name)) == self.process.pid:
                    total += of_pid(folder)
            except (ProcessLookupError, FileNotFoundError, TypeError):
                continue  # it has ended, or is a zombie, which has no memory
        return total

    def memory(self) -> float:
        """Return the resident memory in KiB."""
        return self._sum(lambda folder: status_number(folder, "VmRSS"))

    def threads(self) -> float:
        return self._sum(lambda folder: status_number(folder, "Threads"))

    def cpu(self) -> float:
        """Return the seconds of CPU used so far, in steps of a clock tick (10 ms)."""
        return self._sum(cpu_ticks) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Send SIGTERM, and then SIGKILL to it and its child processes."""
        if self.process:
            for sent in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(self.process.pid, sent)
                    self.process.wait(STOP)
        shutil.rmtree(self.dir, ignore_errors=True)
        if self.beside:
            self.beside.stop()


def status_number(folder: pathlib.Path, name: str) -> int:
    return int(re.search(rf"^{name}:\s+(\d+)", (folder / "status").read_text(), re.M)[1])


def cpu_ticks(folder: pathlib.Path) -> int:
    fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])
