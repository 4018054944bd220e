"""`python relay.py doctor`: what keeps a push from arriving, and the lines that put it right."""

import argparse
import base64
import contextlib
import getpass
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from pushrelay.settings import SettingsError, load

from . import machine
from .report import Advice, Report, Stop

if TYPE_CHECKING:
    from pushrelay.client.dialer import Dialer

# However a server behaves: no answer is waited for longer than 10 s, and the relay's ping 65.
LONGEST = 240  # seconds


class TooLong(Exception):
    """The time is up."""


def examine(given: argparse.Namespace, flags: Mapping[str, str]) -> int:
    """Look at everything, say what is found, and return the exit code. Raises SettingsError for bad usage."""
    report = Report()
    try:
        public = public_dialer(given)
    except ModuleNotFoundError:
        machine.versions(report)
        return report.end()
    try:
        with ending_after(LONGEST):
            look(report, given, flags, public)
    except Stop:
        pass
    except TooLong:
        report.fail("the doctor", f"not done after {LONGEST} s")
    return report.end()


@contextlib.contextmanager
def ending_after(seconds: int) -> Iterator[None]:
    """Raise TooLong if it takes longer than this, on systems that can."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop_looking)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def public_dialer(given: argparse.Namespace) -> "Dialer | None":
    """The way from outside, where there is one to look at. Raises SettingsError, ModuleNotFoundError."""
    from pushrelay.client.address import address_of
    from pushrelay.client.dialer import Dialer
    from pushrelay.client.tls import tls_context

    if not given.url:
        if given.origin or given.connect or given.user:
            raise SettingsError(
                "--origin, --connect and --user are for the way from outside: doctor PUBLIC_URL --origin ORIGIN"
            )
        return None
    try:
        address = address_of(given.url)
        if given.origin:
            given.origin = address_of(given.origin).origin
        context = tls_context(given.ca or "", not given.insecure) if address.scheme == "https" else None
    except OSError as error:
        raise SettingsError(f"--ca {given.ca}: {error.strerror or error}") from None
    except ValueError as error:
        raise SettingsError(str(error)) from None
    return Dialer(address, context, given.connect or "", password_header(given.user))


def password_header(user: str | None) -> dict[str, str]:
    """Return what answers a web server that asks for a password. A name without a password has it asked for."""
    if not user:
        return {}
    name, colon, password = user.partition(":")
    if not colon:  # so it shows neither in the list of processes nor in the shell's history
        password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def look(report: Report, given: argparse.Namespace, flags: Mapping[str, str], public: "Dialer | None") -> None:
    """All checks in their order. Raises Stop where what follows cannot be looked at."""
    from pushrelay.cli.connecting import dialer_of

    from .hops import Relay, directly, running
    from .public import Public
    from .site import ask_site

    report.title("This machine")
    machine.versions(report)
    try:
        settings = load(flags=flags)
        dialer = dialer_of(settings)
    except SettingsError as error:
        report.stop("settings", str(error), Advice("docs/settings.md has them all, so has python relay.py --help."))
    process = machine.find_process(settings)
    machine.settings_found(report, settings)
    machine.clock(report, settings)
    machine.files(report, settings, process)
    machine.store(report, settings, process)
    machine.started_with(report, settings, process)
    ask_site(report, settings)
    report.title("Directly to the relay")
    running(report, flags, dialer)
    relay = directly(report, Relay(settings, dialer, machine.restarted(process)))
    if public is not None:
        report.title(f"Through {public.address.url}")
        Public(report, relay, public, given.origin, given.ca or "").follow(given.quick)


def stop_looking(*_: Any) -> NoReturn:
    raise TooLong
