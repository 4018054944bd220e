"""Straight to the relay: is it well, and does a push arrive? And what the way through the public address shares."""

import contextlib
import json
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..answers import read_object, receipt
from ..settings import Settings
from ..terminal import key_header, signed
from ..visitor import Visitor
from ..web import Dialer, Trouble
from . import machine
from .report import Advice, Report

HELD = 0.1  # seconds that a poll is under way before something is pushed
ARRIVAL = 5.0  # seconds that a push may take; it takes milliseconds
NAMES = {"websocket": "WebSocket", "polling": "long polling"}


class Relay(NamedTuple):
    """The relay that is examined, at its own address."""

    settings: Settings
    dialer: Dialer
    restart: str  # what brings a change of the settings into force

    def push(self, destination: str, data: str) -> dict:
        """Push something that is not kept. Raises Trouble."""
        body = json.dumps({"destination": destination, "data": data, "ttl": 0}).encode()
        headers = {"Content-Type": "application/json", **key_header(self.settings)}
        reply = self.dialer.ask("POST", "push", body, headers)
        return receipt(reply, destination, self.dialer.address.url)

    def may_register(self) -> bool:
        """Whether the doctor can register an id of its own."""
        return bool(self.settings.secret) or not (self.settings.id_cookie or self.settings.auth_url)


def running(report: Report, flags: Mapping[str, str], dialer: Dialer) -> None:
    """Whether something listens at the relay's address. Raises Stop."""
    try:
        dialer.open_tcp().close()
    except Trouble as error:
        start = "systemctl start relay" if machine.has_unit() else machine.start_command(flags)
        report.stop("the relay", f"it is not running at {dialer.address.url}: {error}", Advice("Start it:", (start,)))


def health(report: Report, relay: Relay) -> None:
    """Whether it is the relay that answers there, and whether it takes pushes. Raises Stop."""
    where = relay.dialer.address.url
    try:
        live, ready = relay.dialer.ask("GET", "health/live"), relay.dialer.ask("GET", "health/ready")
    except Trouble as error:
        hung = Advice(f"Look into its log; if that says nothing, {relay.restart}.")
        report.stop("the relay", f"it listens at {where}, but {error}", hung)
    if read_object(live).get("live") is not True:
        by = f" ({live.server})" if live.server else ""
        advice = Advice(
            "Stop that one, or give the relay a port of its own, in [relay] and where PHP pushes:", ("port = 8081",)
        )
        report.stop("the relay", f"another program{by} has the port: {where} answers {live.status}", advice)
    if read_object(ready).get("ready") is not True:
        advice = Advice("docs/settings.md says what to do about the store. It goes on by itself then.")
        report.stop("the relay", f"it takes no pushes: {read_object(ready).get('reason', ready.reason)}", advice)
    report.ok("the relay", f"runs at {where} and takes pushes")


def directly(report: Report, relay: Relay) -> None:
    """A push over each transport, past every proxy. Raises Stop."""
    health(report, relay)
    if not relay.may_register():
        with_push(report, relay)
        return
    for transport in ("polling", "websocket"):
        what = f"{NAMES[transport]}, directly"
        try:
            with opened(relay.dialer, transport) as visitor:
                took = round_trip(relay, visitor)
        except Trouble as error:
            advice = Advice(f"Its log says more; if that does not help, {relay.restart}.")
            report.stop(what, str(error), advice)
        report.ok(what, f"a push arrives, {took * 1000:.1f} ms after it was sent")


def with_push(report: Report, relay: Relay) -> None:
    """All that can be tried where who registers must be a visitor of the site. Raises Stop."""
    name = "id_cookie" if relay.settings.id_cookie else "auth_url"
    try:
        relay.push(some_id(), "from the doctor")
    except Trouble as error:
        report.stop("pushing", str(error))
    report.ok("pushing", "a push is taken")
    report.warn("registering", f"with {name} and no secret only your visitors can, so no push is seen to arrive")


@contextlib.contextmanager
def opened(dialer: Dialer, transport: str, headers: Mapping[str, str] | None = None) -> Iterator[Visitor]:
    """A visitor that goes at the end. Raises Trouble."""
    with contextlib.closing(Visitor(dialer, transport, headers)) as visitor:
        yield visitor


def some_id() -> str:
    """A destination that nobody else has."""
    return f"doctor-{secrets.token_hex(8)}"


def round_trip(relay: Relay, visitor: Visitor) -> float:
    """Register, push, and wait until it arrives: the seconds that took. Raises Trouble with what went wrong.

    Where nobody but a visitor may register, there is nothing to try, and it is nothing.
    """
    if not relay.may_register():
        return 0.0
    destination = some_id()
    asking = {"id": destination}
    if relay.settings.secret:
        asking["token"] = signed(relay.settings, [destination], seconds=60)
    answer = visitor.call("register", asking)
    if answer.get("ok") is not True:
        raise Trouble(f"to register was refused: {answer.get('message')}")
    # A proxy must pass an answer on while it holds the question, so a poll is given time to be held.
    visitor.next_event(HELD)
    began = time.monotonic()
    handed = relay.push(destination, "from the doctor").get("connections")
    end = began + ARRIVAL
    while (left := end - time.monotonic()) > 0 and (found := visitor.next_event(left)):
        if found[1].get("destination") == destination:
            return time.monotonic() - began
    raise Trouble(f"a push was taken, for {handed} clients, and did not arrive within {ARRIVAL:g} s")
