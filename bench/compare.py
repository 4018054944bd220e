"""Measure the relay and the servers that people use instead of it: the same work, in turn, on this machine.

    python bench/compare.py                                   everything, three rounds (about 15 minutes)
    python bench/compare.py --servers relay,nchan --json bench/result.json         some; the file keeps the others
    python bench/compare.py --from bench/result.json --plot bench/result.png       draw stored figures

Needs Linux, cc, node and npm, and Debian packages for some of the servers. Everything else is downloaded once, into
~/.cache/relay-bench.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from kinds import KINDS, Kind
from servers import (
    CACHE,
    HERE,
    Failed,
    Server,
    Target,
    prepare,
    prepare_venv,
    relay_command,
    version_of,
)
from tables import medians, merged, report, stored_result, write_tables


@dataclasses.dataclass(frozen=True)
class Work:
    """The amount of work for every server."""

    # Pushes of each kind before the measurement, and as many to clients: 80,000 in all. Node's compiler needs about
    # 40,000, and a server runs for days.
    warm_up: int = 20_000
    longest_warm_up: int = 2  # seconds after which each of these ends, even if there were fewer pushes
    pushes: int = 10_000
    unicast: int = 10_000
    longest: int = 1  # seconds after which a measurement of pushes ends, even if there were fewer
    fan_clients: int = 1000
    fan_pushes: int = 60  # a quarter for slow servers
    rate: int = 400  # pushes per second at which replies and deliveries are timed
    paced: int = 1600  # pushes at that rate
    idle_seconds: float = 3.0
    pause: float = 1.0  # seconds for what the load generator cannot see, such as the end of registrations

    def reduced(self) -> "Work":
        return Work(200, 1, self.pushes // 10, self.unicast // 10, 1, 100, 20, self.rate, self.paced // 8, 0.2, 0.1)


KIND_FIGURES = {"plain": "kept", "text": "kept_text", "json": "kept_json"}  # kinds of body, as relayload calls them


def number(pattern: str, text: str) -> float:
    """Return the number that the pattern's group finds in the output of relayload."""
    found = re.search(pattern, text)
    if not found:
        raise Failed(f"the load generator printed {text.strip()[-200:]!r}")
    return float(found[1])


def push(
    server: Server | Target,
    count: int,
    threads: int,
    prefix: str,
    destinations: int,
    keep=True,
    rate=0,
    kind="plain",
    pad="",
    seconds=0,
) -> str:
    """Push with relayload and return its output. Raise if pushes failed, because no figure would be valid.

    `pad` is added to the data of each push: at most 127 KiB, encoded as the kind requires. `seconds`: stop after this
    time, even if there were fewer than `count` pushes.
    """
    what = [count, threads, int(keep), prefix, destinations, rate]
    command = [CACHE / "relayload", "push", "127.0.0.1", server.push_port, server.kind.push_path, *what]
    environ = {**os.environ, "API": server.kind.api, "KIND": kind, "PAD": pad}
    if seconds:
        environ["LIMIT"] = str(seconds)
    try:
        ran = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, env=environ)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{count:,} pushes took more than 5 minutes") from error
    if failed := number(r"err (\d+)", ran.stdout + ran.stderr):
        raise Failed(f"{failed:,.0f} of {count:,} pushes failed")
    return ran.stdout


class Listener:
    """Clients of relayload, connected and registered."""

    def __init__(self, process: subprocess.Popen, ready: str):
        self.process = process
        self.ready = ready

    def figures(self) -> str:
        """Return the figures since the last call."""
        self.process.send_signal(signal.SIGUSR1)
        return self.process.stdout.readline()

    def await_arrival(self, expected: float) -> None:
        """Wait until as many pushes have arrived since the last figures(). Raise if they have not after 10 seconds."""
        arrived = 0.0
        for _ in range(100):
            figures = self.figures()
            arrived += number(r"pushes (\d+)", figures)
            if arrived >= expected:
                break
            time.sleep(0.1)
        must_have_arrived(expected, figures, arrived)

    def last_figures(self) -> str:
        """Return the figures when the expected pushes have arrived, or the time has passed. The clients leave."""
        return self.process.communicate()[0]


@contextlib.contextmanager
def listening(
    server: Server | Target, clients: int, prefix: str, expect: int, same_id=False, seconds=90, polling=False
) -> Iterator[Listener]:
    what = [clients, prefix, int(same_id), seconds]
    command = [CACHE / "relayload", "listen", "127.0.0.1", server.port, *what]
    environ = {**os.environ, "EXPECT": str(expect), "POLL": str(int(polling))}
    if server.kind.listen_path:
        environ["RAW"] = f"{server.kind.listen_path}{prefix}{'' if same_id else '%d'}"
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True, env=environ)
    try:
        ready = process.stdout.readline()
        if number(r"ready (\d+)", ready) != clients:
            raise Failed(f"only {number(r'ready ([0-9]+)', ready):,.0f} of {clients:,} clients could connect")
        yield Listener(process, ready)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def must_have_arrived(expected: float, figures: str, arrived: float | None = None) -> str:
    """Return the figures. Raise if there are fewer deliveries than expected, or a client was cut off.

    `arrived`: the deliveries, if these figures are not of all of them.
    """
    arrived = number(r"pushes (\d+)", figures) if arrived is None else arrived
    dead = number(r"dead (\d+) others", figures)
    if arrived != expected or dead:
        raise Failed(f"{arrived:,.0f} of {expected:,} deliveries arrived, {dead:,.0f} clients were cut off")
    return figures


def measure_pushes(server: Server, work: Work, clients: int) -> Iterator[tuple[str, float]]:
    cpu, count = server.cpu(), 0.0
    for kind, figure in KIND_FIGURES.items():
        out = push(server, work.pushes, 4, "nobody", 100, kind=kind, seconds=work.longest)
        count += number(r"posted (\d+)", out)
        yield figure, number(r"\((\d+)/s\)", out)
    yield "push_cpu", (server.cpu() - cpu) / count * 1e6
    out = push(server, work.pushes, 4, "nobody", 100, keep=False, seconds=work.longest)
    yield "new", number(r"\((\d+)/s\)", out)


def measure_fanout(server: Server, work: Work, clients: int) -> Iterator[tuple[str, float]]:
    pushes = work.fan_pushes // 4 if server.kind.slow else work.fan_pushes
    deliveries = pushes * work.fan_clients
    with listening(server, work.fan_clients, "room", deliveries, same_id=True) as room:
        time.sleep(work.pause / 2)  # `ready` is printed when the last `register` is sent
        push(server, pushes, 1, "room", 0)
        figures = must_have_arrived(deliveries, room.last_figures())
    yield "fanout", number(r"pushes \d+ in [\d.]+s \((\d+)/s\)", figures)


def measure_clients(server: Server, work: Work, clients: int) -> Iterator[tuple[str, float]]:
    """Measure many clients: connecting, idle, receiving at a moderate and at the maximum rate, leaving."""
    memory = server.memory()
    with listening(server, clients, "u", 0) as everybody:
        yield "connects", number(r"\((\d+)/s\)", everybody.ready)
        time.sleep(work.pause)
        yield "memory", (server.memory() - memory) / clients
        yield "threads", server.threads()
        cpu = server.cpu()
        time.sleep(work.idle_seconds)
        yield "idle_cpu", (server.cpu() - cpu) / work.idle_seconds * 100

        replies = push(server, work.paced, 2, "u", clients, rate=work.rate)
        time.sleep(work.pause / 2)  # for deliveries in transit
        deliveries = must_have_arrived(work.paced, everybody.figures())
        for percentile in ("p50", "p99"):
            yield f"reply_{percentile}", number(rf"{percentile} (\d+)", replies)
            yield f"delivery_{percentile}", number(rf"{percentile} (\d+)", deliveries)

        flood = push(server, work.unicast, 4, "u", clients, seconds=work.longest)
        everybody.await_arrival(number(r"posted (\d+)", flood))
        yield "unicast", number(r"\((\d+)/s\)", flood)
        cpu = server.cpu()
    yield "leave_cpu", (settled_cpu(server, work.pause) - cpu) / clients * 1000


def settled_cpu(server: Server, pause: float) -> float:
    """Return the seconds of CPU when the server is idle (below 5 % for `pause` seconds), after at most 30 pauses."""
    cpu = server.cpu()
    for _ in range(30):
        time.sleep(pause)
        if not server.alive():
            raise Failed("it ended when its clients left")
        before, cpu = cpu, server.cpu()
        if cpu - before < 0.05 * pause:
            break
    return cpu


# In this order, because memory that earlier clients left behind would be reused, and would not show as growth.
PARTS = {"push": measure_pushes, "many": measure_clients, "fanout": measure_fanout}


def warm_up(server: Server, work: Work) -> None:
    """Push all kinds of body, to nobody and then to ten clients, so that all code has been used."""
    for kind in KIND_FIGURES:
        push(server, work.warm_up, 4, "nobody", 100, kind=kind, seconds=work.longest_warm_up)
    with listening(server, 10, "warm", 0):
        push(server, work.warm_up, 4, "warm", 10, seconds=work.longest_warm_up)


def measure(server: Server, work: Work, parts: list[str], clients: int) -> tuple[dict[str, float], list[str]]:
    """Return all figures of one server in one round, and the failures. A part that fails does not affect the others."""
    figures, failures = {}, []
    try:
        warm_up(server, work)
    except Failed as error:
        return {}, [f"warming up: {error}"]
    for part in (part for part in PARTS if part in parts):
        try:
            for name, value in PARTS[part](server, work, clients):
                figures[name] = value
        except Failed as error:
            failures.append(f"{part}: {error}" if server.alive() else f"{part}: it ended: {server.last_words()}")
            if not server.alive():
                break
            with contextlib.suppress(Failed):
                settled_cpu(server, work.pause)  # its clients leave: the next part must not include that
    return figures, failures


def run_rounds(options: argparse.Namespace, work: Work, missing: dict[str, str]) -> dict:
    """Measure every server in turn, in several rounds, and return what tables.py calls a run."""
    servers = {name: entry_of(KINDS[name], options, missing.get(name)) for name in options.servers}
    for turn in range(options.rounds):
        for name in (name for name in options.servers if name not in missing):
            print(f"round {turn + 1} of {options.rounds}: {KINDS[name].label}", file=sys.stderr)
            figures, failed = measure_once(KINDS[name], options, work, servers[name]["clients"])
            servers[name]["rounds"].append(figures)
            servers[name]["failures"] += [f"round {turn + 1}: {line}" for line in failed]
    for entry in servers.values():
        entry["medians"] = medians(entry["rounds"])
    settings = {"reduced": options.quick, "parts": options.only}
    return {"machine": machine(), "work": {**dataclasses.asdict(work), **settings}, "servers": servers}


def entry_of(kind: Kind, options: argparse.Namespace, missing: str | None) -> dict:
    return {
        "clients": min(options.clients, options.slow_clients) if kind.slow else options.clients,
        "version": "" if missing else version_of(kind),
        "rounds": [],
        "failures": [missing] if missing else [],
    }


def measure_once(kind: Kind, options: argparse.Namespace, work: Work, clients: int) -> tuple[dict, list[str]]:
    threads = max(clients, work.fan_clients) * 2  # one for each client, and some for pushes
    try:
        with Server(kind, command_of(kind, options), threads) as server:
            return measure(server, work, options.only, clients)
    except Failed as error:
        return {}, [str(error)]


def command_of(kind: Kind, options: argparse.Namespace) -> str:
    """Return the command of a relay; empty for other servers."""
    if kind.name == "redis":
        return relay_command("redis://127.0.0.1:{beside}")
    return options.relay if kind.name == "relay" else ""


def machine() -> dict:
    node = shutil.which("node")
    return {
        "cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "node": subprocess.run([node, "--version"], capture_output=True, text=True).stdout.strip("v\n") if node else "",
    }


def names_from(known: dict):
    def split(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"not {', '.join(unknown)}, but any of {','.join(known)}")
        return names

    return split


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--clients", type=int, default=10_000, help="clients connected at a time (10,000)")
    add(
        "--slow-clients",
        type=int,
        default=1000,
        help="maximum for the slow servers, which are the others in Python (1,000)",
    )
    add("--rounds", type=int, default=3, help="number of rounds; the medians are shown (3)")
    add("--servers", type=names_from(KINDS), default=list(KINDS), help=f"some of {','.join(KINDS)}")
    add("--only", type=names_from(PARTS), default=list(PARTS), help=f"some of {','.join(PARTS)}")
    add("--relay", metavar="COMMAND", help="start the relay by this command, with {port} and {dir} in it")
    add("--quick", action="store_true", help="a tenth of the work or less, to see that it runs")
    add("--json", metavar="FILE", type=pathlib.Path, help="write all figures to this file, beside other servers'")
    add("--write", action="store_true", help="write the tables into README.md and bench/README.md")
    add("--plot", metavar="PNG", type=pathlib.Path, help="draw the medians; also as -dark, -phone and -phone-dark")
    add("--from", metavar="FILE", type=pathlib.Path, dest="stored", help="show stored figures; measure nothing")
    return parser.parse_args()


def result_of(options: argparse.Namespace) -> dict:
    if options.stored:
        return json.loads(options.stored.read_text())
    work = Work().reduced() if options.quick else Work()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # servers and clients inherit it
    if hard != resource.RLIM_INFINITY and hard < options.clients + 200:
        raise Failed(f"a process may open {hard:,} files here, too few for {options.clients:,} clients (--clients)")
    missing = prepare(options.servers)
    options.relay = options.relay or relay_command()
    return merged(stored_result(options.json), run_rounds(options, work, missing))


def draw(result: dict, target: pathlib.Path) -> None:
    """Draw the picture in the cache's venv, which has matplotlib."""
    subprocess.run([prepare_venv(), HERE / "plot.py", target], input=json.dumps(result), text=True, check=True)


def main() -> None:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers are stopped on the way out
    try:
        result = result_of(options)
        if options.json:
            options.json.write_text(json.dumps(result, indent=1) + "\n")
        print(report(result))
        if options.write:
            write_tables(result)
        if options.plot:
            draw(result, options.plot)
    except Failed as error:
        sys.exit(f"compare: {error}")


if __name__ == "__main__":
    main()
