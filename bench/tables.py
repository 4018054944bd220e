"""The figures of compare.py as tables: stored runs, medians, ratios, and Markdown for the documents.

A run has the figures of one command: the machine, the work, and for each server its rounds, their medians and its
failures. A file has several runs, and the relay is in each of them, because both figures of a ratio must be from the
same run. The relay's own figures are the medians of all rounds of all runs.
"""

import dataclasses
import json
import math
import pathlib
import re
import statistics
import sys

from kinds import KINDS
from servers import HERE, ROOT

RELAY = "relay"
LEVEL = 0.07  # a server that is ahead by less is not named: rates vary by about as much from run to run


@dataclasses.dataclass(frozen=True)
class Figure:
    label: str
    unit: str
    less_is_better: bool = False
    about: str = ""  # what the figure depends on: a key of AHEAD


FIGURES = {
    "kept": Figure("pushes, plain forms on kept connections", "/s", about="push"),
    "kept_text": Figure("the same, forms with spaces and %", "/s", about="push"),
    "kept_json": Figure("the same, JSON", "/s", about="push"),
    "push_cpu": Figure("CPU per push, these three", "µs", True, "push"),
    "new": Figure("pushes, a new connection each", "/s", about="new"),
    "unicast": Figure("pushes, each to one of the clients", "/s", about="push"),
    "fanout": Figure("deliveries, each push to {fan_clients:,} clients", "/s", about="fanout"),
    "connects": Figure("clients connected and registered", "/s", about="connect"),
    "memory": Figure("memory per idle client", "KiB", True, "memory"),
    "threads": Figure("threads with these clients", "", True, "threads"),
    "idle_cpu": Figure("CPU with these clients idle, between pings", "%", True, "idle"),
    "reply_p50": Figure("reply to a push at {rate}/s, p50", "µs", True, "latency"),
    "reply_p99": Figure("the same, p99", "µs", True, "latency"),
    "delivery_p50": Figure("push to client at {rate}/s, p50", "µs", True, "latency"),
    "delivery_p99": Figure("the same, p99", "µs", True, "latency"),
    "leave_cpu": Figure("CPU per client that leaves", "ms", True, "leave"),
}
IN_README = [RELAY, "seed", "nchan", "pushpin", "uvicorn", "gunicorn"]
TABLES = [
    [RELAY, "seed", "nchan", "nchan-auto", "pushpin"],
    [RELAY, "redis", "adapter", "uvicorn", "werkzeug", "gunicorn"],
]


# ---- stored runs ----


def stored_result(file: pathlib.Path | None) -> dict:
    """Return the result in the file; an empty one if the file does not exist or has another format."""
    if file and file.exists():
        result = json.loads(file.read_text())
        if "runs" in result:
            return result
    return {"runs": []}


def merged(result: dict, run: dict) -> dict:
    """Return the result with a new run. Other runs lose the figures of its servers, except the relay.

    Runs of other work are dropped, because their figures are not comparable.
    """
    kept = []
    for old in result["runs"]:
        if old["work"] != run["work"]:
            print("The file has figures of other work, which are dropped.", file=sys.stderr)
            continue
        servers = {name: entry for name, entry in old["servers"].items() if name == RELAY or name not in run["servers"]}
        if set(servers) - {RELAY} or RELAY not in run["servers"]:
            kept.append({**old, "servers": servers})
    return {"runs": [*kept, run]}


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for figures in rounds for name in figures)  # a set would lose the order
    values = {name: [figures[name] for figures in rounds if name in figures] for name in names}
    return {name: round(statistics.median(found), 3) for name, found in values.items() if found}


@dataclasses.dataclass
class Column:
    """The figures of one server, and of the relay in the same runs."""

    name: str
    clients: int
    version: str
    medians: dict[str, float]
    relay: dict[str, float]
    failures: list[str]

    def ratio(self, figure: str) -> float | None:
        """Return its figure divided by the relay's; None if one of them is missing or not above 0."""
        own, relays = self.medians.get(figure, 0), self.relay.get(figure, 0)
        return own / relays if own > 0 and relays > 0 else None

    def advantage(self, figure: str) -> float:
        """Return how many times better than the relay it is; 0 if this is unknown."""
        if FIGURES[figure].less_is_better and self.medians.get(figure) == 0 and self.relay.get(figure, 0) > 0:
            return math.inf
        ratio = self.ratio(figure) or 0
        return 1 / ratio if ratio and FIGURES[figure].less_is_better else ratio


def columns(result: dict) -> dict[str, Column]:
    """Return a column for each server that was measured or tried, in the order of KINDS."""
    found = {}
    for name in KINDS:
        entries = [run["servers"][name] for run in result["runs"] if name in run["servers"]]
        relays = [run["servers"].get(RELAY, {}) for run in result["runs"] if name in run["servers"]]
        if entries:
            found[name] = Column(
                name,
                entries[0]["clients"],
                entries[-1]["version"],
                medians([each for entry in entries for each in entry["rounds"]]),
                medians([each for entry in relays for each in entry.get("rounds", [])]),
                list(dict.fromkeys(line for entry in entries for line in entry["failures"])),
            )
    return found


# ---- Markdown ----


def shown(value: float) -> str:
    """Return a number at its precision."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.{1 if value >= 1 else 2}f}".removesuffix(".0")


def cell(figure: str, column: Column) -> str:
    value, ratio = column.medians.get(figure), column.ratio(figure)
    if value is None:
        return "failed" if column.failures else "–"
    return f"{shown(value)} ({ratio:.2f})" if ratio and column.name != RELAY else shown(value)


def rows(result: dict, shown_columns: list[Column], with_reasons: bool) -> list[str]:
    """Return a table's rows: one for each figure that any of these servers has."""
    lines = []
    for figure, about in FIGURES.items():
        if not any(figure in column.medians for column in shown_columns):
            continue
        label = about.label.format(**result["runs"][-1]["work"]) + (f", {about.unit}" if about.unit else "")
        cells = [cell(figure, column) for column in shown_columns]
        if with_reasons:
            cells.append(who_is_ahead(figure, shown_columns))
        lines.append(f"| {label}{' (less is better)' if about.less_is_better else ''} | {' | '.join(cells)} |")
    return lines


def table(result: dict, names: list[str], with_reasons: bool = False) -> str:
    """Return Markdown: a row for each figure, and a column for each of these servers that was measured."""
    found = columns(result)
    chosen = [found[name] for name in names if name in found]
    heads = [KINDS[column.name].label + clients_note(column, found) for column in chosen]
    aligned = "---:|" * len(heads)
    if with_reasons:
        heads.append("ahead of the relay, and why")
        aligned += "---|"
    return "\n".join([f"| | {' | '.join(heads)} |", f"|---|{aligned}", *rows(result, chosen, with_reasons)])


def clients_note(column: Column, found: dict[str, Column]) -> str:
    usual = max(each.clients for each in found.values())
    return "" if column.clients == usual else f" ({column.clients:,} clients)"


def who_is_ahead(figure: str, shown_columns: list[Column]) -> str:
    """Return the servers that are ahead of the relay in a figure, each with the reason, the best one first."""
    ahead = {column.name: column.advantage(figure) for column in shown_columns if column.name != RELAY}
    names = sorted((name for name, times in ahead.items() if times > 1 + LEVEL), key=lambda name: -ahead[name])
    about = FIGURES[figure].about
    return "; ".join(f"{KINDS[name].label.partition(',')[0]}: {reason(name, about)}" for name in names)


def reason(name: str, about: str) -> str:
    if about == "idle":
        return "does nothing between pings; the relay checks its deadlines once a second"
    reasons = AHEAD.get(name, {})
    return reasons.get(about) or reasons.get("") or "keeps nothing"


def setting(result: dict) -> str:
    """Return a sentence about the machine and the work."""
    run, found = result["runs"][-1], columns(result)
    m, work = run["machine"], run["work"]
    reduced = " Reduced work: for trying the benchmark, not for comparing." if work["reduced"] else ""
    packages = {KINDS[name].version.rpartition(":")[2]: column.version for name, column in found.items()}
    versions = [
        f"{package.removeprefix('libnginx-mod-')} {version}" for package, version in packages.items() if version
    ]
    programs = f"{m['system']}, Python {m['python']}{', Node ' + m['node'] if m['node'] else ''}"
    return (
        f"Medians of {rounds_of(result)}; in brackets, times the relay's figure in the same run. {m['cpus']} cores, "
        f"shared with the load generator; {programs}; {max(column.clients for column in found.values()):,} clients; "
        f"{', '.join(versions)}.{reduced}"
    )


def rounds_of(result: dict) -> str:
    """Return the number of rounds, such as "3 rounds" or "2 to 3 rounds"."""
    counts = {len(entry["rounds"]) for run in result["runs"] for entry in run["servers"].values() if entry["rounds"]}
    least, most = min(counts, default=0), max(counts, default=0)
    return f"{least} round{'s' if least != 1 else ''}" if least == most else f"{least} to {most} rounds"


def failures(result: dict) -> list[str]:
    return [f"- {KINDS[name].label}: {line}" for name, column in columns(result).items() for line in column.failures]


def report(result: dict) -> str:
    """Return all tables, and what failed."""
    measured = set(columns(result))
    chosen = [names for names in TABLES if set(names) & measured - {RELAY}] or [[RELAY]]
    return "\n\n".join([*(table(result, names) for names in chosen), "\n".join([setting(result), *failures(result)])])


def write_tables(result: dict) -> None:
    """Replace the tables in the documents, each between two comments."""
    replace_between(ROOT / "README.md", table(result, IN_README, with_reasons=True))
    replace_between(HERE / "README.md", report(result))


def replace_between(file: pathlib.Path, text: str, script: str = "bench/compare.py") -> None:
    begin, end = f"<!-- written by {script} -->", f"<!-- end of what {script} wrote -->"
    whole = file.read_text()
    pattern = f"{re.escape(begin)}.*?{re.escape(end)}"
    file.write_text(re.sub(pattern, lambda _: f"{begin}\n\n{text}\n\n{end}", whole, flags=re.S))


# Why a server is ahead in figures about this; "" for all other figures.
AHEAD = {
    "nchan": {
        "": "in C, keeps messages in memory only",
        "fanout": "in C",
        "connect": "in C, a WebSocket without Socket.IO's handshake and `register`",
        "memory": "in C",
        "threads": "one event loop in each process",
        "leave": "in C",
    },
    "seed": {
        "": "compiled by V8, keeps nothing",
        "latency": "keeps nothing, so no push waits for a store",
        "fanout": "compiled by V8",
        "connect": "compiled by V8",
    },
    "pushpin": {
        "": "in C++ and Rust, keeps nothing",
        "latency": "keeps nothing, so no push waits for a store",
        "connect": "a WebSocket without Socket.IO's handshake and `register`",
    },
    "uvicorn": {
        "": "an event loop in C, keeps nothing",
        "threads": "one event loop",
        "latency": "keeps nothing, so no push waits for a store",
    },
}
AHEAD["nchan-auto"] = AHEAD["nchan"]
AHEAD["adapter"] = AHEAD["seed"]
