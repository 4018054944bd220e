"""Measure the relay, the old Node server and stock Flask-SocketIO: the same work, in turn, on this machine.

    python bench/compare.py                                   everything, three rounds (about 8 minutes)
    python bench/compare.py --plot bench/result.png --json bench/result.json
    python bench/compare.py --from bench/result.json --plot bench/result.png      draw stored figures

Needs Linux, cc, node and npm. Everything else is downloaded once, into ~/.cache/relay-bench.
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
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from servers import CACHE, HERE, KINDS, Failed, Server, Target, prepare, prepare_venv, relay_command


@dataclasses.dataclass(frozen=True)
class Figure:
    label: str
    unit: str
    less_is_better: bool = False


FIGURES = {
    "kept": Figure("pushes, connections kept", "/s"),
    "kept_text": Figure("the same, forms with spaces and %", "/s"),
    "kept_json": Figure("the same, JSON", "/s"),
    "new": Figure("pushes, a new connection each (PHP's cURL)", "/s"),
    "fanout": Figure("fan-out to many clients, deliveries", "/s"),
    "connects": Figure("clients connected and registered", "/s"),
    "memory": Figure("memory per idle client", "KiB", True),
    "threads": Figure("threads with these clients", "", True),
    "idle_cpu": Figure("CPU with these clients idle", "%", True),
    "reply_p50": Figure("reply to a push at {rate}/s, p50", "µs", True),
    "reply_p99": Figure("reply to a push at {rate}/s, p99", "µs", True),
    "delivery_p50": Figure("push to client at {rate}/s, p50", "µs", True),
    "delivery_p99": Figure("push to client at {rate}/s, p99", "µs", True),
    "unicast": Figure("pushes, each to one of the clients", "/s"),
    "leave_cpu": Figure("CPU per client that leaves", "ms", True),
}


@dataclasses.dataclass(frozen=True)
class Work:
    """The amount of work for every server."""

    # Pushes before the measurement: Node's compiler needs about 40,000, and a server runs for days.
    warm_up: int = 60_000
    slow_warm_up: int = 500  # for the stock servers, which compile nothing and need a minute for 60,000
    pushes: int = 6000
    fan_clients: int = 1000
    fan_pushes: int = 60
    rate: int = 400  # pushes per second at which replies and deliveries are timed
    paced: int = 2000  # pushes at that rate
    unicast: int = 10_000
    idle_seconds: float = 5.0

    def reduced(self) -> "Work":
        return Work(500, 500, self.pushes // 10, 100, 20, self.rate, self.paced // 5, self.unicast // 10, 1.0)


def number(pattern: str, text: str) -> float:
    """Return the number that the pattern's group finds in the output of relayload."""
    found = re.search(pattern, text)
    if not found:
        raise Failed(f"the load generator said {text.strip()[-200:]!r}")
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
) -> str:
    """Push with relayload and return its output. Raise if pushes failed, because no figure would be valid.

    `pad`: what each push has in addition, encoded as its kind requires, at most 127 KiB.
    """
    what = [count, threads, int(keep), prefix, destinations, rate]
    command = [CACHE / "relayload", "push", "127.0.0.1", server.port, server.kind.push_path, *what]
    try:
        environ = {**os.environ, "KIND": kind, "PAD": pad}
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


def must_have_arrived(expected: int, figures: str) -> str:
    arrived, dead = number(r"pushes (\d+)", figures), number(r"dead (\d+) others", figures)
    if arrived != expected or dead:
        raise Failed(f"{arrived:,.0f} of {expected:,} deliveries arrived, {dead:,.0f} clients were cut off")
    return figures


def measure_pushes(server: Server, work: Work, clients: int) -> Iterator[tuple[str, float]]:
    yield "kept", number(r"\((\d+)/s\)", push(server, work.pushes, 4, "nobody", 100))
    for kind in ("text", "json"):
        yield f"kept_{kind}", number(r"\((\d+)/s\)", push(server, work.pushes, 4, "nobody", 100, kind=kind))
    yield "new", number(r"\((\d+)/s\)", push(server, work.pushes, 4, "nobody", 100, keep=False))


def measure_fanout(server: Server, work: Work, clients: int) -> Iterator[tuple[str, float]]:
    deliveries = work.fan_pushes * work.fan_clients
    with listening(server, work.fan_clients, "room", deliveries, same_id=True) as room:
        time.sleep(0.5)  # `ready` is printed when the last `register` is sent
        push(server, work.fan_pushes, 1, "room", 0)
        figures = must_have_arrived(deliveries, room.last_figures())
    yield "fanout", number(r"pushes \d+ in [\d.]+s \((\d+)/s\)", figures)


def measure_clients(server: Server, work: Work, clients: int) -> Iterator[tuple[str, float]]:
    """Measure many clients: connecting, idle, receiving at a moderate and at the maximum rate, leaving."""
    memory = server.memory()
    with listening(server, clients, "u", work.unicast) as everybody:
        yield "connects", number(r"\((\d+)/s\)", everybody.ready)
        time.sleep(1)
        yield "memory", (server.memory() - memory) / clients
        yield "threads", server.threads()
        cpu = server.cpu()
        time.sleep(work.idle_seconds)
        yield "idle_cpu", (server.cpu() - cpu) / work.idle_seconds * 100

        replies = push(server, work.paced, 2, "u", clients, rate=work.rate)
        time.sleep(0.5)  # for deliveries in transit
        deliveries = must_have_arrived(work.paced, everybody.figures())
        for percentile in ("p50", "p99"):
            yield f"reply_{percentile}", number(rf"{percentile} (\d+)", replies)
            yield f"delivery_{percentile}", number(rf"{percentile} (\d+)", deliveries)

        flood = push(server, work.unicast, 4, "u", clients)
        cpu = server.cpu()
        must_have_arrived(work.unicast, everybody.last_figures())
        yield "unicast", number(r"\((\d+)/s\)", flood)
    yield "leave_cpu", (settled_cpu(server) - cpu) / clients * 1000


def settled_cpu(server: Server) -> float:
    """Return the seconds of CPU when the server is idle (below 5 % for a second), after at most 30 s."""
    cpu = server.cpu()
    for _ in range(30):
        time.sleep(1)
        if not server.alive():
            raise Failed("it ended when its clients left")
        before, cpu = cpu, server.cpu()
        if cpu - before < 0.05:
            break
    return cpu


# In this order, because memory that earlier clients left behind would be reused, and would not show as growth.
PARTS = {"push": measure_pushes, "many": measure_clients, "fanout": measure_fanout}


def measure(server: Server, work: Work, parts: list[str], clients: int) -> tuple[dict[str, float], list[str]]:
    """Return all figures of one server in one round, and the failures. A part that fails does not affect the others."""
    figures, failures = {}, []
    try:
        push(server, work.slow_warm_up if server.kind.thread_per_client else work.warm_up, 4, "warm", 10)
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
    return figures, failures


def run_rounds(options: argparse.Namespace, work: Work) -> dict:
    """Measure every server in turn, in several rounds, and return the content of --json."""
    clients = {
        name: min(options.clients, options.stock_clients) if KINDS[name].thread_per_client else options.clients
        for name in options.servers
    }
    rounds = {name: [] for name in options.servers}
    failures = {name: [] for name in options.servers}
    for turn in range(options.rounds):
        for name in options.servers:
            print(f"round {turn + 1} of {options.rounds}: {KINDS[name].label}", file=sys.stderr)
            # A thread for each client, and some for pushes.
            threads = max(clients[name], work.fan_clients) * 2
            try:
                with Server(KINDS[name], options.relay if name == "relay" else "", threads) as server:
                    figures, failed = measure(server, work, options.only, clients[name])
            except Failed as error:
                figures, failed = {}, [str(error)]
            rounds[name].append(figures)
            failures[name] += [f"round {turn + 1}: {line}" for line in failed]
    return {
        "machine": machine(),
        "work": {**dataclasses.asdict(work), "rounds": options.rounds, "reduced": options.quick},
        "clients": clients,
        "medians": {name: medians(rounds[name]) for name in options.servers},
        "failures": {name: lines for name, lines in failures.items() if lines},
        "rounds": rounds,
    }


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for figures in rounds for name in figures)  # a set would lose the order
    values = {name: [figures[name] for figures in rounds if name in figures] for name in names}
    return {name: round(statistics.median(found), 3) for name, found in values.items() if found}


def machine() -> dict:
    node = shutil.which("node")
    return {
        "cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "node": subprocess.run([node, "--version"], capture_output=True, text=True).stdout.strip("v\n") if node else "",
    }


def shown(value: float) -> str:
    """Return a number at its precision."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.{1 if value >= 1 else 2}f}".removesuffix(".0")


def table(result: dict) -> str:
    """Return Markdown: a row for each figure, a column for each server, with the ratio to Node in brackets."""
    names, medians = list(result["clients"]), result["medians"]
    heads = [f"{KINDS[name].label} ({result['clients'][name]:,} clients)" for name in names]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---:|' * len(names)}"]
    for figure, about in FIGURES.items():
        if not any(figure in medians[name] for name in names):
            continue
        label = about.label.format(**result["work"]) + (f", {about.unit}" if about.unit else "")
        cells = [cell(figure, name, medians) for name in names]
        lines.append(f"| {label}{' (less is better)' if about.less_is_better else ''} | {' | '.join(cells)} |")
    work = result["work"]
    lines.append(f"\nMedians of {work['rounds']}; in brackets the ratio to the old Node server. {setting(result)}")
    lines += [f"- {KINDS[name].label}: {line}" for name, told in result["failures"].items() for line in told]
    return "\n".join(lines)


def cell(figure: str, name: str, medians: dict) -> str:
    value, seed = medians[name].get(figure), medians.get("seed", {}).get(figure)
    if value is None:
        return "failed"
    return shown(value) if name == "seed" or not seed else f"{shown(value)} ({value / seed:.2f})"


def setting(result: dict) -> str:
    """Return a sentence about the machine and the work."""
    m, work = result["machine"], result["work"]
    reduced = " Reduced work: for trying the benchmark, not for comparing." if work["reduced"] else ""
    return (
        f"{m['cpus']} cores, shared with the load generator; {m['system']}, Python {m['python']}"
        f"{', Node ' + m['node'] if m['node'] else ''}; fan-out to {work['fan_clients']:,} clients.{reduced}"
    )


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
    add("--stock-clients", type=int, default=1000, help="at most, for servers that need a thread for each (1,000)")
    add("--rounds", type=int, default=3, help="how often all is measured; the medians are shown (3)")
    add("--servers", type=names_from(KINDS), default=list(KINDS), help=f"some of {','.join(KINDS)}")
    add("--only", type=names_from(PARTS), default=list(PARTS), help=f"some of {','.join(PARTS)}")
    add("--relay", metavar="COMMAND", help="start the relay by this command, with {port} and {dir} in it")
    add("--quick", action="store_true", help="a tenth of the work: to see that it runs; the figures mean little")
    add("--json", metavar="FILE", type=pathlib.Path, help="write all figures to this file")
    add("--plot", metavar="PNG", type=pathlib.Path, help="draw the medians, and again for dark pages (PNG-dark)")
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
    prepare(options.servers)
    options.relay = options.relay or relay_command()
    return run_rounds(options, work)


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
        print(table(result))
        if options.plot:
            draw(result, options.plot)
    except Failed as error:
        sys.exit(f"compare: {error}")


if __name__ == "__main__":
    main()
