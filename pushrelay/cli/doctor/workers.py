"""Apache's workers on this machine: each connected client holds one, and the site stops when none is left."""

import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

from .process import commands
from .report import Advice, Report

PROGRAMS = ("apache2", "httpd")
USUAL_FILES = ("/etc/apache2/apache2.conf", "/etc/httpd/conf/httpd.conf")
DEEPEST = 10  # files that include one another
FEW_LEFT, MANY_LEFT = 0.1, 0.5  # of all workers
# What holds if nothing is written (docs of mpm_common and of the MPMs): ServerLimit, ThreadsPerChild.
_DEFAULTS = {"prefork": (256, 1), "worker": (16, 25), "event": (16, 25)}
_MODULES = {f"{form}" for mpm in _DEFAULTS for form in (f"mpm_{mpm}_module", f"mpm_{mpm}.c", f"{mpm}.c")}
_OWN_PORT = Advice(
    "Give the relay a port of its own, past Apache: nginx beside it holds thousands of clients (docs/apache.md)."
)


class Directive(NamedTuple):
    name: str  # in lower case
    values: list[str]
    module: str  # of the <IfModule> around it


class Workers(NamedTuple):
    """How many requests and clients an Apache serves at a time."""

    mpm: str
    most: int
    ports: frozenset[int]

    def report(self, report: Report, connected: int) -> None:
        """Say how many are taken, and what to do if that is too many."""
        held = f"mpm_{self.mpm} with {self.most} workers (MaxRequestWorkers), and {connected} connections to the relay"
        found = f"{held} now: each open tab holds a worker"
        left = 1 - connected / self.most
        if left <= FEW_LEFT:
            report.fail("Apache", f"{found}, and without a free one the site does not answer", *self._more())
        elif self.mpm == "prefork":
            found += ", here a whole process; prefork starts new ones slowly"
            event = Advice("Or take mpm_event and php-fpm, whose workers are threads (docs/apache.md).")
            report.warn("Apache", found, _OWN_PORT, event)
        elif left <= MANY_LEFT:
            report.warn("Apache", found, *self._more())
        else:
            report.ok("Apache", found)

    def _more(self) -> list[Advice]:
        if self.mpm == "prefork":
            return [_OWN_PORT]
        children = -(-self.most * 4 // 64)
        lines = (f"ServerLimit {children * 2}", "ThreadsPerChild 64", f"MaxRequestWorkers {children * 64}")
        sentence = f"Or raise the bound in mpm_{self.mpm}.conf, and restart Apache (graceful does not change it):"
        return [_OWN_PORT, Advice(sentence, lines)]


def workers_of(port: int) -> Workers | None:
    """Return the workers of the Apache on this machine that listens on this port; None if there is none to be seen."""
    try:
        files = {_config_of(command) for command in commands() if pathlib.Path(command[0]).name in PROGRAMS}
        found = [workers for file in files if file and (workers := read_workers(file))]
    except OSError:
        return None
    return next((each for each in found if port in each.ports), None)


def _config_of(command: tuple[str, ...]) -> pathlib.Path | None:
    named = command[command.index("-f") + 1] if "-f" in command[:-1] else ""
    usual = next((pathlib.Path(each) for each in USUAL_FILES if pathlib.Path(each).exists()), None)
    return (usual.parent if usual else pathlib.Path("/")) / named if named else usual


def read_workers(file: pathlib.Path) -> Workers | None:
    """Read an Apache's configuration. None if it does not tell the MPM. Raises OSError."""
    directives = list(_directives(file, _root_of(file), 0))
    loaded = (re.fullmatch(r"mpm_(\w+)_module", each.values[0]) for each in directives if _is(each, "loadmodule"))
    mpm = next((found[1] for found in loaded if found), "")
    if mpm not in _DEFAULTS:
        return None
    counts = {}
    for each in directives:  # the last one counts
        if each.values and each.values[0].isdigit() and (not each.module or mpm in each.module):
            counts[each.name] = int(each.values[0])
    limit, threads = _DEFAULTS[mpm]
    threads = counts.get("threadsperchild", threads) if mpm != "prefork" else 1
    bound = counts.get("serverlimit", limit) * threads
    most = counts.get("maxrequestworkers", counts.get("maxclients", bound))
    said = (each.values[0].rpartition(":")[2] for each in directives if _is(each, "listen"))
    return Workers(mpm, max(1, min(most, bound)), frozenset(int(port) for port in said if port.isdigit()))


def _is(directive: Directive, name: str) -> bool:
    return directive.name == name and bool(directive.values)


def _root_of(file: pathlib.Path) -> pathlib.Path:
    """What relative paths in it begin from."""
    found = re.search(r'^\s*ServerRoot\s+"?([^"\n]+)', file.read_text("utf-8", "replace"), re.MULTILINE | re.IGNORECASE)
    return pathlib.Path(found[1].strip()) if found else file.parent


def _directives(file: pathlib.Path, root: pathlib.Path, depth: int) -> Iterator[Directive]:
    """The directives of a file and of those that it includes, in their order."""
    modules: list[str] = []
    for line in file.read_text("utf-8", "replace").replace("\\\n", " ").splitlines():
        words = line.replace('"', "").strip().split()
        if not words or words[0].startswith("#"):
            continue
        name = words[0].lower()
        if name == "<ifmodule":
            modules.append(words[1].rstrip(">").lower() if len(words) > 1 else "")
        elif name.startswith("</ifmodule") and modules:
            modules.pop()
        elif name in ("include", "includeoptional") and len(words) > 1 and depth < DEEPEST:
            for each in _included(root, words[1]):
                yield from _directives(each, root, depth + 1)
        else:
            module = next(
                (each for each in modules if "mpm" in each or each in ("prefork.c", "worker.c", "event.c")), ""
            )
            yield Directive(name, words[1:], module)


def _included(root: pathlib.Path, pattern: str) -> list[pathlib.Path]:
    base, rest = (pathlib.Path("/"), pattern[1:]) if pattern.startswith("/") else (root, pattern)
    try:
        found = sorted(base.glob(rest)) if rest else []
    except (ValueError, NotImplementedError):  # a pattern that pathlib does not take
        return []
    files = [file for each in found for file in (sorted(each.iterdir()) if each.is_dir() else [each])]
    return [each for each in files if each.is_file()]
