"""Measure several relays on one Redis, beside socket.io with its Redis adapter and emitter; and Redis beside SQLite.

    python bench/cluster.py                          everything, three rounds (about 15 minutes)
    python bench/cluster.py --only pairs --rounds 7  one relay on Redis and one on SQLite, in turn
    python bench/cluster.py --from result.json       show stored figures; measure nothing

Needs what compare.py needs, redis-server, redis-cli, and the relay's packages for Redis.
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import re
import resource
import signal
import statistics
import sys
import time
from collections.abc import Iterator

from compare import listening, machine, must_have_arrived, names_from, number, push
from nodes import FSYNC, KINDS, Cluster, prepare_nodes, redis_version
from servers import Failed
from tables import Figure, medians, shown

FIGURES = {
    "pushes": Figure("pushes to all nodes, without clients", "/s"),
    "pushes_nodes": Figure("their CPU in all nodes, per push", "µs", True),
    "pushes_redis": Figure("their CPU in Redis, per push", "µs", True),
    "register_nodes": Figure("CPU in all nodes per client that connects and registers", "µs", True),
    "register_redis": Figure("its CPU in Redis", "µs", True),
    "unicast": Figure("pushes to one node, each to a client of another", "/s"),
    "unicast_nodes": Figure("their CPU in all nodes, per push", "µs", True),
    "unicast_redis": Figure("their CPU in Redis, per push", "µs", True),
    "fanout": Figure("fan-out to clients of all nodes, deliveries", "/s"),
    "fanout_nodes": Figure("its CPU in all nodes, per delivery", "µs", True),
    "delivery_p50": Figure("push to a client of another node at {rate}/s, p50", "µs", True),
    "delivery_p99": Figure("push to a client of another node at {rate}/s, p99", "µs", True),
    "destination_memory": Figure("Redis's memory for a destination with one publication", "bytes", True),
    "publication_memory": Figure("Redis's memory for a further publication", "bytes", True),
    "client_memory": Figure("Redis's memory for a client with a destination of its own", "bytes", True),
}
# The lines in which Redis is compared with SQLite: connections, whether they are kept, and what the ratio must be.
PAIRS = {
    "kept_1": (1, True, 0.5),
    "kept_4": (4, True, 0.45),
    "kept_16": (16, True, 0.65),
    "kept_64": (64, True, 0.85),
    "new_4": (4, False, 0.6),
}
FARTHER = 2.5  # times the delivery within one node, at most, which a delivery to a client of another node may take
PER_NODE = 16  # connections over which each node gets its pushes


@dataclasses.dataclass(frozen=True)
class Work:
    """The amount of work for every cluster."""

    warm_up: int = 60_000  # pushes for each node, as in compare.py
    pushes: int = 20_000  # for each node
    clients: int = 5000
    unicast: int = 20_000
    fan_clients: int = 1000
    fan_pushes: int = 60
    rate: int = 400  # pushes per second at which deliveries are timed
    paced: int = 2000  # pushes at that rate
    destinations: int = 10_000  # in whose memory in Redis is measured
    new: int = 6000  # pushes over new connections
    pause: float = 1.0  # seconds for what the load generator cannot see, such as the end of registrations

    def reduced(self) -> "Work":
        return Work(200, 500, 50, 500, 50, 10, self.rate, self.paced // 20, 500, 200, 0.1)


# ---- clusters of each kind and size ----


def warm_up(cluster: Cluster, work: Work) -> None:
    """Push to clients of every node, so that the code that delivers is warmed up too."""
    destinations = 10 * cluster.count
    with listening(cluster.all_nodes(), destinations, "warm", 0):
        push(cluster.publishers(), work.warm_up * cluster.count, PER_NODE * cluster.count, "warm", destinations)


@contextlib.contextmanager
def cpu_of(cluster: Cluster, work: Work, count: int) -> Iterator[list[float]]:
    """Measure the CPU in µs for each of `count` pushes: a list of the nodes' and Redis's, when the block has ended."""
    before, used = cluster.cpu(), []
    yield used
    time.sleep(work.pause / 5)  # for what other nodes have still to do
    used += [(after - earlier) / count * 1e6 for earlier, after in zip(before, cluster.cpu(), strict=True)]


def measure_pushes(cluster: Cluster, work: Work) -> Iterator[tuple[str, float]]:
    count = work.pushes * cluster.count
    with cpu_of(cluster, work, count) as cpu:
        out = push(cluster.publishers(), count, PER_NODE * cluster.count, "nobody", 100)
    yield "pushes", number(r"\((\d+)/s\)", out)
    yield "pushes_nodes", cpu[0]
    yield "pushes_redis", cpu[1]


def measure_clients(cluster: Cluster, work: Work) -> Iterator[tuple[str, float]]:
    before = cluster.cpu()
    with listening(cluster.other_nodes(), work.clients, "u", work.unicast) as clients:
        time.sleep(work.pause)  # `ready` is printed when the last `register` is sent
        yield "register_nodes", (cluster.cpu()[0] - before[0]) / work.clients * 1e6
        yield "register_redis", (cluster.cpu()[1] - before[1]) / work.clients * 1e6
        yield from delivery_times(cluster, work, clients)
        with cpu_of(cluster, work, work.unicast) as cpu:
            out = push(cluster.publisher(), work.unicast, PER_NODE, "u", work.clients)
            must_have_arrived(work.unicast, clients.last_figures())
    yield "unicast", number(r"\((\d+)/s\)", out)
    yield "unicast_nodes", cpu[0]
    yield "unicast_redis", cpu[1]


def delivery_times(cluster: Cluster, work: Work, clients) -> Iterator[tuple[str, float]]:
    push(cluster.publisher(), work.paced, 2, "u", work.clients, rate=work.rate)
    time.sleep(work.pause / 2)  # for deliveries in transit
    deliveries = must_have_arrived(work.paced, clients.figures())
    for percentile in ("p50", "p99"):
        yield f"delivery_{percentile}", number(rf"{percentile} (\d+)", deliveries)


def measure_fanout(cluster: Cluster, work: Work) -> Iterator[tuple[str, float]]:
    deliveries = work.fan_pushes * work.fan_clients
    with listening(cluster.all_nodes(), work.fan_clients, "room", deliveries, same_id=True) as room:
        time.sleep(work.pause)
        with cpu_of(cluster, work, deliveries) as cpu:
            push(cluster.publisher(), work.fan_pushes, 1, "room", 0)
            figures = must_have_arrived(deliveries, room.last_figures())
    yield "fanout", number(r"pushes \d+ in [\d.]+s \((\d+)/s\)", figures)
    yield "fanout_nodes", cpu[0]


def measure_memory(cluster: Cluster, work: Work) -> Iterator[tuple[str, float]]:
    """Measure what Redis keeps. socket.io keeps nothing there."""
    if cluster.kind.name != "relay":
        return
    empty = cluster.redis_memory()
    push(cluster.publishers(), work.destinations, PER_NODE, "memory", work.destinations)
    one_each = cluster.redis_memory()
    yield "destination_memory", (one_each - empty) / work.destinations
    push(cluster.publishers(), 9 * work.destinations, PER_NODE, "memory", work.destinations)
    ten_each = cluster.redis_memory()
    yield "publication_memory", (ten_each - one_each) / work.destinations / 9
    with listening(cluster.all_nodes(), work.clients, "holder", 0):
        time.sleep(2 * work.pause)  # nodes write a moment later which destinations their clients have registered
        yield "client_memory", (cluster.redis_memory() - ten_each) / work.clients


# In this order, because Redis frees the memory of clients only some seconds after they have left.
PARTS = {"memory": measure_memory, "push": measure_pushes, "clients": measure_clients, "fanout": measure_fanout}


def measure(cluster: Cluster, work: Work, parts: list[str]) -> tuple[dict[str, float], list[str]]:
    """Return all figures of one cluster in one round, and the failures. After a failure the other parts go on."""
    figures, failures = {}, []
    try:
        warm_up(cluster, work)
    except Failed as error:
        return {}, [f"warming up: {cluster.ended() or error}"]
    for part in (part for part in PARTS if part in parts):
        try:
            figures.update(PARTS[part](cluster, work))
        except Failed as error:
            failures.append(f"{part}: {cluster.ended() or error}")
    return figures, failures


def run_clusters(options: argparse.Namespace, work: Work) -> dict:
    """Measure every cluster in turn, in several rounds."""
    names = [f"{kind} {count}" for kind in options.kinds for count in options.nodes]
    rounds, failures = {name: [] for name in names}, {name: [] for name in names}
    for turn in range(options.rounds):
        for name in names:
            print(f"round {turn + 1} of {options.rounds}: {head(name)}", file=sys.stderr)
            kind, count = name.split()
            try:
                with Cluster(KINDS[kind], int(count), options.fsync, options.relay) as cluster:
                    figures, failed = measure(cluster, work, options.only)
            except Failed as error:
                figures, failed = {}, [str(error)]
            rounds[name].append(figures)
            failures[name] += [f"round {turn + 1}: {line}" for line in failed]
    return {
        "medians": {name: medians(rounds[name]) for name in names},
        "failures": {name: lines for name, lines in failures.items() if lines},
        "rounds": rounds,
    }


# ---- the relay on Redis beside the relay on SQLite ----


def run_pairs(options: argparse.Namespace, work: Work) -> dict:
    """Measure one relay on SQLite, one on Redis, and two on another Redis, all running, in turn in every round.

    The machine's speed changes from minute to minute. So a ratio is that of two measurements next to each other.
    """
    sizes = {"sqlite": (1, ""), "redis": (1, options.fsync), "two": (2, options.fsync)}
    rounds, failures = [], []
    try:
        for each in measure_pairs(options, work, sizes):
            rounds.append(each)
    except Failed as error:
        failures.append(str(error))
    found = {name: medians([each[name] for each in rounds]) for name in sizes}
    return {"medians": found, "failures": failures, "rounds": rounds}


def measure_pairs(options: argparse.Namespace, work: Work, sizes: dict[str, tuple[int, str]]) -> Iterator[dict]:
    with contextlib.ExitStack() as running:
        clusters = {
            name: running.enter_context(Cluster(KINDS["relay"], count, fsync, options.relay))
            for name, (count, fsync) in sizes.items()
        }
        for cluster in clusters.values():
            warm_up(cluster, work)
        for turn in range(options.rounds):
            print(f"round {turn + 1} of {options.rounds}: Redis beside SQLite", file=sys.stderr)
            order = list(clusters) if turn % 2 else list(clusters)[::-1]
            yield one_round({name: clusters[name] for name in order}, work)


def one_round(clusters: dict[str, Cluster], work: Work) -> dict[str, dict[str, float]]:
    figures = {name: {} for name in clusters}
    for line, (connections, keep, _) in PAIRS.items():
        for name in (name for name in clusters if name != "two"):
            count = work.pushes if keep else work.new
            with cpu_of(clusters[name], work, count) as cpu:
                out = push(clusters[name].publisher(), count, connections, "nobody", 100, keep=keep)
            rate = number(r"\((\d+)/s\)", out)
            figures[name] |= {line: rate, f"{line}_relay": cpu[0], f"{line}_redis": cpu[1]}
    for name, cluster in clusters.items():
        with listening(cluster.other_nodes(), work.clients, "u", 0) as clients:
            time.sleep(work.pause)
            figures[name] |= dict(delivery_times(cluster, work, clients))
    return figures


def ratio(rounds: list[dict], above: str, below: str, figure: str) -> float:
    """Return the median of the rounds' ratios."""
    return statistics.median(each[above][figure] / each[below][figure] for each in rounds)


# ---- the tables ----


def head(name: str) -> str:
    kind, count = name.split()
    return f"{KINDS[kind].label}, {count} node{'s' if count != '1' else ''}"


def cluster_table(result: dict) -> str:
    """Return Markdown: a row for each figure, a column for each cluster."""
    clusters = result["clusters"]
    names, medians = list(clusters["rounds"]), clusters["medians"]
    lines = [f"| | {' | '.join(map(head, names))} |", f"|---|{'---:|' * len(names)}"]
    for figure, about in FIGURES.items():
        if not any(figure in medians[name] for name in names):
            continue
        cells = [shown(medians[name][figure]) if figure in medians[name] else "" for name in names]
        lines.append(f"| {about.label.format(**result['work'])}, {about.unit} | {' | '.join(cells)} |")
    failures = [f"- {head(name)}: {line}" for name, told in clusters["failures"].items() for line in told]
    return "\n".join(lines + ([""] + failures if failures else []))


def pair_table(result: dict) -> str:
    """Return Markdown: a row for each number of connections, and for the time of a delivery."""
    rounds, medians = result["pairs"]["rounds"], result["pairs"]["medians"]
    failures = [f"- Redis beside SQLite: {line}" for line in result["pairs"]["failures"]]
    if not rounds:
        return "\n".join(failures)
    lines = [
        "| | SQLite | Redis | ratio | goal | CPU of the relay, SQLite / Redis, µs | CPU of Redis, µs |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for line, (connections, keep, goal) in PAIRS.items():
        sqlite, redis = medians["sqlite"], medians["redis"]
        label = f"pushes, {connections} {'kept' if keep else 'new'} connection{'s' if connections > 1 else ''}, /s"
        cpu = f"{shown(sqlite[f'{line}_relay'])} / {shown(redis[f'{line}_relay'])} | {shown(redis[f'{line}_redis'])}"
        found = ratio(rounds, "redis", "sqlite", line)
        lines.append(f"| {label} | {shown(sqlite[line])} | {shown(redis[line])} | {found:.2f} | ≥ {goal} | {cpu} |")
    for name, where, goal in (("redis", "the same node", ""), ("two", "another node", f"≤ {FARTHER}")):
        for p in ("delivery_p50", "delivery_p99"):
            times = f"{shown(medians['sqlite'][p])} | {shown(medians[name][p])}"
            found = f"{ratio(rounds, name, 'sqlite', p):.2f} | {goal if p == 'delivery_p50' else ''}"
            lines.append(f"| push to a client of {where}, {p[-3:]}, µs | {times} | {found} | | |")
    return "\n".join(lines + ([""] + failures if failures else []))


def table(result: dict) -> str:
    m, work = result["machine"], result["work"]
    node = f", Node {m['node']}" if m["node"] else ""
    shortened = " Reduced work: for trying the benchmark, not for comparing." if work["reduced"] else ""
    setting = (
        f"Medians of {work['rounds']}; Redis {m['redis']}, append-only file: {work['fsync']}. {m['cpus']} cores, "
        f"shared with the load generator; {m['system']}, Python {m['python']}{node}; "
        f"{work['clients']:,} clients, fan-out to {work['fan_clients']:,}.{shortened}"
    )
    tables = [show(result) for part, show in (("clusters", cluster_table), ("pairs", pair_table)) if part in result]
    return "\n\n".join([*tables, setting])


# ---- the command line ----


def node_counts(text: str) -> list[int]:
    if not re.fullmatch(r"[1-8](,[1-8])*", text):
        raise argparse.ArgumentTypeError("numbers from 1 to 8, separated by commas")
    return [int(count) for count in text.split(",")]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = [*PARTS, "pairs"]
    add = parser.add_argument
    add("--kinds", type=names_from(KINDS), default=list(KINDS), help=f"some of {','.join(KINDS)}")
    add("--nodes", type=node_counts, default=[1, 2, 3], help="how many nodes: 1,2,3")
    add("--only", type=names_from(parts), default=parts, help=f"some of {','.join(parts)}")
    add("--fsync", choices=FSYNC, default="everysec", help="Redis's append-only file (everysec)")
    add("--rounds", type=int, default=3, help="how often all is measured; the medians are shown (3)")
    add("--relay", metavar="COMMAND", default="", help="start relays by this command, with {port} and BROKER in it")
    add("--quick", action="store_true", help="little work: to see that it runs; the figures mean little")
    add("--json", metavar="FILE", type=pathlib.Path, help="write all figures to this file")
    add("--from", metavar="FILE", type=pathlib.Path, dest="stored", help="show stored figures; measure nothing")
    return parser.parse_args()


def result_of(options: argparse.Namespace) -> dict:
    if options.stored:
        return json.loads(options.stored.read_text())
    work = Work().reduced() if options.quick else Work()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # servers and clients inherit it
    prepare_nodes(options.kinds)
    settings = {"rounds": options.rounds, "fsync": options.fsync, "reduced": options.quick}
    result = {"machine": {**machine(), "redis": redis_version()}, "work": {**dataclasses.asdict(work), **settings}}
    if set(options.only) & set(PARTS):
        result["clusters"] = run_clusters(options, work)
    if "pairs" in options.only:
        result["pairs"] = run_pairs(options, work)
    return result


def main() -> None:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers are stopped on the way out
    try:
        result = result_of(options)
        if options.json:
            options.json.write_text(json.dumps(result, indent=1) + "\n")
        print(table(result))
    except Failed as error:
        sys.exit(f"cluster: {error}")


if __name__ == "__main__":
    main()
