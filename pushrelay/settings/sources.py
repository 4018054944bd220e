"""The sources of settings: `[relay]` in an INI file, then `RELAY_*` in the environment, then flags."""

import difflib
import functools
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pushrelay.places import SETTINGS_FILE

from . import ini
from .table import NAMES, Settings
from .values import SettingsError, oddity, without_password

GUARDS = ("secret", "id_cookie", "auth_url")  # one of these decides who may register which destinations


def load(environ: Mapping[str, str] = os.environ, flags: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of all three sources; a later source overrides an earlier one. Raises SettingsError.

    `flags` are settings of the command line, as {name: text}; `config` among them names the INI file.
    """
    flags = dict(flags or {})
    config = flags.pop("config", environ.get("RELAY_CONFIG"))
    if config == "":
        raise SettingsError("--config or RELAY_CONFIG is empty; name a file, or remove it")
    file = SETTINGS_FILE if config is None else pathlib.Path(config)
    lines = ini.read(file, set(NAMES), named=config is not None)
    values: dict[str, Any] = {}
    given: dict[str, str] = {}
    for source, name, text in (*_from_file(file, lines or ()), *_from_environ(environ), *_from_flags(flags)):
        values[name] = _parsed(source, name, text)
        given[name] = source
    named = {} if config is None else {"config": str(file.absolute())}  # the working folder may change
    read_again = functools.partial(load, dict(environ), flags | named)
    return Settings(None if lines is None else file, given, read_again=read_again, **values)


def unknown(where: str, name: str) -> str:
    """Return the sentence for a setting that does not exist."""
    plain = re.sub(r"^relay[_.-]", "", name.lower().replace("-", "_"))
    near = difflib.get_close_matches(plain, NAMES, 1)
    # Do not show what may be a part of a secret.
    is_word = re.fullmatch(r"[\w. -]{0,20}", name) and len(re.findall(r"\d", name)) < 3
    called = f"there is no setting called {name}" if is_word else "this is not a setting"
    hint = f"did you mean {near[0]}?" if near else "remove it"
    return f"{where}: {called}; {hint} (python relay.py --help lists them all)"


def _parsed(source: str, name: str, text: str) -> Any:
    """Return the value of a setting's text. Raises SettingsError."""
    if name not in NAMES:
        raise SettingsError(unknown(source, name))
    if not _is_text(text):
        raise SettingsError(f"{source}: {name} has a byte that is not UTF-8 text; write it as plain text")
    text = text.strip(" \t\r\n")
    if found := oddity(text):
        raise SettingsError(f"{source}: {name} {found}")
    try:
        return NAMES[name].parse(text)
    except ValueError as error:
        given = "" if NAMES[name].secret else f", not {without_password(text)!r}"
        raise SettingsError(f"{source}: {name} must be {error}{given}") from None


def _is_text(text: str) -> bool:
    """Return whether a text is Unicode. Python turns other bytes of the environment and the flags into surrogates."""
    return "\0" not in text and not any("\ud800" <= each <= "\udfff" for each in text)


def without_secrets(url: str) -> str:
    """Return a URL as it may be shown: without its name, password and query."""
    return re.sub("//[^/]*@", "//", url.partition("?")[0])


def check_not_empty(source: str, name: str, text: str) -> None:
    """Raise SettingsError if one of GUARDS is empty: without it, everybody could register any destination.

    An empty value often is a variable that was not set.
    """
    if name in GUARDS and not text.strip():
        raise SettingsError(f"{source}: {name} is empty, and everybody could register any id; set it, or remove it")


def _from_file(file: pathlib.Path, lines: Iterable[ini.Line]) -> Iterable[tuple[str, str, str]]:
    for line in lines:
        source = f"{file}, line {line.number}"
        check_not_empty(source, line.name, line.text)
        yield source, line.name, line.text


def _from_environ(environ: Mapping[str, str]) -> Iterable[tuple[str, str, str]]:
    seen: dict[str, str] = {}
    for key, text in environ.items():
        _check_spelling(key)
        if not key.startswith("RELAY_") or key == "RELAY_CONFIG" or _is_of_a_container(key, text):
            continue
        name = key[6:].lower()
        source = f"{key} in the environment"
        if name in seen:
            raise SettingsError(f"{source} and {seen[name]} are the same setting; keep one of them")
        seen[name] = key
        check_not_empty(source, name, text)
        yield source, name, text


def _check_spelling(key: str) -> None:
    """Raise SettingsError for relay_secret, RELAY-SECRET and the like, which would otherwise have no effect."""
    letters = re.sub("[^A-Z]", "", key.upper())
    for name in (*GUARDS, "push_keys"):
        if not key.startswith("RELAY_") and letters == f"RELAY{name.replace('_', '').upper()}":
            raise SettingsError(f"{key} in the environment is not read; write RELAY_{name.upper()}")


# Kubernetes sets variables for each Service, and Docker for each link. A Service may be called relay, or
# relay-something. The patterns cover the values too, so that a misspelled setting is still an error.
_OF_CONTAINERS = (
    (r"SERVICE_HOST", r"[0-9a-fA-F.:]+"),
    (r"SERVICE_PORT(_\w+)?", r"[0-9]+"),
    (r"PORT(_[0-9]+_(TCP|UDP|SCTP))?", r"(tcp|udp|sctp)://\S+"),
    (r"PORT_[0-9]+_(TCP|UDP|SCTP)_(START|END)", r"(tcp|udp|sctp)://\S+"),
    (r"PORT_[0-9]+_(TCP|UDP|SCTP)_ADDR", r"\S+"),
    (r"PORT_[0-9]+_(TCP|UDP|SCTP)_PORT(_START|_END)?", r"[0-9]+"),
    (r"PORT_[0-9]+_(TCP|UDP|SCTP)_PROTO", r"tcp|udp|sctp"),
    (r"NAME", r"/\S+"),
    (r"ENV_\w+", r"(?s:.*)"),
)


def _is_of_a_container(key: str, text: str) -> bool:
    """Return whether a variable is one that Kubernetes or Docker sets."""
    return any(
        re.fullmatch(rf"RELAY_(\w+_)?({name})", key) and re.fullmatch(value, text) for name, value in _OF_CONTAINERS
    )


def _from_flags(flags: Mapping[str, str]) -> Iterable[tuple[str, str, str]]:
    return [(flag_of(name), name, text) for name, text in flags.items()]


def flag_of(name: str) -> str:
    """Return the flag of a setting, such as --history-size."""
    return f"--{name.replace('_', '-')}"
