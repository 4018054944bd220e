"""Straight to the relay: is it well, and does a push arrive? And what the way through the public address shares."""

import contextlib
import json
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

from pushrelay.access.instance import ASKING, HEADER
from pushrelay.cli.connecting import key_header, signed
from pushrelay.client.deadline import Reply
from pushrelay.client.dialer import Dialer
from pushrelay.client.errors import ClientError
from pushrelay.client.replies import read_object, receipt, refusal_message
from pushrelay.client.socketio_client import SocketIOClient
from pushrelay.settings import Settings

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
    word: str = ""  # see instance.py; empty if the relay does not show it to this caller

    def push(self, destination: str, data: str) -> dict:
        """Push something that is not kept. Raises ClientError."""
        body = json.dumps({"destination": destination, "data": data, "ttl": 0}).encode()
        headers = {"Content-Type": "application/json", **key_header(self.settings)}
        reply = self.dialer.ask("POST", "push", body, headers)
        return receipt(reply, destination, self.dialer.address.url)

    def may_register(self) -> bool:
        """Whether the doctor can register an id of its own."""
        return bool(self.settings.secret) or not (self.settings.id_cookie or self.settings.auth_url)


class NotRegistered(ClientError):
    """The relay refused to register. `error` is its word for the reason."""

    def __init__(self, answer: Mapping[str, Any]):
        super().__init__(f"to register was refused: {answer.get('message')}")
        self.error = str(answer.get("error"))


class NotArrived(ClientError):
    """A push was taken, for this many clients, and did not come."""

    def __init__(self, clients: Any):
        what = f"and did not arrive within {ARRIVAL:g} s" if clients != 0 else "so not for the one that registered"
        super().__init__(f"a push was taken, for {clients} clients, {what}")
        self.clients = clients


def running(report: Report, flags: Mapping[str, str], dialer: Dialer) -> None:
    """Whether something listens at the relay's address. Raises Stop."""
    try:
        dialer.open_tcp().close()
    except ClientError as error:
        start = "systemctl start relay" if machine.has_unit() else machine.start_command(flags)
        advice = [Advice("Start it:", (start,)), *machine.with_other_flags(flags)]
        report.stop("the relay", f"it is not running at {dialer.address.url}: {error}", *advice)


def health(report: Report, relay: Relay) -> Relay:
    """Whether the relay answers there, and takes pushes. Returns it with its word. Raises Stop."""
    where = relay.dialer.address.url
    asking = {HEADER: ASKING, **key_header(relay.settings)}
    try:
        live, ready = relay.dialer.ask("GET", "health/live"), relay.dialer.ask("GET", "health/ready", headers=asking)
    except ClientError as error:
        hung = Advice(f"Look into its log; if that has nothing, {relay.restart}.")
        report.stop("the relay", f"it listens at {where}, but {error}", hung)
    if read_object(live).get("live") is not True:
        _stop_at_other(report, relay, live)
    if read_object(ready).get("ready") is not True:
        advice = Advice("docs/settings.md says what to do about the store. It goes on by itself then.")
        report.stop("the relay", f"it takes no pushes: {read_object(ready).get('reason', ready.reason)}", advice)
    report.ok("the relay", f"runs at {where} and takes pushes")
    return relay._replace(word=str(report_in(ready).get("word", "")))


def _stop_at_other(report: Report, relay: Relay, reply: Reply) -> NoReturn:
    """Something answers, but not as the relay of these settings does. Raises Stop."""
    where, said = relay.dialer.address.url, refusal_message(reply)
    if elsewhere := re.search(r"below (/[\w.~/-]+) \(setting base_path\)", said):
        advice = Advice(f"{_OTHER_SETTINGS} Or add:", (f"--base-path {elsewhere[1]}",))
        report.stop("the relay", f"it runs there, and all it has is below {elsewhere[1]} (setting base_path)", advice)
    if said and reply.status == 404 and relay.settings.base_path:
        advice = Advice(f"{_OTHER_SETTINGS} Or add:", ("--base-path /",))
        found = f"it runs there, but not below {relay.settings.base_path}, the base_path of these settings"
        report.stop("the relay", found, advice)
    if said:
        report.stop("the relay", f"it runs at {where}, and refuses: {said}", Advice("Do what its message says."))
    by = f" ({reply.server})" if reply.server else ""
    sentence = "Stop that one, or give the relay a port of its own, in [relay] and where PHP pushes:"
    report.stop(
        "the relay",
        f"another program{by} has the port: {where} answers {reply.status}",
        Advice(sentence, ("port = 8081",)),
        Advice(f"If the relay runs on another port: {_OTHER_SETTINGS}"),
    )


_OTHER_SETTINGS = (
    "The doctor has other settings than the relay: run it with the relay's own --config, flags and RELAY_* variables."
)
# Refusals that a relay of the same settings does not give to the doctor.
_OTHER = ("missing_token", "invalid_token", "not_allowed", "missing_cookie", "invalid_cookie", "auth_not_available")


def report_in(reply: Reply) -> dict[str, Any]:
    """Return what the relay reports to the doctor in a header; empty if it reports nothing."""
    try:
        told = json.loads(reply.headers.get(HEADER, ""))
    except (ValueError, RecursionError):
        told = None
    return told if isinstance(told, dict) else {}


def about_registering(error: ClientError, relay: Relay) -> list[Advice]:
    """Return what to do if the relay refuses to register, or takes no push."""
    if isinstance(error, NotRegistered) and error.error in _OTHER:
        return [Advice(_OTHER_SETTINGS + _lacking(error.error, relay.settings))]
    if error.reply is not None and error.reply.status in (401, 403):
        return [Advice(f"{_OTHER_SETTINGS} Its push_keys are others, for example.")]
    return [Advice(f"Its log has more; if that does not help, {relay.restart}.")]


def _lacking(error: str, settings: Settings) -> str:
    if error == "missing_token":
        return " These have no secret."
    if error == "invalid_token":
        return " Their secret is another one."
    return " The relay has id_cookie or auth_url."


def directly(report: Report, relay: Relay) -> Relay:
    """A push over each transport, past every proxy. Returns the relay with its word. Raises Stop."""
    relay = health(report, relay)
    if not relay.may_register():
        with_push(report, relay)
        return relay
    for transport in ("polling", "websocket"):
        what = f"{NAMES[transport]}, directly"
        try:
            with opened(relay.dialer, transport) as client:
                took = round_trip(relay, client)
        except ClientError as error:
            report.stop(what, str(error), *about_registering(error, relay))
        report.ok(what, f"a push arrives, {took * 1000:.1f} ms after it was sent")
    return relay


def with_push(report: Report, relay: Relay) -> None:
    """All that can be tried where who registers must be a visitor of the site. Raises Stop."""
    name = "id_cookie" if relay.settings.id_cookie else "auth_url"
    try:
        relay.push(some_id(), "from the doctor")
    except ClientError as error:
        report.stop("pushing", str(error), *about_registering(error, relay))
    report.ok("pushing", "a push is taken")
    report.warn("registering", f"with {name} and no secret only your visitors can, so no push is seen to arrive")


@contextlib.contextmanager
def opened(dialer: Dialer, transport: str, headers: Mapping[str, str] | None = None) -> Iterator[SocketIOClient]:
    """A visitor that goes at the end. Raises ClientError."""
    with contextlib.closing(SocketIOClient(dialer, transport, headers)) as client:
        yield client


def some_id() -> str:
    """A destination that nobody else has."""
    return f"doctor-{secrets.token_hex(8)}"


def round_trip(relay: Relay, client: SocketIOClient) -> float:
    """Register, push, and wait until it arrives: the seconds that took. Raises ClientError with what went wrong.

    Where nobody but a visitor may register, there is nothing to try, and it is nothing.
    """
    if not relay.may_register():
        return 0.0
    destination = some_id()
    asking = {"id": destination}
    if relay.settings.secret:
        asking["token"] = signed(relay.settings, [destination], seconds=60)
    answer = client.call("register", asking)
    if answer.get("ok") is not True:
        raise NotRegistered(answer)
    # A proxy must pass an answer on while it holds the question, so a poll is given time to be held.
    client.next_event(HELD)
    began = time.monotonic()
    handed = relay.push(destination, "from the doctor").get("connections")
    end = began + (0.0 if handed == 0 else ARRIVAL)
    while (left := end - time.monotonic()) > 0 and (found := client.next_event(left)):
        if found[1].get("destination") == destination:
            return time.monotonic() - began
    raise NotArrived(handed)
