"""Flags, stored figures and sections of README.md for bodies.py, php.py and growth.py."""

import argparse
import json
import pathlib
import resource
import signal
import sys
from collections.abc import Callable

from compare import machine, names_from
from servers import HERE, Failed
from tables import replace_between

SPARE_FILES = 200  # descriptors that a server needs besides those of its clients


def arguments(about: str, parts: dict, **more: tuple) -> argparse.Namespace:
    """Read the flags. `parts`: the names for --only. `more`: further flags, each with its type, default and help."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--only", type=names_from(parts), default=list(parts), help=f"some of {','.join(parts)}")
    add("--rounds", type=int, default=1, help="number of rounds; the medians are shown (1)")
    add("--quick", action="store_true", help="a tenth of the work or less, to see that it runs")
    add("--json", metavar="FILE", type=pathlib.Path, help="write all figures to this file")
    add("--add", action="store_true", help="keep the rounds that are already in the file of --json")
    add("--from", metavar="FILE", type=pathlib.Path, dest="stored", help="show stored figures; measure nothing")
    add("--relay", metavar="COMMAND", help="start the relay by this command, with {port} and {dir} in it")
    add("--readme", action="store_true", help="write the table into bench/README.md as well")
    for name, (kind, default, text) in more.items():
        add(f"--{name.replace('_', '-')}", type=kind, default=default, help=text)
    return parser.parse_args()


def raise_file_limit() -> int:
    """Let this process, and those that it starts, open as many files as the system allows. Return the number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return 1_000_000 if hard == resource.RLIM_INFINITY else hard


def progress(text: str) -> None:
    print(text, file=sys.stderr)


def result_of(options: argparse.Namespace, measure: Callable[[argparse.Namespace], list[dict]]) -> dict:
    """Return the stored figures, or measure them. `measure` returns the rounds: a dictionary of figures for each."""
    if options.stored:
        return json.loads(options.stored.read_text())
    raise_file_limit()
    earlier = []
    if options.add and options.json and options.json.exists():
        stored = json.loads(options.json.read_text())
        if stored["reduced"] != options.quick:
            raise Failed(
                f"{options.json} has figures of {'reduced' if stored['reduced'] else 'full'} work: use another file"
            )
        earlier = stored["rounds"]
    return {"machine": machine(), "reduced": options.quick, "rounds": earlier + measure(options)}


def setting(result: dict) -> str:
    """Return a sentence about the machine."""
    m = result["machine"]
    reduced = " Reduced work: for trying the script, not for comparing." if result["reduced"] else ""
    node = f", Node {m['node']}" if m["node"] else ""
    return f"{m['cpus']} cores, shared with the load generator; {m['system']}, Python {m['python']}{node}.{reduced}"


def run(
    name: str,
    options: argparse.Namespace,
    measure: Callable[[argparse.Namespace], list[dict]],
    table: Callable[[dict], str],
) -> dict:
    """Measure, or read stored figures; write and print what the flags ask for. Return the result."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers are stopped on the way out
    try:
        result = result_of(options, measure)
        if options.json:
            options.json.write_text(json.dumps(result, indent=1) + "\n")
        text = table(result)
        print(text)
        if options.readme:
            replace_between(HERE / "README.md", text, f"bench/{name}.py")
    except Failed as error:
        sys.exit(f"{name}: {error}")
    return result
