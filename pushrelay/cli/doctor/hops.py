"""Checks of the relay at its own address, past every proxy: that it is healthy, and that a push arrives.

The checks through the public address use the same push (`round_trip`).
"""

import contextlib
import json
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

from pushrelay.access.instance import HEADER, SHOW_WORD
from pushrelay.cli.connecting import key_header, signed
from pushrelay.client.deadline import Reply
from pushrelay.client.dialer import Dialer
from pushrelay.client.errors import ClientError
from pushrelay.client.replies import read_object, receipt, refusal_message
from pushrelay.client.socketio_client import SocketIOClient
from pushrelay.settings import Settings

from . import starting
from .report import Advice, Report

POLL_HELD_SECONDS = 0.1  # that a poll is under way before the push
ARRIVAL_SECONDS = 5.0  # that a push may take; it takes milliseconds
TOKEN_SECONDS = 60
TRANSPORT_NAMES = {"websocket": "WebSocket", "polling": "long polling"}


class Relay(NamedTuple):
    """The relay that is examined, at its own address."""

    settings: Settings
    dialer: Dialer
    restart: str  # how to restart it, as the end of a sentence
    word: str = ""  # by which it recognizes the doctor (access/instance.py); empty if this caller may not know it

    def push(self, destination: str, data: str) -> dict[str, Any]:
        """Push without history (ttl 0), and return the receipt. Raises ClientError."""
        body = json.dumps({"destination": destination, "data": data, "ttl": 0}).encode()
        headers = {"Content-Type": "application/json", **key_header(self.settings)}
        reply = self.dialer.ask("POST", "push", body, headers)
        return receipt(reply, destination, self.dialer.address.url)

    def may_register(self) -> bool:
        """Return whether the doctor can register its own id."""
        return bool(self.settings.secret) or not (self.settings.id_cookie or self.settings.auth_url)


class NotRegistered(ClientError):
    """The relay refused to register. `error` is its error code."""

    def __init__(self, answer: Mapping[str, Any]):
        super().__init__(f"the relay refused to register: {answer.get('message')}")
        self.error = str(answer.get("error"))


class NotArrived(ClientError):
    """The relay accepted a push for `clients` clients, and it did not arrive."""

    def __init__(self, clients: Any):
        where = f"did not arrive within {ARRIVAL_SECONDS:g} s" if clients != 0 else "did not reach the registered one"
        super().__init__(f"the relay accepted a push for {clients} clients, and it {where}")
        self.clients = clients


def running(report: Report, flags: Mapping[str, str], dialer: Dialer) -> None:
    """Check that a program listens at the relay's address. Raises Stop."""
    try:
        dialer.open_tcp().close()
    except ClientError as error:
        start = "systemctl start relay" if starting.has_unit() else starting.start_command(flags)
        advice = [Advice("Start it:", (start,)), *starting.with_other_flags(flags)]
        report.stop("the relay", f"it is not running at {dialer.address.url}: {error}", *advice)


def health(report: Report, relay: Relay) -> Relay:
    """Check that the relay answers and takes pushes. Return it with its word. Raises Stop."""
    where = relay.dialer.address.url
    headers = {HEADER: SHOW_WORD, **key_header(relay.settings)}
    try:
        live, ready = relay.dialer.ask("GET", "health/live"), relay.dialer.ask("GET", "health/ready", headers=headers)
    except ClientError as error:
        hung = Advice(f"Read the relay's log; if it has nothing about this, {relay.restart}.")
        report.stop("the relay", f"it listens at {where}, but {error}", hung)
    if read_object(live).get("live") is not True:
        _stop_at_other(report, relay, live)
    if read_object(ready).get("ready") is not True:
        advice = Advice("docs/settings.md lists what to do about the store; the relay then resumes by itself.")
        report.stop("the relay", f"it takes no pushes: {read_object(ready).get('reason', ready.reason)}", advice)
    report.ok("the relay", f"runs at {where} and takes pushes")
    return relay._replace(word=str(report_in(ready).get("word", "")))


def _stop_at_other(report: Report, relay: Relay, reply: Reply) -> NoReturn:
    """Report that a relay with these settings would answer differently, and raise Stop."""
    where, message = relay.dialer.address.url, refusal_message(reply)
    if elsewhere := re.search(r"below (/[\w.~/-]+) \(setting base_path\)", message):
        advice = Advice(f"{_OTHER_SETTINGS} Or add:", (f"--base-path {elsewhere[1]}",))
        report.stop("the relay", f"it runs there, and all it has is below {elsewhere[1]} (setting base_path)", advice)
    if message and reply.status == 404 and relay.settings.base_path:
        advice = Advice(f"{_OTHER_SETTINGS} Or add:", ("--base-path /",))
        found = f"it runs there, but not below {relay.settings.base_path}, the base_path of these settings"
        report.stop("the relay", found, advice)
    if message:
        report.stop("the relay", f"it runs at {where}, and refuses: {message}", Advice("Follow this message."))
    by = f" ({reply.server})" if reply.server else ""
    sentence = "Stop that program, or give the relay another port, in [relay] and where PHP pushes:"
    report.stop(
        "the relay",
        f"another program{by} has the port: {where} answers {reply.status}",
        Advice(sentence, ("port = 8081",)),
        Advice(f"If the relay runs on another port: {_OTHER_SETTINGS}"),
    )


_OTHER_SETTINGS = (
    "The doctor has other settings than the relay: run it with the relay's own --config, flags and RELAY_* variables."
)
# A relay with the doctor's settings does not answer the doctor with these errors.
_ERRORS_OF_OTHERS = (
    "missing_token",
    "invalid_token",
    "not_allowed",
    "missing_cookie",
    "invalid_cookie",
    "auth_not_available",
)


def report_in(reply: Reply) -> dict[str, Any]:
    """Return what the relay reports to the doctor in a header; empty if it reports nothing."""
    try:
        found = json.loads(reply.headers.get(HEADER, ""))
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}


def about_registering(error: ClientError, relay: Relay) -> list[Advice]:
    """Return what to do if the relay refuses to register, or accepts no push."""
    if isinstance(error, NotRegistered) and error.error in _ERRORS_OF_OTHERS:
        return [Advice(_OTHER_SETTINGS + _difference(error.error))]
    if error.reply is not None and error.reply.status in (401, 403):
        return [Advice(f"{_OTHER_SETTINGS} Its push_keys are others, for example.")]
    return [Advice(f"Read the relay's log; if it has nothing about this, {relay.restart}.")]


def _difference(error: str) -> str:
    if error == "missing_token":
        return " These have no secret."
    if error == "invalid_token":
        return " Their secret is another one."
    return " The relay has id_cookie or auth_url."


def directly(report: Report, relay: Relay) -> Relay:
    """Check a push over each transport, past every proxy. Return the relay with its word. Raises Stop."""
    relay = health(report, relay)
    if not relay.may_register():
        with_push(report, relay)
        return relay
    for transport in ("polling", "websocket"):
        what = f"{TRANSPORT_NAMES[transport]}, directly"
        try:
            with opened(relay.dialer, transport) as client:
                took = round_trip(relay, client)
        except ClientError as error:
            report.stop(what, str(error), *about_registering(error, relay))
        report.ok(what, f"a push arrives, {took * 1000:.1f} ms after it was sent")
    return relay


def with_push(report: Report, relay: Relay) -> None:
    """Check that a push is accepted. No more is possible if only the site's visitors can register. Raises Stop."""
    name = "id_cookie" if relay.settings.id_cookie else "auth_url"
    try:
        relay.push(some_id(), "from the doctor")
    except ClientError as error:
        report.stop("pushing", str(error), *about_registering(error, relay))
    report.ok("pushing", "a push is taken")
    found = f"with {name} and no secret only your visitors can, so the doctor cannot see a push arrive"
    report.warn("registering", found)


@contextlib.contextmanager
def opened(dialer: Dialer, transport: str, headers: Mapping[str, str] | None = None) -> Iterator[SocketIOClient]:
    """Connect a client, and close it at the end of the block. Raises ClientError."""
    with contextlib.closing(SocketIOClient(dialer, transport, headers)) as client:
        yield client


def some_id() -> str:
    """Return a destination that nobody else has."""
    return f"doctor-{secrets.token_hex(8)}"


def round_trip(relay: Relay, client: SocketIOClient) -> float:
    """Register, push, and return how many seconds the push took to arrive. Raises ClientError.

    Return 0 if only the site's visitors can register, because then there is nothing to test.
    """
    if not relay.may_register():
        return 0.0
    destination = some_id()
    request = {"id": destination}
    if relay.settings.secret:
        request["token"] = signed(relay.settings, [destination], seconds=TOKEN_SECONDS)
    answer = client.call("register", request)
    if answer.get("ok") is not True:
        raise NotRegistered(answer)
    # A proxy must forward a response while it still holds the request, so the poll must be held before the push.
    client.next_event(POLL_HELD_SECONDS)
    began = time.monotonic()
    delivered = relay.push(destination, "from the doctor").get("connections")
    end = began + (0.0 if delivered == 0 else ARRIVAL_SECONDS)
    while (left := end - time.monotonic()) > 0 and (found := client.next_event(left)):
        if found[1].get("destination") == destination:
            return time.monotonic() - began
    raise NotArrived(delivered)
