"""`python relay.py listen`: print what is pushed to some destinations, also across lost connections."""

import argparse
import json
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from pushrelay.client.dialer import Dialer
from pushrelay.client.errors import ClientError
from pushrelay.client.socketio_client import TRANSPORTS, SocketIOClient
from pushrelay.settings import Settings, load

from .connecting import dialer_of, signed
from .flags import warn_of_secrets
from .output import discard, fail, print_data, print_status

# Seconds between two attempts to connect. The bound doubles with each failure, and the delay is random below it, so
# that listeners of the same relay do not all return at once.
FIRST_RETRY, LAST_RETRY = 1.0, 30.0
DRAIN_MAX = 3600.0  # seconds; no relay asks its clients to stay away longer


def listen(given: argparse.Namespace, flags: Mapping[str, str]) -> int:
    """Print pushes until Ctrl+C or a refusal, and return the exit code. Raises SettingsError."""
    settings = load(flags=flags)
    warn_of_secrets(given)  # before it starts, because it may run for hours
    listener = Listener(settings, dialer_of(settings, given.url), given.destinations, given.token, given.raw)
    try:
        listener.run()
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        discard(sys.stdout)
        return 0
    finally:
        listener.close()
    return 1


class Listener:
    """Registers, prints every push, and after a lost connection resumes from the last position.

    `token` replaces one signed with the secret of the settings. With `raw` only the data is printed.
    """

    def __init__(self, settings: Settings, dialer: Dialer, ids: Sequence[str], token: str | None, raw: bool):
        self._settings = settings
        self._dialer = dialer
        self._ids = list(dict.fromkeys(ids))
        self._token = token
        self._raw = raw
        self._client: SocketIOClient | None = None
        self._positions: dict[str, str] = {}  # by destination: of the last printed push, or of the registration
        self._failures = 0  # since the last registration

    def run(self) -> None:
        """Listen until the relay refuses these ids, and print the reason."""
        while True:
            wait = 0.0
            try:
                self._client = self._connect()
                if not self._register(self._client):
                    return
                wait = self._print_all(self._client)
            except ClientError as error:
                if self._failures == 0:
                    print_status(f"offline: {error}")
                bound = min(LAST_RETRY, FIRST_RETRY * 2**self._failures)
                wait = secrets.SystemRandom().uniform(0, bound)
                self._failures = min(self._failures + 1, 10)
            self.close()
            time.sleep(wait)

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connect(self) -> SocketIOClient:
        """Connect over WebSocket, or by long polling if that fails. Raises ClientError."""
        for transport in TRANSPORTS:
            try:
                return SocketIOClient(self._dialer, transport)
            except ClientError as error:
                last = error
        raise last

    def _register(self, client: SocketIOClient) -> bool:
        """Register the ids. Return False if they are refused. Raises ClientError if another attempt may succeed."""
        before = dict(self._positions)
        request: dict[str, Any] = {"id": self._ids, **({"since": before} if before else {})}
        if self._token or self._settings.secret:
            request["token"] = self._token or signed(self._settings, self._ids)
        answer = client.call("register", request)
        if answer.get("ok") is not True:
            why = str(answer.get("message", "the relay refused to register"))
            if answer.get("error") == "store_not_available":
                raise ClientError(why)
            fail(why)
            return False
        if not _is_registration(answer, self._ids):
            raise ClientError(self._not_a_relay())
        self._failures = 0
        self._note_positions(before, answer["ids"])
        return True

    def _note_positions(self, before: Mapping[str, str], states: Mapping[str, Any]) -> None:
        """Keep the positions at which listening begins, and print whether anything was lost since `before`."""
        lost = [each for each in before if not states[each]["recovered"]]
        for each, state in states.items():
            if each not in before or each in lost:
                self._positions[each] = state["position"]
        if lost:
            print_status(f"lost: {', '.join(lost)} (some pushes from the time offline are no longer kept)")
        else:
            print_status("recovered" if before else "online")

    def _print_all(self, client: SocketIOClient) -> float:
        """Print pushes until the relay asks to come back later. Return in how many seconds. Raises ClientError."""
        while True:
            found = client.next_event(client.patience)
            if found is None:
                continue
            name, body = found
            if name == "relay_drain":
                delay = body.get("reconnect_in_ms")
                if not _is_number(delay) or not 0 <= delay <= DRAIN_MAX * 1000:
                    raise ClientError(self._not_a_relay())
                print_status("offline: the relay is being restarted")
                return delay / 1000
            if name == "relay_error":
                print_status(f"the relay reports: {body.get('message')}")
            elif "destination" in body:
                self._print(name, body)

    def _not_a_relay(self) -> str:
        return f"something other than a relay answered at {self._dialer.address.url}: check the address"

    def _print(self, event: str, body: dict[str, Any]) -> None:
        data, destination = body.get("data"), body["destination"]
        if not isinstance(destination, str) or not isinstance(body.get("id", ""), str):
            raise ClientError(self._not_a_relay())
        line = {"destination": destination, "id": body.get("id"), "event": event, "data": data}
        print_data(data if self._raw and isinstance(data, str) else _json(data if self._raw else line))
        if body.get("id"):
            self._positions[destination] = body["id"]


def _is_registration(answer: Mapping[str, Any], ids: Sequence[str]) -> bool:
    """Return whether this is a relay's answer to `register`: a position for each id, and whether it was recovered."""
    states = answer.get("ids")
    if not isinstance(states, dict) or states.keys() != set(ids):
        return False
    return all(
        isinstance(state, dict) and isinstance(state.get("position"), str) and isinstance(state.get("recovered"), bool)
        for state in states.values()
    )


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
