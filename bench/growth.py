"""Measure the relay with more and more clients, recipients and stored publications, and with clients that poll.

    python bench/growth.py                                     everything, one round (8 minutes)
    python bench/growth.py --only clients --json bench/growth.json --add     one part, in addition to what the file has
    python bench/growth.py --from bench/growth.json --readme --plot bench/growth.png

Needs a C compiler. With `ulimit -n` below 19,200, the largest sizes are left out.
"""

import argparse
import concurrent.futures
import http.client
import json
import pathlib
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator

import report
from compare import Work, listening, measure_clients, must_have_arrived, number, push
from servers import HERE, KINDS, Failed, Server, prepare, prepare_venv, relay_command
from tables import shown

CLIENTS = [1000, 5000, 10_000, 19_000]
RECIPIENTS = [10, 100, 1000, 10_000, 19_000]
POLLING = [5000]
# Publications and destinations in the store. Each destination keeps at most 100 publications.
STORED = {"1": (1, 1), "10^4": (10_000, 100), "10^6": (1_000_000, 10_000), "10^6, each its own": (1_000_000, 1_000_000)}
MODELED = [50_000, 100_000]
PING_INTERVAL = 25  # seconds, the relay's default: an idle relay is measured for as long
WARM_UP = 60_000  # pushes, as in compare.py
DELIVERIES = 600_000  # of a fan-out
EXPECTED_RATE = 150_000  # deliveries a second, roughly: other publishers push for as long as the fan-out should take
PUSHES = 20_000
RECOVERIES = 1000
RECOVERED = 20  # publications of each
PROBES = 50  # destinations that have them
BATCH = 1000  # the relay's own limit
RATE = 400  # pushes a second of other publishers


class Growing:
    """The relay, started for one measurement after another."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.scale = 100 if options.quick else 1

    def relay(self, broker: str = "sqlite:{dir}/relay.db", flags: str = "") -> Server:
        command = f"{self.options.relay} --broker {broker}" if self.options.relay else relay_command(broker)
        return Server(KINDS["relay"], f"{command} {flags}", 0)

    def warm_up(self, server: Server) -> None:
        push(server, WARM_UP // self.scale, 4, "warm", 10)

    def idle_seconds(self) -> float:
        return 1 if self.options.quick else PING_INTERVAL

    def counts(self, numbers: list[int]) -> list[int]:
        """Return these numbers of clients, without those for which a process may not open enough files."""
        files = report.raise_file_limit()
        possible = [each for each in numbers if each // self.scale >= 1 and each + report.SPARE_FILES <= files]
        return [each for each in possible if self.wants(each)]

    def wants(self, size: int) -> bool:
        return self.options.smallest <= size <= self.options.largest


def measure_numbers(growing: Growing) -> Iterator[tuple[str, dict[str, float]]]:
    """Measure the relay with more and more clients, each with a destination of its own."""
    work = Work(unicast=PUSHES // growing.scale, paced=2000 // growing.scale, idle_seconds=growing.idle_seconds())
    for clients in growing.counts(CLIENTS):
        with growing.relay() as server:
            growing.warm_up(server)
            yield f"clients {clients}", dict(measure_clients(server, work, clients // growing.scale))


def measure_fanouts(growing: Growing) -> Iterator[tuple[str, dict[str, float]]]:
    """Measure pushes to more and more recipients, while others push to destinations without any."""
    with growing.relay() as server:
        growing.warm_up(server)
        for recipients in growing.counts(RECIPIENTS):
            figures = measure_fanout(server, max(1, recipients // growing.scale), DELIVERIES // growing.scale)
            yield f"fanout {recipients}", figures


def measure_fanout(server: Server, recipients: int, deliveries: int, polling: bool = False) -> dict[str, float]:
    """Return deliveries a second, the CPU in µs for each, and the p50 and p99 in µs of replies to other publishers."""
    pushes = min(max(deliveries // recipients, 30), PUSHES)
    total = pushes * recipients
    with (
        concurrent.futures.ThreadPoolExecutor(1) as pool,
        listening(server, recipients, "room", total, same_id=True, polling=polling) as room,
    ):
        time.sleep(1)  # `ready` is printed when the last `register` is sent
        cpu = server.cpu()
        others = pool.submit(push, server, max(50, int(RATE * total / EXPECTED_RATE)), 2, "nobody", 100, rate=RATE)
        push(server, pushes, 1, "room", 0)
        arrived = must_have_arrived(total, room.last_figures())
        replies = others.result()
        cpu = server.cpu() - cpu
    return {
        "deliveries": number(r"pushes \d+ in [\d.]+s \((\d+)/s\)", arrived),
        "cpu": cpu / total * 1e6,
        "reply_p50": number(r"p50 (\d+)", replies),
        "reply_p99": number(r"p99 (\d+)", replies),
    }


def measure_polling(growing: Growing) -> Iterator[tuple[str, dict[str, float]]]:
    """Measure clients that use long polling."""
    for clients in growing.counts(POLLING):
        with growing.relay() as server:
            growing.warm_up(server)
            count = clients // growing.scale
            memory = server.memory()
            with listening(server, count, "u", 0, polling=True) as everybody:
                figures = {"connects": number(r"\((\d+)/s\)", everybody.ready)}
                time.sleep(1)
                figures["memory"] = (server.memory() - memory) / count
                cpu = server.cpu()
                time.sleep(growing.idle_seconds())
                figures["idle_cpu"] = (server.cpu() - cpu) / growing.idle_seconds() * 100
            yield f"polling {clients}", figures | measure_fanout(server, count, DELIVERIES // 4 // growing.scale, True)


# ---- what is stored ----


def post_batch(connection: http.client.HTTPConnection, pushes: list[dict]) -> list[dict]:
    connection.request("POST", "/push", json.dumps(pushes), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answers = json.loads(answer.read())
    if answer.status != 200 or any("error" in each for each in answers):
        raise Failed(f"a batch was answered with {answer.status}: {str(answers)[:200]}")
    return answers


def fill(server: Server, publications: int, destinations: int) -> None:
    """Store this number of publications, over two connections, because one waits for the answers."""

    def store(part: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        for start in range(part * BATCH, publications, 2 * BATCH):
            numbers = range(start, min(start + BATCH, publications))
            text = "Your order is on its way."
            post_batch(connection, [{"destination": f"d{each % destinations}", "data": text} for each in numbers])

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(store, range(2)))


def time_recoveries(server: Server, count: int) -> float:
    """Return the µs (median) in which the relay answers with the last publications of a destination."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    positions, times = [], []
    for probe in range(PROBES):
        answers = post_batch(connection, [{"destination": f"p{probe}", "data": "hello"}] * (RECOVERED + 1))
        positions.append(answers[0]["id"])
    for turn in range(count):
        start = time.perf_counter()
        connection.request("GET", f"/history?destination=p{turn % PROBES}&since={positions[turn % PROBES]}&limit=100")
        found = json.loads(connection.getresponse().read())
        times.append(time.perf_counter() - start)
        if len(found["publications"]) != RECOVERED:
            raise Failed(f"{len(found['publications'])} of {RECOVERED} publications were recovered")
    return statistics.median(times) * 1e6


def measure_store(growing: Growing, folder: str, publications: int, destinations: int) -> dict[str, float]:
    figures = {}
    # A limit that a million destinations do not reach.
    relay = (f"sqlite:{folder}/relay.db", "--history-bytes 4G")
    with growing.relay(*relay) as server:
        started = time.monotonic()
        fill(server, publications, destinations)
        figures["fill"] = publications / (time.monotonic() - started)
        figures["memory"] = server.memory() / 1024
        growing.warm_up(server)
        cpu, pushes = server.cpu(), PUSHES // growing.scale
        figures["pushes"] = number(r"\((\d+)/s\)", push(server, pushes, 4, "d", destinations))
        figures["cpu"] = (server.cpu() - cpu) / pushes * 1e6
        figures["recovery"] = time_recoveries(server, RECOVERIES // growing.scale)
    figures["file"] = sum(file.stat().st_size for file in pathlib.Path(folder).iterdir()) / 2**20
    started = time.monotonic()
    with growing.relay(*relay) as server:
        push(server, 1, 1, "d", destinations)
        figures["start"] = time.monotonic() - started
        figures["memory_after"] = server.memory() / 1024
    return figures


def measure_stored(growing: Growing) -> Iterator[tuple[str, dict[str, float]]]:
    """Measure the relay with more and more publications in its store."""
    for name, (publications, destinations) in STORED.items():
        if not growing.wants(publications + destinations):
            continue
        with tempfile.TemporaryDirectory(prefix="relay-bench-") as folder:
            counts = [max(1, each // growing.scale) for each in (publications, destinations)]
            yield f"stored {name}", measure_store(growing, folder, *counts)


PARTS = {"clients": measure_numbers, "fanout": measure_fanouts, "stored": measure_stored, "polling": measure_polling}


def measure(options: argparse.Namespace) -> list[dict]:
    prepare(["relay"])
    rounds = []
    for turn in range(options.rounds):
        rounds.append({})
        for part in options.only:
            report.progress(f"round {turn + 1} of {options.rounds}: {part}")
            for case, figures in PARTS[part](Growing(options)):
                rounds[-1][case] = figures
    return rounds


# ---- the tables ----


def median(result: dict, case: str, figure: str) -> float | None:
    found = [each[case][figure] for each in result["rounds"] if figure in each.get(case, {})]
    return statistics.median(found) if found else None


COLUMNS = {
    "clients": {
        "memory": "memory per client, KiB",
        "connects": "connects/s",
        "unicast": "pushes/s, each to one client",
        "idle_cpu": "idle CPU, %",
        "delivery_p99": "push to client at 400/s, p99, µs",
    },
    "fanout": {
        "deliveries": "deliveries/s",
        "cpu": "CPU per delivery, µs",
        "reply_p50": "others' replies, p50, µs",
        "reply_p99": "others' replies, p99, µs",
    },
    "stored": {
        "pushes": "pushes/s",
        "cpu": "CPU per push, µs",
        "recovery": "recovery of 20, µs",
        "start": "start, s",
        "file": "file, MiB",
        "memory": "memory, MiB",
        "memory_after": "memory after a restart, MiB",
        "fill": "filled in batches, publications/s",
    },
    "polling": {
        "memory": "memory per client, KiB",
        "connects": "connects/s",
        "idle_cpu": "idle CPU, %",
        "deliveries": "deliveries/s",
        "cpu": "CPU per delivery, µs",
        "reply_p99": "others' replies, p99, µs",
    },
}
HEADS = {"clients": "clients", "fanout": "recipients", "stored": "stored", "polling": "clients that poll"}


def part_table(result: dict, part: str) -> list[str]:
    names = dict.fromkeys(case for each in result["rounds"] for case in each if case.startswith(f"{part} "))
    columns = COLUMNS[part]
    lines = [f"| {HEADS[part]} | {' | '.join(columns.values())} |", f"|---:|{'---:|' * len(columns)}"]
    for case in names:
        name = case.removeprefix(f"{part} ")
        values = [median(result, case, figure) for figure in columns]
        cells = ["" if value is None else shown(value) for value in values]
        lines.append(f"| {f'{int(name):,}' if name.isdigit() else name} | {' | '.join(cells)} |")
    return [*lines, ""] if names else []


def model(result: dict, clients: int) -> dict[str, float] | None:
    """Return what this number of clients would need, if memory and idle CPU grow in proportion and the rates stay."""
    largest = max((number for number in CLIENTS if median(result, f"clients {number}", "memory")), default=0)
    fans = max((number for number in RECIPIENTS if median(result, f"fanout {number}", "deliveries")), default=0)
    if not largest or not fans:
        return None
    at = {name: median(result, f"clients {largest}", name) for name in ("memory", "idle_cpu", "connects")}
    return {
        "memory": at["memory"] * clients / 1024,
        "idle_cpu": at["idle_cpu"] * clients / largest,
        "connecting": clients / at["connects"],
        "fanout": clients / median(result, f"fanout {fans}", "deliveries"),
    }


def model_table(result: dict) -> list[str]:
    if not model(result, 1):
        return []
    lines = ["| clients, computed | their memory, MiB | idle CPU, % | all connect within, s | a push to all, s |"]
    lines.append("|---:|---:|---:|---:|---:|")
    for clients in MODELED:
        values = " | ".join(shown(value) for value in model(result, clients).values())
        lines.append(f"| {clients:,} | {values} |")
    return [*lines, ""]


def table(result: dict) -> str:
    lines = [line for part in PARTS for line in [*part_table(result, part), *model_table(result) * (part == "fanout")]]
    counts = [
        sum(case in each for each in result["rounds"]) for case in {case for each in result["rounds"] for case in each}
    ]
    rounds = f"Medians of {max(counts)} rounds. " if max(counts) > 1 else "One round. "
    return "\n".join([*lines, rounds + report.setting(result)])


def main() -> None:
    plot = (pathlib.Path, None, "draw the picture into this file, and into -dark, -phone and -phone-dark")
    smallest = (int, 0, "leave out smaller numbers of clients, recipients, or publications and destinations")
    largest = (int, 10_000_000, "leave out larger ones")
    options = report.arguments(__doc__, PARTS, plot=plot, smallest=smallest, largest=largest)
    result = report.run("growth", options, measure, table)
    if options.plot:
        command = [prepare_venv(), HERE / "growth_plot.py", options.plot]
        subprocess.run(command, input=json.dumps(result), text=True, check=True)


if __name__ == "__main__":
    main()
