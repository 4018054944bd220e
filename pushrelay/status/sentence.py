"""One sentence about how the relay is doing, written from its figures: what matters most, and what to do about it.

Each check returns a Verdict if it applies. The first Verdict decides, so the checks are in order of importance.
"""

import shlex
from typing import NamedTuple

from .recorder import Restart
from .words import clock_time, counted, duration, number, percent, sentence, size, split_advice

OK, WARN, BAD = "ok", "warn", "bad"

NEAR = 80  # percent of a limit
FEW_DISK = 128 << 20  # bytes that are free on the disk
FEW_CLIENTS = 5  # with fewer, their transports show nothing about the proxy
FEW_PUSHES = 20  # with fewer, a share of them means nothing
MOSTLY_NOBODY = 90  # percent of the publications
MANY_REFUSED = 5  # percent of the pushes
LOCKED = "holds a lock on the store"  # in the reason, if another program keeps the store from being written


class Verdict(NamedTuple):
    """The state of the relay, for people."""

    level: str  # OK, WARN or BAD
    code: str
    sentence: str
    more: str = ""  # a second sentence
    todo: str = ""  # what to do; a whole sentence, which ends with a colon if `command` belongs to it
    command: str = ""  # for a shell


class State(NamedTuple):
    """The figures that the sentence is about. Counts are those of the last hour; None: not known."""

    reason: str | None = None  # why the relay is not ready
    is_draining: bool = False
    backend: tuple[tuple[str, str], ...] = ()  # the parts that do not work, and why
    drain_spread: float = 5.0
    kind: str = "sqlite"  # of the store
    store_path: str = ""  # of its file, if the caller may know it
    history_ttl: float = 3600.0
    covers: float = 3600.0  # seconds that the counts are about
    clients: int = 0
    websocket: int = 0
    lately_clients: int = 0  # over the last minute, all transports together
    lately_websocket: int = 0
    clients_limit: int | None = None
    limited_by: str = "max_connections"
    open_files: int | None = None
    files_limit: int | None = None
    outbox_bytes: int | None = None
    outbox_limit: int | None = None
    store_bytes: int | None = None
    store_limit: int | None = None
    disk_free: int | None = None
    nodes: int = 1
    pushes: int = 0  # accepted
    refused: int = 0
    failed: int = 0
    pushes_ever: int = 0  # since the start
    publications: int = 0
    nobody: int = 0
    lost: int = 0
    restart: Restart | None = None
    curl: str = ""  # a command that pushes
    doctor: str = ""  # a command that checks the proxy


def verdict(state: State) -> Verdict:
    """Return the verdict of the first check that applies."""
    for check in (_draining, _not_ready, _failed, _backend, _lost, _limits, _polling, _nobody, _refused):
        if found := check(state):
            return found
    return _fine(state)


def _draining(state: State) -> Verdict | None:
    if not state.is_draining:
        return None
    return Verdict(
        BAD,
        "draining",
        f"The relay is stopping. Its browsers reconnect within {duration(state.drain_spread + 1)}.",
        todo="If nobody stopped it on purpose, check its service:",
        command="systemctl status relay",
    )


def _not_ready(state: State) -> Verdict | None:
    if not state.reason:
        return None
    what, todo = split_advice(state.reason)
    command = ""
    if LOCKED in state.reason and state.store_path:
        todo = "Stop the program that has the file open. This command shows it:"
        command = f"fuser -v {shlex.quote(state.store_path)}"
    return Verdict(
        BAD,
        "redis" if state.kind == "redis" else "store",
        f"Pushes are refused: {what.removesuffix('.')}.",
        "Browsers stay connected. Publishers get a 503 and can send their pushes again later.",
        sentence(todo) if not command else todo,
        command,
    )


def _failed(state: State) -> Verdict | None:
    if not state.failed:
        return None
    return Verdict(
        WARN,
        "failed",
        f"Ready again. The store did not accept {counted(state.failed, 'push', 'pushes')} in {_period(state)}.",
        "Their publishers got a 503. Pushes that were not sent again are missing.",
        "The log has the reason. With a spool, such pushes wait until the relay takes them (docs/spool.md).",
    )


_PARTS = {"outbox": "The outbox does", "spool": "The spool does", "presence": "Presence does"}
_PARTS |= {"webhooks": "Webhooks do", "requests": "Requests from pages do"}


def _backend(state: State) -> Verdict | None:
    if not state.backend:
        return None
    name, reason = state.backend[0]
    what, todo = split_advice(reason)
    others = ", ".join(each for each, _ in state.backend[1:])
    more = f"Nor do these work: {others}." if others else "Pushes and browsers are not affected."
    subject = _PARTS.get(name, f"{name} does")
    todo, _, command = (each.strip() for each in todo.partition("  "))  # as messages have it
    return Verdict(WARN, "backend", f"{subject} not work: {what.removesuffix('.')}.", more, sentence(todo), command)


def _lost(state: State) -> Verdict | None:
    if not state.lost:
        return None
    times = "Once" if state.lost == 1 else f"{number(state.lost)} times"
    return Verdict(
        WARN,
        "lost",
        f"{times} in {_period(state)}, a browser came back and something it had missed was no longer kept.",
        _restart(state),
        f"Raise history_ttl if visitors are away for longer than {duration(state.history_ttl)}, or history_size if one "
        "id gets many pushes.",
    )


def _limits(state: State) -> Verdict | None:
    checks = (
        ("near_clients", state.clients, state.clients_limit, "browsers are connected", _more_clients(state)),
        ("near_files", state.open_files, state.files_limit, "files and connections are open", _MORE_FILES),
    )
    for code, used, limit, what, todo in checks:
        if used is not None and limit and 100 * used >= NEAR * limit:
            return Verdict(WARN, code, f"{number(used)} of at most {number(limit)} {what}.", todo=todo)
    if state.outbox_bytes and state.outbox_limit and 100 * state.outbox_bytes >= NEAR * state.outbox_limit:
        what = f"{size(state.outbox_bytes)} of at most {size(state.outbox_limit)} are waiting for slow browsers."
        return Verdict(WARN, "near_outbox", what, todo="Push less data, or raise max_outboxes if there is memory.")
    if state.disk_free is not None and state.disk_free < FEW_DISK:
        what = f"Only {size(state.disk_free)} is free on the disk of the store."
        return Verdict(WARN, "near_disk", what, "When it is full, pushes are refused.", "Free some space.")
    if state.store_bytes and state.store_limit and 100 * state.store_bytes >= NEAR * state.store_limit:
        what = f"The store uses {size(state.store_bytes)} of {size(state.store_limit)} (history_bytes)."
        more = f"Beyond that, pushes are dropped before they are {duration(state.history_ttl)} old (history_ttl)."
        return Verdict(WARN, "near_store", what, more, "Raise history_bytes, or lower history_ttl or history_size.")
    return None


_MORE_FILES = "Raise the limit on open files: LimitNOFILE= in the relay's service, or ulimit -n."


def _more_clients(state: State) -> str:
    return "Raise max_connections." if state.limited_by == "max_connections" else _MORE_FILES


def _polling(state: State) -> Verdict | None:
    polling = state.clients - state.websocket
    if state.clients < FEW_CLIENTS or 2 * polling <= state.clients:
        return None
    if 2 * state.lately_websocket >= state.lately_clients:
        return None  # they have just connected, and are about to upgrade
    return Verdict(
        WARN,
        "polling",
        f"{number(polling)} of {number(state.clients)} browsers use long polling instead of WebSocket.",
        "They receive every push, but each poll costs as much as a push.",
        "Usually, a proxy does not forward the header Upgrade. The doctor checks it" + (":" if state.doctor else "."),
        state.doctor,
    )


def _nobody(state: State) -> Verdict | None:
    share = percent(state.nobody, state.publications)
    if share is None or state.publications < FEW_PUSHES or share < MOSTLY_NOBODY:
        return None
    if state.nobody == state.publications:
        what = f"No push in {_period(state)} reached a browser."
    else:
        what = f"{share} % of the pushes in {_period(state)} reached no browser."
    return Verdict(
        WARN,
        "nobody",
        what,
        "That is normal if you push to people who are not online.",
        "Otherwise, compare the ids under “Pushes that reached nobody” with those that your pages register.",
    )


def _refused(state: State) -> Verdict | None:
    share = percent(state.refused, state.pushes + state.refused)
    if share is None or state.refused < FEW_CLIENTS or share < MANY_REFUSED:
        return None
    what = f"{counted(state.refused, 'push', 'pushes')} in {_period(state)} {_was(state.refused)} refused."
    return Verdict(
        WARN, "refused", what, todo="The answer to each push has the reason, and the log has a line for each cause."
    )


def _fine(state: State) -> Verdict:
    if not (state.pushes_ever or state.pushes or state.refused or state.restart):
        what = f"Ready. {_browsers(state)} No pushes yet."
        todo = "Push something:" if state.curl else ""
        return Verdict(OK, "empty", what, todo=todo, command=state.curl)
    code = "restart" if state.restart else "fine"
    return Verdict(OK, code, f"Ready. {_browsers(state)} {_pushes(state)}", _restart(state))


def _browsers(state: State) -> str:
    where = f" at this node, one of {number(state.nodes)}" if state.nodes > 1 else ""
    if not state.clients:
        return f"No browser is connected{where}."
    who = counted(state.clients, "browser") + where
    if state.clients == 1:
        return f"{who}, by {'WebSocket' if state.websocket else 'long polling'}."
    if state.websocket in (0, state.clients):
        return f"{who}, all by {'WebSocket' if state.websocket else 'long polling'}."
    return f"{who}, {percent(state.websocket, state.clients)} % by WebSocket."


def _pushes(state: State) -> str:
    sent = state.pushes + state.refused
    if not sent:
        return f"No pushes in {_period(state)}."
    if not state.refused:
        return f"{'The only' if sent == 1 else 'Every'} push in {_period(state)} was accepted."
    if state.refused == sent:
        every = "The only push" if sent == 1 else f"All {number(sent)} pushes"
        return f"{every} in {_period(state)} {_was(sent)} refused."
    return f"{number(state.refused)} of {number(sent)} pushes in {_period(state)} {_was(state.refused)} refused."


def _restart(state: State) -> str:
    """Return the sentence about the last restart, or an empty text."""
    if (restart := state.restart) is None:
        return ""
    # After a kill, this is known only to the second: a running relay notes once a second that it is alive.
    away = duration(restart.away if restart.was_stopped else max(1.0, restart.away))
    back = f"Back after {away} at {clock_time(restart.at)}"
    if not restart.clients_before:
        return f"{back}. Nobody had been connected."
    if restart.came_back < restart.clients_before:
        came = f"{number(restart.came_back)} of {counted(restart.clients_before, 'browser')} came back"
    else:
        came = f"{number(restart.came_back)} came back"
    return f"{back}: {came}, {number(restart.recovered)} recovered, {number(restart.lost)} lost."


def _period(state: State) -> str:
    return "the last hour" if state.covers >= 3570 else f"the last {duration(max(1.0, round(state.covers)))}"


def _was(count: int) -> str:
    return "was" if count == 1 else "were"
