"""Apache's workers on this machine. Each connected client occupies one, and the site stops when none is free."""

import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

from .process import commands
from .report import Advice, Report

PROGRAMS = ("apache2", "httpd")
USUAL_FILES = ("/etc/apache2/apache2.conf", "/etc/httpd/conf/httpd.conf")
DEEPEST = 10  # levels of files that include one another
FEW_LEFT, MANY_LEFT = 0.1, 0.5  # fractions of all workers
# Apache's defaults for ServerLimit and ThreadsPerChild, from the documentation of mpm_common and of each MPM.
_DEFAULTS = {"prefork": (256, 1), "worker": (16, 25), "event": (16, 25)}
_OWN_PORT = Advice(
    "Give the relay a port of its own that bypasses Apache; nginx next to Apache holds thousands of "
    "clients (docs/apache.md)."
)


class Directive(NamedTuple):
    """A directive of Apache's configuration."""

    name: str  # in lower case
    values: list[str]
    module: str  # of the <IfModule> around it, if that is about an MPM


class Workers(NamedTuple):
    """How many requests and clients an Apache serves at a time: `limit` (MaxRequestWorkers)."""

    mpm: str
    limit: int
    ports: frozenset[int]

    def report(self, report: Report, connected: int) -> None:
        """Report how many workers the relay's `connected` connections leave, and what to do if these are few."""
        counts = (
            f"mpm_{self.mpm} with {self.limit} workers (MaxRequestWorkers) and {connected} connections to the relay"
        )
        found = f"{counts} now; each open tab holds a worker"
        left = 1 - connected / self.limit
        if left <= FEW_LEFT:
            report.fail("Apache", f"{found}, and the site does not answer if none is free", *self._more())
        elif self.mpm == "prefork":
            found += ", which is a whole process here, and prefork starts new ones slowly"
            event = Advice("Or use mpm_event with php-fpm, whose workers are threads (docs/apache.md).")
            report.warn("Apache", found, _OWN_PORT, event)
        elif left <= MANY_LEFT:
            report.warn("Apache", found, *self._more())
        else:
            report.ok("Apache", found)

    def _more(self) -> list[Advice]:
        """Return what to do to get more workers."""
        if self.mpm == "prefork":
            return [_OWN_PORT]
        children = -(-self.limit * 4 // 64)
        lines = (f"ServerLimit {children * 2}", "ThreadsPerChild 64", f"MaxRequestWorkers {children * 64}")
        sentence = f"Or raise the limit in mpm_{self.mpm}.conf and restart Apache (graceful keeps the old one):"
        return [_OWN_PORT, Advice(sentence, lines)]


def workers_of(port: int) -> Workers | None:
    """Return the workers of the Apache on this machine that listens on this port; None if none is found."""
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
    """Read an Apache's configuration. Return None if it loads no known MPM. Raises OSError."""
    directives = list(_directives(file, _root_of(file), 0))
    loaded = (re.fullmatch(r"mpm_(\w+)_module", each.values[0]) for each in directives if _is(each, "loadmodule"))
    mpm = next((found[1] for found in loaded if found), "")
    if mpm not in _DEFAULTS:
        return None
    counts = {}
    for each in directives:  # the last one counts
        if each.values and each.values[0].isdigit() and (not each.module or mpm in each.module):
            counts[each.name] = int(each.values[0])
    servers, threads = _DEFAULTS[mpm]
    threads = counts.get("threadsperchild", threads) if mpm != "prefork" else 1
    bound = counts.get("serverlimit", servers) * threads
    limit = counts.get("maxrequestworkers", counts.get("maxclients", bound))
    ports = (each.values[0].rpartition(":")[2] for each in directives if _is(each, "listen"))
    return Workers(mpm, max(1, min(limit, bound)), frozenset(int(port) for port in ports if port.isdigit()))


def _is(directive: Directive, name: str) -> bool:
    return directive.name == name and bool(directive.values)


def _root_of(file: pathlib.Path) -> pathlib.Path:
    """Return the folder from which relative paths in this configuration begin."""
    found = re.search(r'^\s*ServerRoot\s+"?([^"\n]+)', file.read_text("utf-8", "replace"), re.MULTILINE | re.IGNORECASE)
    return pathlib.Path(found[1].strip()) if found else file.parent


def _directives(file: pathlib.Path, root: pathlib.Path, depth: int) -> Iterator[Directive]:
    """Yield the directives of a file and of the files that it includes, in their order."""
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
            yield Directive(name, words[1:], next((each for each in modules if _is_mpm(each)), ""))


def _is_mpm(module: str) -> bool:
    return "mpm" in module or module in ("prefork.c", "worker.c", "event.c")


def _included(root: pathlib.Path, pattern: str) -> list[pathlib.Path]:
    base, rest = (pathlib.Path("/"), pattern[1:]) if pattern.startswith("/") else (root, pattern)
    try:
        found = sorted(base.glob(rest)) if rest else []
    except (ValueError, NotImplementedError):  # pathlib cannot use this pattern
        return []
    files = [file for each in found for file in (sorted(each.iterdir()) if each.is_dir() else [each])]
    return [each for each in files if each.is_file()]
