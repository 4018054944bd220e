"""Pushing, listening and signing from a terminal: what `python relay.py push`, `listen` and `token` do."""

import argparse
import json
import re
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pushrelay.access.tokens import sign
from pushrelay.client.dialer import TIMEOUT, Dialer, Trouble, address_of
from pushrelay.client.replies import receipt
from pushrelay.client.socketio_client import TRANSPORTS, Visitor
from pushrelay.pages.demo import address
from pushrelay.settings import Settings, SettingsError, load

from . import streams
from .commands import complain, printable, warn_of_flags

# Between two attempts to connect, doubled each time, and less by chance so that not all come back at once.
RECONNECT, RECONNECT_MAX = 1.0, 30.0
DRAIN_MAX = 3600.0  # seconds: no relay asks its clients to stay away for longer
SIGNED_FOR = 3600  # seconds; who connects again signs anew


def dialer_of(settings: Settings, url: str | None = None) -> Dialer:
    """The way to the relay: at `url`, or where the settings have it. Raises SettingsError."""
    if not url and not settings.port and not settings.host.startswith("unix:"):
        raise SettingsError("port = 0 lets the system choose: say where the relay is with --url or --port")
    try:
        at = address_of(url or address(settings, settings.port)[0])
    except ValueError as error:
        raise SettingsError(str(error)) from None
    return Dialer(at._replace(path=f"{settings.base_path}/") if at.unix else at)


def key_header(settings: Settings, key: str | None = None) -> dict[str, str]:
    """What says to the relay that this program may push; nothing where there is no key."""
    key = key or (settings.push_keys[0].key if settings.push_keys else "")
    if not re.fullmatch("[!-~]*", key):
        raise SettingsError("--key has a character that no key has: a space, a line break or a letter beyond ASCII")
    return {"Authorization": f"Bearer {key}"} if key else {}


def signed(settings: Settings, ids: Sequence[str], push: Sequence[str] = (), seconds: float = SIGNED_FOR) -> str:
    """A token for these ids. There must be a secret."""
    claims = {"ids": list(ids), **({"push": list(push)} if push else {}), "exp": int(time.time() + seconds)}
    return sign(claims, settings.secret[0])


def push(given: argparse.Namespace, flags: Mapping[str, str]) -> int:
    settings = load(flags=flags)
    text = _read_input() if given.data == "-" else given.data
    try:
        data = json.loads(text) if given.json else text
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"DATA is not JSON ({error}); without --json it is taken as text") from None
    optional = {name: getattr(given, name) for name in ("event", "ttl", "id", "wait")}
    fields = {"destination": given.destination, "data": data}
    fields |= {name: value for name, value in optional.items() if value is not None}
    headers = {"Content-Type": "application/json", **key_header(settings, given.key)}
    dialer = dialer_of(settings, given.url and given.url.rstrip("/").removesuffix("/push"))
    try:
        reply = dialer.ask("POST", "push", json.dumps(fields).encode(), headers, TIMEOUT + (given.wait or 0))
        receipt(reply, given.destination, dialer.address.url)
    except Trouble as error:
        if error.reply is not None:
            return complain(str(error))
        return complain(f"{dialer.address.url}: {error}; is the relay running? (python relay.py doctor)")
    _print(reply.body.decode("utf-8", "replace").strip())
    warn_of_flags(given)
    return 0


def _read_input() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError:
        raise SettingsError("what comes on the standard input is not UTF-8 text") from None
    except OSError as error:
        raise SettingsError(f"the standard input cannot be read ({error.strerror})") from None


def token(given: argparse.Namespace, flags: Mapping[str, str]) -> int:
    settings = load(flags=flags)
    if not settings.secret:
        return complain(
            "there is no secret to sign with, so the relay takes no tokens: set secret in [relay], the same as PHP has"
        )
    _print(signed(settings, given.ids, given.push or (), given.expires))
    warn_of_flags(given)
    return 0


def listen(given: argparse.Namespace, flags: Mapping[str, str]) -> int:
    settings = load(flags=flags)
    warn_of_flags(given)  # now: it may run for hours
    listener = Listener(settings, dialer_of(settings, given.url), given.destinations, given.token, given.raw)
    try:
        listener.run()
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        streams.drop(sys.stdout)
        return 0
    finally:
        listener.close()
    return 1


class Listener:
    """Registers, prints, and comes back when the connection is lost, with what it has had last."""

    def __init__(self, settings: Settings, dialer: Dialer, ids: Sequence[str], token: str | None, raw: bool):
        self._settings = settings
        self._dialer = dialer
        self._ids = list(dict.fromkeys(ids))
        self._token = token
        self._raw = raw
        self._visitor: Visitor | None = None
        self._positions: dict[str, str] = {}  # of what was printed last, or of where listening began
        self._failures = 0  # since it was online

    def run(self) -> None:
        """Listen until the relay refuses these ids, which is said."""
        while True:
            wait = 0.0
            try:
                self._visitor = self._connect()
                if not self._register(self._visitor):
                    return
                wait = self._print_all(self._visitor)
            except Trouble as error:
                if self._failures == 0:
                    _say(f"offline: {error}")
                most = min(RECONNECT_MAX, RECONNECT * 2**self._failures)
                wait = secrets.SystemRandom().uniform(0, most)
                self._failures = min(self._failures + 1, 10)
            self.close()
            time.sleep(wait)

    def close(self) -> None:
        if self._visitor is not None:
            self._visitor.close()
            self._visitor = None

    def _connect(self) -> Visitor:
        """WebSocket, or long polling where that fails."""
        for transport in TRANSPORTS:
            try:
                return Visitor(self._dialer, transport)
            except Trouble as error:
                last = error
        raise last

    def _register(self, visitor: Visitor) -> bool:
        before = dict(self._positions)
        asking: dict[str, Any] = {"id": self._ids, **({"since": before} if before else {})}
        if self._token or self._settings.secret:
            asking["token"] = self._token or signed(self._settings, self._ids)
        answer = visitor.call("register", asking)
        if answer.get("ok") is not True:
            why = str(answer.get("message", "the relay refused to register"))
            if answer.get("error") == "store_not_available":
                raise Trouble(why)
            complain(why)
            return False
        if not _is_registration(answer, self._ids):
            raise Trouble(self._not_a_relay())
        self._failures = 0
        lost = [each for each in before if not answer["ids"][each]["recovered"]]
        for each, state in answer["ids"].items():
            if each not in before or each in lost:
                self._positions[each] = state["position"]
        state = f"lost: {', '.join(lost)} (what came meanwhile is not kept)" if lost else "recovered"
        _say(state if before else "online")
        return True

    def _print_all(self, visitor: Visitor) -> float:
        """Print until the relay asks to come back later, and return in how many seconds."""
        while True:
            found = visitor.next_event(visitor.patience)
            if found is None:
                continue
            name, body = found
            if name == "relay_drain":
                delay = body.get("reconnect_in_ms")
                if not _is_number(delay) or not 0 <= delay <= DRAIN_MAX * 1000:
                    raise Trouble(self._not_a_relay())
                _say("offline: the relay is being restarted")
                return delay / 1000
            if name == "relay_error":
                _say(f"the relay says: {body.get('message')}")
            elif "destination" in body:
                self._print(name, body)

    def _not_a_relay(self) -> str:
        return f"something other than a relay answered at {self._dialer.address.url}: check the address"

    def _print(self, event: str, body: dict[str, Any]) -> None:
        data, destination = body.get("data"), body["destination"]
        if not isinstance(destination, str) or not isinstance(body.get("id", ""), str):
            raise Trouble(self._not_a_relay())
        line = {"destination": destination, "id": body.get("id"), "event": event, "data": data}
        _print(data if self._raw and isinstance(data, str) else _json(data if self._raw else line))
        if body.get("id"):
            self._positions[destination] = body["id"]


def _is_registration(answer: Mapping[str, Any], ids: Sequence[str]) -> bool:
    """Whether a relay may have answered this to a `register`: where each id stands, and whether it was recovered."""
    states = answer.get("ids")
    if not isinstance(states, dict) or states.keys() != set(ids):
        return False
    return all(
        isinstance(state, dict) and isinstance(state.get("position"), str) and isinstance(state.get("recovered"), bool)
        for state in states.values()
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _print(line: str) -> None:
    sys.stdout.buffer.write(line.encode("utf-8", "replace") + b"\n")
    sys.stdout.buffer.flush()


def _say(state: str) -> None:
    streams.complain(printable(state))
