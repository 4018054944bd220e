"""`python relay.py doctor`: find out what keeps pushes from arriving, and print how to fix it."""

import argparse
import base64
import contextlib
import getpass
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NoReturn

from pushrelay.settings import SettingsError, load

from . import configuration, machine, starting
from .outbox_table import outbox_table
from .report import Advice, Report, Stop
from .spool_folder import spool_folder

if TYPE_CHECKING:
    from pushrelay.client.dialer import Dialer

# An upper bound for servers that misbehave. No single response takes longer than 10 s, the relay's ping at most 65 s.
LONGEST_SECONDS = 240


class TooLong(Exception):
    """The doctor has run for LONGEST_SECONDS."""


def examine(given: argparse.Namespace, flags: Mapping[str, str]) -> int:
    """Run all checks, print what they find, and return the exit code. Raises SettingsError for bad usage.

    If a package is missing, the report is about the packages only.
    """
    report = Report()
    try:
        public = public_dialer(given)
    except ModuleNotFoundError:
        machine.versions(report)
        if not report.failures:  # it is not one of the packages in requirements.txt
            raise
        return report.end()
    try:
        with ending_after(LONGEST_SECONDS):
            run_checks(report, given, flags, public)
    except Stop:
        pass
    except TooLong:
        report.fail("the doctor", f"not done after {LONGEST_SECONDS} s", Advice("Run it again with --quick."))
    return report.end()


@contextlib.contextmanager
def ending_after(seconds: int) -> Iterator[None]:
    """Raise TooLong if the block takes more than `seconds`. Systems without SIGALRM have no such limit."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, _time_is_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _time_is_up(*_: object) -> NoReturn:
    raise TooLong


def public_dialer(given: argparse.Namespace) -> "Dialer | None":
    """Return a dialer for PUBLIC_URL; None without one. Raises SettingsError and ModuleNotFoundError."""
    from pushrelay.client.address import address_of
    from pushrelay.client.dialer import Dialer
    from pushrelay.client.tls import tls_context

    if not given.url:
        if given.origin or given.connect or given.user:
            raise SettingsError("--origin, --connect and --user need a PUBLIC_URL: doctor PUBLIC_URL --origin ORIGIN")
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
    """Return the header for a web server that asks for a password (RFC 7617); empty without a `user`.

    `user` is NAME:PASSWORD, or NAME alone: then the password is read from the terminal or the standard input, and
    appears neither in the list of processes nor in the shell's history.
    """
    if not user:
        return {}
    name, colon, password = user.partition(":")
    if not colon:
        password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def run_checks(report: Report, given: argparse.Namespace, flags: Mapping[str, str], public: "Dialer | None") -> None:
    """Run all checks in their order. Raises Stop after the first on which the others depend."""
    from pushrelay.cli.connecting import dialer_of

    from .hops import Relay, directly, running
    from .public import Public
    from .site import ask_for_request, ask_site

    report.title("This machine")
    machine.versions(report)
    try:
        settings = load(flags=flags)
        dialer = dialer_of(settings)
    except SettingsError as error:
        advice = Advice("All settings are in docs/settings.md, and python relay.py --help lists them.")
        report.stop("settings", str(error), advice)
    process = starting.find_process(settings)
    configuration.settings_found(report, settings)
    machine.clock(report, settings)
    machine.files(report, settings, process)
    machine.store(report, settings, process)
    outbox_table(report, settings)
    spool_folder(report, settings)
    starting.started_with(report, settings, process)
    ask_site(report, settings)
    ask_for_request(report, settings)
    report.title("Directly to the relay")
    running(report, flags, dialer)
    relay = directly(report, Relay(settings, dialer, starting.restarting(process)))
    if public is not None:
        report.title(f"Through {public.address.url}")
        Public(report, relay, public, given.origin, given.ca or "").follow(given.quick)
