"""This machine: what the relay runs on, and what it was told."""

import importlib.metadata
import os
import pathlib
import re
import select
import shlex
import shutil
import stat
import sys
import time
from collections.abc import Mapping

from pushrelay.cli.exposure import ENOUGH_KEY, ENOUGH_SECRET
from pushrelay.cli.flags import parse_flags
from pushrelay.cli.guessing import is_guessable
from pushrelay.places import HOME, PROGRAM
from pushrelay.settings import NAMES, Settings, SettingsError, load

from .process import Process, listener, started_from
from .report import Advice, Report

OLDEST_PYTHON = (3, 11)
WEAK_SECRET = 16  # bytes: fewer can be found by trying, from a single token
WEAK_KEY = 16  # characters
KNOWN_WORDS = {"changeme", "password", "passwort", "secret", "geheim", "12345678", "relay", "test", "example"}
LITTLE_SPACE = 64 << 20  # bytes
ENOUGH_CLIENTS = 10_000  # for somebody who has not said how many (max_connections)
# What the doctor goes by, so that it must have it as the relay has it.
_GUIDING = ("base_path", "push_keys", "secret", "id_cookie", "auth_url", "auth_ca", "origins", "trusted_proxies")
_GUIDING += ("socket_push", "ping_interval", "ping_timeout")
GENERATE = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"


def versions(report: Report) -> None:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST_PYTHON:
        report.fail(
            "Python", f"{found}, and the relay needs 3.11", Advice("On Debian 12 it is python3; make a venv anew.")
        )
    else:
        report.ok("Python", f"{found}, {sys.executable}")
    wrong = [each for each in _requirements() if not _is_met(*each)]
    if not wrong:
        report.ok("packages", "all that requirements.txt names, in the versions that it asks for")
        return
    said = ", ".join(f"{name} is {_version(name) or 'missing'}, and {asked} is needed" for name, asked in wrong)
    command = f"{sys.executable} -m pip install -r {HOME / 'requirements.txt'}"
    report.fail("packages", said, Advice("Run:", (command,)))


def _requirements() -> list[tuple[str, str]]:
    lines = (HOME / "requirements.txt").read_text("utf-8").splitlines()
    found = (re.match(r"([\w.-]+)(?:\[[^\]]*\])?\s*([<>=!~][^;#]*)?", line) for line in lines)
    return [(each[1], (each[2] or "").strip()) for each in found if each]


def _is_met(name: str, asked: str) -> bool:
    """Whether a package is there in a version that `>=` and `<` allow; other signs are not in our file."""
    version = _numbers(_version(name))
    bounds = re.findall(r"(>=|<)\s*([\d.]+)", asked)
    return bool(version) and all(
        version >= _numbers(bound) if sign == ">=" else version < _numbers(bound) for sign, bound in bounds
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", re.split(r"[a-z+-]", version)[0])))


def settings_found(report: Report, settings: Settings) -> None:
    report.ok("settings", f"sound ({settings.file or 'no file, all defaults'})")
    if not hasattr(select, "epoll") or settings.server == "werkzeug":
        why = "as the setting server says" if hasattr(select, "epoll") else "because this system has no epoll"
        report.warn("server", f"Werkzeug's, {why}: each client takes several threads, good for some hundred of them")
    _check_words(report, settings)
    if settings.file and _holds_secrets(settings.file) and settings.file.stat().st_mode & 0o004:
        advice = Advice("Let the relay's user alone read it:", (f"chmod o-rwx {shlex.quote(str(settings.file))}",))
        report.warn("settings file", f"every user of this machine can read {settings.file}, secrets too", advice)


def _holds_secrets(file: pathlib.Path) -> bool:
    names = "|".join(setting.name for setting in NAMES.values() if setting.secret)
    pattern = rf"^\s*(({names})\s*[=:]\s*\S|auth_url\s*[=:]\s*\S+//.*@)"
    return bool(re.search(pattern, file.read_text("utf-8"), re.MULTILINE | re.IGNORECASE))


def _is_default(settings: Settings, name: str) -> bool:
    return getattr(settings, name) == NAMES[name].default


def _check_words(report: Report, settings: Settings) -> None:
    """Keys and secrets: whether they can be guessed."""
    for name, key in settings.push_keys:
        advice = Advice(f"Write another behind {name}: there, and where PHP has it. This makes one:", (GENERATE,))
        if len(key) < WEAK_KEY or _is_guessed(key):
            report.fail("push_keys", f"the key {name} can be guessed: it is short, or a word", advice)
        elif len(key) < ENOUGH_KEY:
            report.warn("push_keys", f"the key {name} has {len(key)} characters: {ENOUGH_KEY} are enough", advice)
        elif is_guessable(key):
            report.warn("push_keys", f"the key {name} is made of words, or of a pattern", advice)
        else:
            report.ok("push_keys", f"the key {name} cannot be guessed")
    for secret in settings.secret:
        size = len(secret.encode())
        advice = Advice("Set another, in the settings and where PHP signs. This makes one:", (GENERATE,))
        if size < WEAK_SECRET or _is_guessed(secret):
            report.fail("secret", f"{size} bytes, or a word: whoever has one token can find it by trying", advice)
        elif size < ENOUGH_SECRET:
            report.warn("secret", f"{size} bytes, and HS256 asks for {ENOUGH_SECRET} (RFC 7518)", advice)
        elif is_guessable(secret):
            report.warn("secret", f"{size} bytes, but made of words, or of a pattern", advice)
        else:
            report.ok("secret", f"{size} bytes, enough for HS256")


def _is_guessed(word: str) -> bool:
    return len(set(word)) < 6 or re.sub(r"[\W\d_]+$", "", word.lower()) in KNOWN_WORDS


def clock(report: Report, settings: Settings) -> None:
    """Tokens have an end, and so has what is kept: the clock must not be far off."""
    behind = PROGRAM.stat().st_mtime - time.time()
    if behind > 86400:
        found = f"it is {time.strftime('%Y-%m-%d %H:%M')} here, before these very files were written"
        advice = Advice("Set it, and have it kept right:", ("timedatectl set-ntp true",))
        (report.fail if settings.secret else report.warn)("clock", found, advice)
    elif settings.secret:
        report.ok("clock", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))


def files(report: Report, settings: Settings, process: Process | None) -> None:
    """Each client is an open file. A relay raises its own limit as far as it may: to what is the hard limit here."""
    try:
        import resource

        from pushrelay.server.open_files import files_for, files_needed  # here: it needs packages that may be missing
    except ModuleNotFoundError as missing:
        if missing.name != "resource":
            raise
        return  # a system without such limits, as without epoll

    if process and not process.pid:
        report.warn("open files", "the relay is another user's process: ask as root to see its limit")
        return
    limit = process.file_limit if process else resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    whose = f"of the relay (process {process.pid})" if process else "here"
    is_unlimited = limit in (None, resource.RLIM_INFINITY)
    most = settings.max_connections if is_unlimited else files_for(limit, settings.threads).connections
    # max_connections is mostly the default, of which nobody needs to the last client what a system's limit leaves.
    wanted = settings.max_connections
    if most >= (min(wanted, ENOUGH_CLIENTS) if _is_default(settings, "max_connections") else wanted):
        said = "no limit" if is_unlimited else f"{limit} {whose}"
        report.ok("open files", f"{said}, enough for {min(most, wanted)} clients")
        return
    found = f"the limit {whose} is {limit}, too low for the {settings.max_connections} clients of max_connections"
    needed = files_needed(settings.max_connections, settings.threads)
    tell = report.fail if most < settings.max_connections / 2 else report.warn
    tell(
        "open files",
        found,
        Advice("Started by systemd, write into its [Service] (systemctl edit relay):", (f"LimitNOFILE={needed}",)),
        Advice("Started by hand, as root, in the same shell before it:", (f"ulimit -n {needed}",)),
        Advice("Or let fewer in, in [relay]:", (f"max_connections = {max(most, 1)}",)),
    )


def store(report: Report, settings: Settings, process: Process | None) -> None:
    kind, _, name = settings.broker.partition(":")
    if kind == "memory":
        report.warn("store", "in memory: what pages missed is gone when the relay is stopped", _KEEP)
    if kind != "sqlite":
        return
    if process and not process.pid:
        return  # below it says itself how its store is
    # Relative to where the relay was started, which may not be here.
    file = ((process and process.folder) or pathlib.Path.cwd()) / name
    folder = file.parent
    if not folder.is_dir():
        report.fail(
            "store", f"there is no folder {folder}", Advice("Make it:", (f"mkdir -p {shlex.quote(str(folder))}",))
        )
        return
    closed = next((each for each in (folder, file) if each.exists() and not os.access(each, os.W_OK)), None)
    if closed and process is None:  # the user of a relay that runs may be another, and it says itself how its store is
        advice = Advice("Give it to the user that the relay runs as:", (f"chown USER {shlex.quote(str(closed))}",))
        report.fail("store", f"{closed} cannot be written by this user", advice)
        return
    free = shutil.disk_usage(folder).free
    said = f"{file}, {free >> 20} MiB free, durability {settings.durability}"
    if free < LITTLE_SPACE:
        report.fail("store", f"{said}: the disk is nearly full", Advice("Free some space, or pushes will be refused."))
    elif free < settings.history_bytes + LITTLE_SPACE:
        bound = f"history_bytes = {max(1 << 20, (free - LITTLE_SPACE) // 2)}"
        report.warn(
            "store", f"{said}, and history_bytes is {settings.history_bytes >> 20} MiB", Advice("Lower it:", (bound,))
        )
    else:
        report.ok("store", said)


_KEEP = Advice("To keep it, in [relay]:", ("broker = sqlite:relay.db",))


def find_process(settings: Settings) -> Process | None:
    try:
        return listener(settings)
    except OSError:
        return None


def started_with(report: Report, settings: Settings, process: Process | None) -> None:
    """How the relay that runs was started: the doctor must go by the same settings."""
    if process and process.unit:
        report.ok("systemd", f"{process.unit} runs the relay")
    if not process or not process.folder:
        return
    _compare_file(report, settings, process, process.folder)
    try:
        others = _differing(settings, process, process.folder)
    except SettingsError:  # its file is not sound any more, which its next start says
        return
    if others:
        found = f"the relay was started with other values than the doctor for: {', '.join(others)}"
        advice = Advice("Run the doctor with the same --config, flags and RELAY_* variables, or what follows is wrong.")
        report.warn("settings", found, advice)


def _compare_file(report: Report, settings: Settings, process: Process, folder: pathlib.Path) -> None:
    if process.config:
        config = folder / process.config
        if settings.file is None or settings.file.resolve() != config.resolve():
            found = f"the relay was started with --config {config}, and these here are others"
            report.warn(
                "settings",
                found,
                Advice("Ask with the same, else what follows may be wrong; so with RELAY_*:", (f"--config {config}",)),
            )
            return
    if settings.file and process.started and settings.file.stat().st_mtime > process.started + 1:
        found = f"{settings.file} was changed after the relay was started, which has read what was in it before"
        report.warn("settings", found, Advice(f"To have the relay read it, {restarted(process)}."))


def _differing(settings: Settings, process: Process, folder: pathlib.Path) -> list[str]:
    """The settings that the relay was started with and the doctor was not. Raises SettingsError."""
    if process.environ is None:
        return []
    script = next((n for n, word in enumerate(process.command) if word.endswith("relay.py")), None)
    flags = {} if script is None else parse_flags(list(process.command[script + 1 :]))[0]
    named = flags.get("config") or process.environ.get("RELAY_CONFIG")
    if named:
        flags["config"] = str(folder / named)
    its = load(process.environ, flags)
    return [name for name in _GUIDING if getattr(its, name) != getattr(settings, name)]


def closed_to_others(file: pathlib.Path) -> pathlib.Path | None:
    """Return what keeps other users from reading a file: the outermost closed folder, or the file; None if they can."""
    for each in reversed(file.parents):
        if not each.stat().st_mode & stat.S_IXOTH:
            return each
    return None if file.stat().st_mode & stat.S_IROTH else file


def start_command(flags: Mapping[str, str]) -> str:
    """What starts the relay with the settings that the doctor was given."""
    return shlex.join([sys.executable, str(PROGRAM), *_as_given(flags)])


def _as_given(flags: Mapping[str, str]) -> list[str]:
    return [f"--{name.replace('_', '-')}={_written(name, text)}" for name, text in flags.items()]


def with_other_flags(given: Mapping[str, str]) -> list[Advice]:
    """Return what to do if relays of this folder run, but with other flags than the doctor was given."""
    found = {}
    for folder, words in started_from(PROGRAM):
        try:
            flags = {} if {"--check", "--help", "-h"} & set(words) else parse_flags(list(words))[0]
        except SettingsError:  # a command such as `push`
            continue
        if "config" in flags:
            flags["config"] = str(folder / flags["config"])
        if flags and flags != given:
            found[shlex.join(_as_given(flags))] = None
    return [Advice(f"Or, for the relay that runs with these flags, run the doctor with them: {each}") for each in found]


def _written(name: str, text: str) -> str:
    return "…" if name in NAMES and NAMES[name].secret else re.sub("//.*@", "//…@", text)


def has_unit() -> bool:
    """Whether systemd has been told of the relay."""
    return any(
        pathlib.Path(folder, "relay.service").exists() for folder in ("/etc/systemd/system", "/lib/systemd/system")
    )


def restarted(process: Process | None) -> str:
    """How a change of the settings comes into force."""
    if process and process.unit:
        return f"systemctl restart {process.unit.removesuffix('.service')}"
    return "stop the relay and start it again"
