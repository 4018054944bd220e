"""How the relay is started here: its process and settings, compared with the doctor's own, and how to restart it."""

import pathlib
import shlex
import sys
from collections.abc import Mapping

from pushrelay.cli.flags import parse_flags
from pushrelay.places import PROGRAM
from pushrelay.settings import NAMES, Settings, SettingsError, load
from pushrelay.settings.values import without_password

from .process import Process, listener, started_from
from .report import Advice, Report

# The settings that the doctor works with, so its values must be the relay's.
_USED = (
    "base_path",
    "push_keys",
    "secret",
    "id_cookie",
    "auth_url",
    "auth_ca",
    "webhook_secret",
    "request_url",
    "origins",
    "trusted_proxies",
    "socket_push",
    "ping_interval",
    "ping_timeout",
)


def find_process(settings: Settings) -> Process | None:
    """Return the process at the relay's address; None if there is none, or no /proc."""
    try:
        return listener(settings)
    except OSError:
        return None


def started_with(report: Report, settings: Settings, process: Process | None) -> None:
    """Check that the running relay was started with the settings that the doctor has."""
    if process and process.unit:
        report.ok("systemd", f"{process.unit} runs the relay")
    if not process or not process.folder:
        return
    _compare_file(report, settings, process, process.folder)
    try:
        others = _differing(settings, process, process.folder)
    except SettingsError:  # the relay's file now has a mistake, which the relay reports at its next start
        return
    if others:
        found = f"the relay was started with other values than the doctor for: {', '.join(others)}"
        advice = Advice("Run the doctor with the same --config, flags and RELAY_* variables, or the results are wrong.")
        report.warn("settings", found, advice)


def _compare_file(report: Report, settings: Settings, process: Process, folder: pathlib.Path) -> None:
    if process.config:
        config = folder / process.config
        if settings.file is None or settings.file.resolve() != config.resolve():
            found = f"the relay was started with --config {config}, and the doctor reads another file"
            sentence = "Add this, and the relay's RELAY_* variables, or the results may be wrong:"
            report.warn("settings", found, Advice(sentence, (f"--config {config}",)))
            return
    if settings.file and process.started and settings.file.stat().st_mtime > process.started + 1:
        found = (
            f"{settings.file} was changed after the relay was started: unless it was reloaded, it has other settings"
        )
        report.warn("settings", found, Advice(f"To apply the changes, {reloading(process)}."))


def _differing(settings: Settings, process: Process, folder: pathlib.Path) -> list[str]:
    """Return the settings in which the running relay and the doctor differ. Raises SettingsError."""
    if process.environ is None:
        return []
    script = next((n for n, word in enumerate(process.command) if word.endswith("relay.py")), None)
    flags = {} if script is None else parse_flags(list(process.command[script + 1 :]))[0]
    named = flags.get("config") or process.environ.get("RELAY_CONFIG")
    if named:
        flags["config"] = str(folder / named)
    relays = load(process.environ, flags)
    return [name for name in _USED if getattr(relays, name) != getattr(settings, name)]


def start_command(flags: Mapping[str, str]) -> str:
    """Return the command that starts the relay with the doctor's own flags."""
    return shlex.join([sys.executable, str(PROGRAM), *_written_flags(flags)])


def with_other_flags(given: Mapping[str, str]) -> list[Advice]:
    """Return what to do if relays of this folder run with other flags than the doctor was given."""
    found: dict[str, None] = {}
    for folder, words in started_from(PROGRAM):
        try:
            flags = {} if {"--check", "--help", "-h", "--version"} & set(words) else parse_flags(list(words))[0]
        except SettingsError:  # it runs a command such as `push`
            continue
        if "config" in flags:
            flags["config"] = str(folder / flags["config"])
        if flags and flags != given:
            found[shlex.join(_written_flags(flags))] = None
    return [Advice(f"Or, for the relay that runs with these flags, run the doctor with them: {each}") for each in found]


def _written_flags(flags: Mapping[str, str]) -> list[str]:
    return [f"--{name.replace('_', '-')}={_without_secret(name, text)}" for name, text in flags.items()]


def _without_secret(name: str, text: str) -> str:
    return "…" if name in NAMES and NAMES[name].secret else without_password(text)


def has_unit() -> bool:
    """Return whether systemd has a unit for the relay."""
    return any(
        pathlib.Path(folder, "relay.service").exists() for folder in ("/etc/systemd/system", "/lib/systemd/system")
    )


def reloading(process: Process) -> str:
    """Return how to apply changed settings, as the end of a sentence."""
    if process.unit:
        reload = f"systemctl reload {process.unit.removesuffix('.service')}"
        return f"{reload} (or restart, for the settings that need it: see its log)"
    return "send SIGHUP to the relay (its log names settings that need a restart), or stop it and start it again"


def restarting(process: Process | None) -> str:
    """Return how to restart the relay, as the end of a sentence."""
    if process and process.unit:
        return f"systemctl restart {process.unit.removesuffix('.service')}"
    return "stop the relay and start it again"
