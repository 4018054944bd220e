"""Measure pushes with bodies of three kinds and three sizes, over 1 to 64 connections, with and without recipients.

    python bench/bodies.py                           the relay and the old Node server in turn, one round (6 minutes)
    python bench/bodies.py --json bench/bodies.json --add      another round, for the medians
    python bench/bodies.py --from bench/bodies.json --readme   write the table of stored figures into README.md

Needs what compare.py needs.
"""

import argparse
import statistics
import time
from collections.abc import Iterator

import report
from compare import listening, must_have_arrived, names_from, number, push
from servers import KINDS, Failed, Server, prepare, relay_command
from tables import shown

BODIES = {"plain": "form", "text": "sentence", "json": "JSON"}
SIZES = {"small": 0, "1k": 1024, "64k": 65536}  # bytes of a body, about
SIZE_LABELS = {"small": "small", "1k": "1 KiB", "64k": "64 KiB"}
PUBLISHERS = [1, 4, 16, 64]
AUDIENCE = {"nobody": "nobody", "one": "one of 100 clients"}
SERVERS = ("relay", "seed")
CLIENTS = 100
DESTINATIONS = 100
WARM_UP = 60_000  # pushes, as in compare.py
COUNTS = {"small": 20_000, "1k": 16_000, "64k": 1000}
# Fillers of larger bodies, encoded as each kind requires.
FILLERS = {
    "plain": "x",
    "text": "+Your+order%2C+Zo%C3%AB%2C+is+on+its+way.",
    "json": " Your order, Zoë, is on its way.",
}
LEAST = {"plain": 40, "text": 85, "json": 95}  # bytes of a small body


def padding(kind: str, size: str) -> str:
    """Return the filler that makes a body of this kind about as large as `size`."""
    missing = max(0, SIZES[size] - LEAST[kind])
    filler = FILLERS[kind]
    return filler * (missing // len(filler.encode()))


def cases(sizes: list[str]) -> list[tuple[str, str, int]]:
    return [(kind, size, publishers) for size in sizes for kind in BODIES for publishers in PUBLISHERS]


def case_name(audience: str, kind: str, size: str, publishers: int) -> str:
    return f"{audience} {kind} {size} {publishers}"


def measure_case(
    server: Server, audience: str, kind: str, size: str, publishers: int, count: int
) -> tuple[float, float]:
    """Return the pushes per second and the server's CPU in µs for each."""
    prefix = "u" if audience == "one" else "nobody"
    cpu = server.cpu()
    out = push(server, count, publishers, prefix, DESTINATIONS, kind=kind, pad=padding(kind, size))
    time.sleep(0.05)  # for what a server does after it has answered
    return number(r"\((\d+)/s\)", out), (server.cpu() - cpu) / count * 1e6


def measure_audience(server: Server, audience: str, sizes: list[str], scale: int) -> dict[str, tuple[float, float]]:
    """Return the figures of all cases, with the clients connected if there are any."""
    if audience == "nobody":
        return dict(measured(server, audience, sizes, scale))
    with listening(server, CLIENTS, "u", 0, seconds=600) as clients:
        time.sleep(0.2)
        figures = dict(measured(server, audience, sizes, scale))
        time.sleep(0.5)  # for deliveries in transit
        sent = sum(COUNTS[size] // scale for _, size, _ in cases(sizes))
        must_have_arrived(sent, clients.figures())
    return figures


def measured(server: Server, audience: str, sizes: list[str], scale: int) -> Iterator[tuple[str, tuple[float, float]]]:
    for kind, size, publishers in cases(sizes):
        count = COUNTS[size] // scale
        yield (
            case_name(audience, kind, size, publishers),
            measure_case(server, audience, kind, size, publishers, count),
        )


def measure_server(name: str, options: argparse.Namespace, scale: int) -> dict:
    """Return one server's figures of one round, and what failed."""
    figures, failures = {}, []
    command = options.relay or relay_command() if name == "relay" else ""
    try:
        with Server(KINDS[name], command, 0) as server:
            push(server, WARM_UP // scale, 4, "warm", 10)
            for audience in options.only:
                figures |= measure_audience(server, audience, options.sizes, scale)
    except Failed as error:
        failures.append(str(error))
    return {"figures": figures, "failures": failures}


def measure(options: argparse.Namespace) -> list[dict]:
    prepare(options.servers)
    rounds = []
    for turn in range(options.rounds):
        rounds.append({})
        for name in options.servers:
            report.progress(f"round {turn + 1} of {options.rounds}: {KINDS[name].label}")
            rounds[-1][name] = measure_server(name, options, 100 if options.quick else 1)
    return rounds


def medians(result: dict, name: str, case: str) -> tuple[float, float] | None:
    """Return the medians of the rate and of the CPU, or None if there are none."""
    found = [each[name]["figures"][case] for each in result["rounds"] if case in each.get(name, {}).get("figures", {})]
    return tuple(statistics.median(column) for column in zip(*found, strict=True)) if found else None


def cell(result: dict, case: str) -> str:
    """Return the relay's rate and CPU, with the ratios to the Node server in brackets."""
    relay, seed = medians(result, "relay", case), medians(result, "seed", case)
    if not relay:
        return "failed"
    if not seed:
        return f"{shown(relay[0])}/s, {shown(relay[1])} µs"
    return f"{shown(relay[0])}/s ({relay[0] / seed[0]:.2f}), {shown(relay[1])} µs ({relay[1] / max(seed[1], 0.1):.2f})"


def table(result: dict) -> str:
    """Return Markdown: for each audience a row for each size and kind, and a column for each number of publishers."""
    lines = []
    for audience, label in AUDIENCE.items():
        if not any(key.startswith(f"{audience} ") for each in result["rounds"] for key in each["relay"]["figures"]):
            continue
        heads = " | ".join("1 connection" if each == 1 else f"{each} connections" for each in PUBLISHERS)
        lines += ["", f"| pushes to {label} | {heads} |", f"|---|{'---:|' * len(PUBLISHERS)}"]
        for size in SIZES:
            if not any(key.split()[2] == size for each in result["rounds"] for key in each["relay"]["figures"]):
                continue  # not measured
            for kind, kind_label in BODIES.items():
                cells = [cell(result, case_name(audience, kind, size, publishers)) for publishers in PUBLISHERS]
                lines.append(f"| {kind_label}, {SIZE_LABELS[size]} | {' | '.join(cells)} |")
    rounds = len(result["rounds"])
    ratios = ", each with the ratio to the old Node server in brackets" if "seed" in result["rounds"][0] else ""
    lines += [
        "",
        f"Pushes per second, and the server's CPU for each push{ratios}. " + said(rounds) + report.setting(result),
    ]
    failures = [(name, line) for each in result["rounds"] for name in each for line in each[name]["failures"]]
    lines += [f"- {KINDS[name].label}: {line}" for name, line in failures]
    return "\n".join(lines).strip()


def said(rounds: int) -> str:
    return f"Medians of {rounds} rounds. " if rounds > 1 else "One round. "


def main() -> None:
    servers = (names_from(dict.fromkeys(SERVERS)), list(SERVERS), f"some of {','.join(SERVERS)}")
    sizes = (names_from(SIZES), list(SIZES), f"some of {','.join(SIZES)}")
    report.run("bodies", report.arguments(__doc__, AUDIENCE, servers=servers, sizes=sizes), measure, table)


if __name__ == "__main__":
    main()
