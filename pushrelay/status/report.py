"""The contents of GET /status.json: figures, the last hour, and the sentence. docs/status.md describes each field."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from pushrelay import __version__
from pushrelay.access.callers import Access
from pushrelay.access.exposure import reach, warnings, written
from pushrelay.log.problems import Problems
from pushrelay.settings import Settings
from pushrelay.settings.values import is_redis

from . import meanings, process
from .figures import Figures, quantile, since
from .recorder import LATENCY, Recorder, Restart
from .rings import GAP, LENGTH, SERIES, STEP, shown
from .sentence import State, Verdict, verdict
from .slow_facts import SlowFacts
from .words import percent, split_advice

TOP = 10  # destinations
LONGEST = 300  # characters of a text
MOST_LISTED = 20  # origins, proxies, warnings
LATELY = 6  # steps: a minute
Names = list[tuple[str, int]]


@dataclasses.dataclass(frozen=True)
class Sources:
    """The sources of the figures. Any thread may call each function, and none of them waits."""

    settings: Callable[[], Settings]
    figures: Callable[[], Figures]
    recorder: Recorder
    slow: SlowFacts
    problems: Problems
    access: Access
    # Returns why the relay is not ready, or None. Called with False, it returns a text for everybody, without paths.
    reason: Callable[[bool], str | None]
    is_draining: Callable[[], bool]
    most_connected: Callable[[int], Names]  # destinations with the most connections
    most_pushed: Callable[[int], Names]
    least_reached: Callable[[int], Names]  # destinations of most of the publications that reached nobody
    renew: Callable[[], None]  # restarts the counts of the two before it
    backend: Callable[[bool], dict[str, dict[str, Any]]]  # the parts that serve it, by name: see Backend.facts()
    clients_limit: Callable[[], tuple[int | None, str]]  # and what sets it
    curl: Callable[[], str]  # a command that pushes, for this machine
    doctor: str  # a command that checks the proxy
    server: str
    node: str
    python: str
    commit: str | None
    store_path: str | None
    has_own_broker: bool


class Report:
    """The figures at one moment, for callers on this machine (`is_local`) or for everybody."""

    def __init__(self, sources: Sources, is_local: bool):
        self._from, self._is_local = sources, is_local
        self._settings = sources.settings()
        self._figures = sources.figures()
        self._hour = sources.recorder.snapshot()
        self._reason = sources.reason(is_local)
        self._backend = sources.backend(is_local)
        self._restart = sources.recorder.restart(self._figures)
        # Whoever knows the value of a session cookie can log in with it, so nobody may see it.
        self._hides_names = not is_local or bool(self._settings.id_cookie)

    def facts(self) -> dict[str, Any]:
        """Return everything but the history."""
        clients, store, pushes = self._clients(), self._store(), self._pushes()
        files = _of_limit("open", self._from.slow.open_files, process.files_limit())
        own = self._process()
        return {
            "now": round(time.time(), 3),
            "local": self._is_local,
            "verdict": self._verdict(clients, store, pushes, files, own)._asdict(),
            "state": self._state(),
            "relay": self._relay(),
            "clients": clients,
            "files": files,
            "pushes": pushes,
            "deliveries": self._rate_and_total("deliveries"),
            "latency": self._latency(),
            "recoveries": self._recoveries(),
            "restart": None if self._restart is None else self._restart_facts(self._restart),
            "store": store,
            "backend": self._backend,
            "process": own,
            "problems": [self._problem(each) for each in self._from.problems.latest()],
            "access": self._access() if self._is_local else None,
            "busiest": {
                "connections": self._names(self._from.most_connected(TOP)),
                "pushes": self._names(self._from.most_pushed(TOP)),
            },
        }

    def history(self) -> dict[str, Any]:
        """Return the last hour, which changes once in a step."""
        hour = self._hour
        return {
            "step": STEP,
            "length": LENGTH,
            "end": round(hour.end, 3),
            "covers": round(hour.covers()),
            "series": {name: shown(hour.rings.series(name)) for name in SERIES},
            "marks": [{"at": round(each.at, 3), "kind": each.kind, "text": each.text} for each in hour.marks],
        }

    # The parts.

    def _verdict(self, clients: Any, store: Any, pushes: Any, files: Any, own: Any) -> Verdict:
        hour = self._hour
        return verdict(
            State(
                reason=self._reason,
                is_draining=self._from.is_draining(),
                drain_spread=self._settings.drain_spread,
                backend=tuple((name, part["trouble"]) for name, part in self._backend.items() if part["trouble"]),
                kind=store["kind"],
                store_path=(self._from.store_path or "") if self._is_local else "",
                history_ttl=self._settings.history_ttl,
                covers=hour.covers(),
                clients=clients["now"],
                websocket=clients["websocket"],
                lately_clients=sum(hour.rings.known("clients", LATELY)),
                lately_websocket=sum(hour.rings.known("websocket", LATELY)),
                clients_limit=clients["limit"],
                limited_by=clients["limit_by"],
                open_files=files["open"],
                files_limit=files["limit"],
                outbox_bytes=own["outbox_bytes"],
                outbox_limit=own["outbox_limit"],
                store_bytes=store["bytes"],
                store_limit=store["limit"],
                disk_free=store["disk_free"],
                nodes=self._figures.whole("relay_nodes") or 1,
                pushes=pushes["hour"],
                refused=pushes["refused"],
                failed=pushes["failed"],
                pushes_ever=pushes["total"],
                publications=pushes["publications"],
                nobody=pushes["nobody"] or 0,
                lost=hour.total("lost", self._figures),
                restart=self._restart,
                curl=self._from.curl() if self._is_local else "",
                doctor=self._from.doctor,
            )
        )

    def _state(self) -> dict[str, Any]:
        since_ = self._from.recorder.note_state(self._reason)
        ready = self._reason is None
        draining = self._from.is_draining()
        return {"ready": ready, "reason": self._reason, "draining": draining, "since": round(since_, 3)}

    def _relay(self) -> dict[str, Any]:
        origin, started = self._from, self._from.recorder.started
        return {
            "version": __version__,
            "commit": origin.commit,
            "python": origin.python,
            "server": origin.server,
            "node": origin.node,
            "started": round(started, 3),
            "up": round(origin.recorder.up(), 1),
        }

    def _clients(self) -> dict[str, Any]:
        figures, hour = self._figures, self._hour
        now = figures.whole("relay_clients")
        websocket = figures.whole("relay_clients", transport="websocket")
        limit, limit_by = self._from.clients_limit()
        return {
            "now": now,
            "websocket": websocket,
            "polling": now - websocket,
            "websocket_percent": percent(websocket, now),
            "most": max([now, *hour.rings.known("clients")]),
            "limit": limit,
            "limit_by": limit_by,
            "percent": _percent(now, limit),
            "registrations": figures.whole("relay_registrations"),
            "destinations": figures.whole("relay_destinations"),
            "connects": hour.total("connects", figures),
            "connects_rate": round(hour.rate("connects", figures), 2),
            "closed": meanings.rows(figures.by("reason", "relay_disconnects_total"), "reason", meanings.DISCONNECTS),
        }

    def _pushes(self) -> dict[str, Any]:
        figures, hour = self._figures, self._hour
        publications = hour.total("publications", figures)
        is_known = figures.number("relay_unreached_total") is not None
        nobody = min(hour.total("nobody", figures), publications) if is_known else None
        return {
            **self._rate_and_total("pushes"),
            "refused": hour.total("refused", figures),
            "failed": hour.total("failed", figures),
            "total": figures.whole("relay_pushes_total", result="accepted"),
            "refusals": meanings.rows(figures.by("code", "relay_refusals_total"), "code", meanings.REFUSALS),
            "publications": publications,
            "nobody": nobody,
            "nobody_percent": None if nobody is None else percent(nobody, publications),
            "nobody_to": self._names(self._from.least_reached(TOP)),
        }

    def _rate_and_total(self, name: str) -> dict[str, Any]:
        hour = self._hour
        return {"rate": round(hour.rate(name, self._figures), 2), "hour": hour.total(name, self._figures)}

    def _latency(self) -> dict[str, float | None]:
        all_ = since(self._figures.histogram(LATENCY), self._hour.latency_before)
        found = {"p50": quantile(all_, 0.5), "p99": quantile(all_, 0.99)}
        for name in ("p50", "p99"):
            known = [each for each in self._hour.rings.series(f"{name}_us")[-LATELY:] if each != GAP]
            found[f"{name}_now"] = known[-1] / 1e6 if known else None
        return {name: None if seconds is None else round(seconds, 6) for name, seconds in found.items()}

    def _recoveries(self) -> dict[str, int]:
        figures, hour = self._figures, self._hour
        counts = {name: hour.total(name, figures) for name in ("recovered", "lost")}
        return {**counts, "replayed": figures.whole("relay_replayed_total")}

    def _restart_facts(self, restart: Restart) -> dict[str, Any]:
        facts = {**restart._asdict(), "at": round(restart.at, 3), "away": round(restart.away, 1)}
        facts["clean"] = facts.pop("was_stopped")
        return facts

    def _store(self) -> dict[str, Any]:
        figures, slow, settings = self._figures, self._from.slow, self._settings
        used, limit = figures.number("relay_store_bytes"), figures.number("relay_store_limit_bytes")
        survey, commits = slow.survey, figures.histogram("relay_store_commit_seconds")
        trouble = None if self._from.is_draining() else self._reason
        is_on_redis = is_redis(settings.broker) and not self._from.has_own_broker
        kind = "own" if self._from.has_own_broker else "redis" if is_on_redis else settings.broker.partition(":")[0]
        oldest = None if survey is None or survey.oldest is None else max(0.0, time.time() - survey.oldest)
        return {
            "kind": kind,
            "trouble": trouble,
            "trouble_since": round(self._from.recorder.note_state(self._reason), 3) if trouble else None,
            "publications": None if survey is None else survey.publications,
            "bytes": None if used is None else int(used),
            "limit": None if limit is None else int(limit),
            "percent": _percent(used, limit),
            "oldest": None if oldest is None else round(oldest, 1),
            "history_ttl": settings.history_ttl,
            "commit_p99": _rounded(quantile(commits, 0.99)),
            "disk_free": slow.disk_free if self._is_local else None,
            "redis": self._redis() if is_on_redis else None,
        }

    def _redis(self) -> dict[str, Any]:
        figures = self._figures
        echo = figures.histogram("relay_redis_echo_seconds")
        return {
            "up": bool(figures.whole("relay_redis_up")),
            "echo_p50": _rounded(quantile(echo, 0.5)),
            "echo_p99": _rounded(quantile(echo, 0.99)),
            "cuts": figures.whole("relay_redis_cuts_total"),
            "nodes": figures.whole("relay_nodes"),
            "resyncs_lost": figures.whole("relay_resyncs_total", result="lost"),
        }

    def _process(self) -> dict[str, Any]:
        figures = self._figures
        cpu = [each for each in self._hour.rings.known("cpu_permille", 1) if self._hour.steps]
        names = {"threads_busy": "relay_poller_threads", "threads": "relay_poller_threads_limit"}
        names |= {"outbox_bytes": "relay_outbox_bytes", "outbox_limit": "relay_outbox_limit_bytes"}
        names["outbox_clients"] = "relay_outbox_clients"
        numbers = {name: figures.number(metric) for name, metric in names.items()}
        return {
            "memory": process.memory(),
            "cpu_percent": cpu[0] / 10 if cpu else None,
            **{name: None if value is None else int(value) for name, value in numbers.items()},
        }

    def _problem(self, problem: Any) -> dict[str, Any]:
        """Return a problem. Texts name visitors' addresses and the machine's files, so not everybody gets them."""
        text, todo = split_advice(problem.text) if self._is_local else (None, None)
        level = "error" if problem.is_error else "warning"
        times = {"first": round(problem.first, 3), "last": round(problem.last, 3), "count": problem.times}
        return {**times, "level": level, "text": text, "todo": todo}

    def _access(self) -> dict[str, Any]:
        settings, access = self._settings, self._from.access
        seen = [
            {"address": address, "count": count, "trusted": access.trusts(address)}
            for address, count in access.proxies_seen.counts()
        ]
        return {
            "lines": [{"what": what, "who": _short(who)} for what, who in reach(settings)],
            "warnings": [_short(each.removeprefix("warning: ")) for each in warnings(settings)[:MOST_LISTED]],
            "origins": [_short(each) for each in settings.origins[:MOST_LISTED]],
            "trusted_proxies": [written([each]) for each in settings.trusted_proxies[:MOST_LISTED]],
            "proxies_seen": seen,
        }

    def _names(self, names: Names) -> list[dict[str, Any]]:
        show = _masked if self._hides_names else _shown_name
        return [{"name": show(name), "count": count} for name, count in names]


def _percent(part: float | None, whole: float | None) -> float | None:
    return round(100 * part / whole, 1) if part is not None and whole else None


def _of_limit(name: str, used: int | None, limit: int | None) -> dict[str, Any]:
    return {name: used, "limit": limit, "percent": _percent(used, limit)}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _shown_name(name: str) -> str:
    return f"{name[:80]}…" if len(name) > 80 else name


def _masked(name: str) -> str:
    """Return the first character of a name: enough to tell your own names apart, too little to use one."""
    return f"{name[:1]}…"
