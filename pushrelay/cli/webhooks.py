"""`python relay.py webhooks`: what waits for each URL, another attempt at once, and dropping what waits."""

import argparse
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from pushrelay.client.errors import ClientError
from pushrelay.client.replies import not_a_relay, read_object, refusal_message
from pushrelay.settings import SettingsError, load

from .connecting import dialer_of, key_header
from .flags import warn_of_secrets
from .output import fail, print_data, printable


def webhooks(given: argparse.Namespace, flags: Mapping[str, str]) -> int:
    """Ask the running relay, print what it did, and return the exit code. Raises SettingsError for bad usage."""
    settings = load(flags=flags)
    method, query = _request(given)
    dialer = dialer_of(settings, given.url)
    target = "webhooks" + (f"?{urlencode(query)}" if query else "")
    try:
        reply = dialer.ask(method, target, headers=key_header(settings, given.key))
    except ClientError as error:
        return fail(f"{dialer.address.url}: {error}; is the relay running? (python relay.py doctor)")
    if reply.status != 200:
        return fail(refusal_message(reply) or not_a_relay(reply, dialer.address.url))
    answer = read_object(reply)
    for line in _shown(answer) if given.action == "show" else _done(given.action, answer):
        print_data(printable(line))
    warn_of_secrets(given)
    return 0


def _request(given: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Return the method and the query for an action."""
    which = {"url": given.which} if given.which else {}
    if given.before is not None and given.action != "drop":
        raise SettingsError("--before is for drop: relay.py webhooks drop --before 1h")
    if given.action == "show":
        if which:
            raise SettingsError("show lists all URLs: leave out the URL")
        return "GET", {}
    if given.action == "retry":
        return "POST", {"action": "retry", **which}
    if given.action == "resume":
        if not which:
            raise SettingsError("name the URL, or its number in webhook_url: relay.py webhooks resume 1")
        return "POST", {"action": "resume", **which}
    if not which and given.before is None:
        raise SettingsError("name what to drop: relay.py webhooks drop URL, or drop --before 0s for everything")
    before = {} if given.before is None else {"before": f"{time.time() - given.before:.3f}"}
    return "DELETE", {**which, **before}


def _shown(answer: Mapping[str, Any]) -> list[str]:
    """Return the lines that show the state of each URL."""
    urls = answer.get("urls") or []
    lines = [] if urls else ["no URL gets events: set webhook_url or request_url"]
    if name := answer.get("sender"):
        lines.append(f"the relay {name} sends the events")
    for each in urls:
        counts = f"{each.get('sent')} sent, {each.get('failed')} requests failed, {each.get('dropped')} dropped"
        lines.append(f"{each.get('url')}: {each.get('address')}: {_state_of(each)}")
        lines.append(f"    {each.get('waiting')} waiting, the oldest for {each.get('oldest_seconds')} s; {counts}")
    return lines


def _state_of(url: Mapping[str, Any]) -> str:
    state = url.get("state")
    if state == "failing":
        return f"it takes no events: {url.get('error')} (next attempt in {url.get('retry_in')} s)"
    if state == "unsubscribed":
        return f"it unsubscribed with status 410; to send again: relay.py webhooks resume {url.get('url')}"
    return "another relay sends to it" if state == "elsewhere" else "it takes events"


def _done(action: str, answer: Mapping[str, Any]) -> list[str]:
    """Return the lines that say what was done."""
    if action == "drop":
        dropped = (answer.get("dropped") or {}).items()
        return [f"{label}: {count} event{'' if count == 1 else 's'} dropped" for label, count in dropped]
    verb = "the next attempt is made now" if action == "retry" else "it gets events again"
    return [f"{label}: {verb}" for label in answer.get("urls") or ()]
