"""The command line: every setting is a flag, of `python relay.py` itself and of its commands."""

import argparse
import difflib
import re
from typing import Any, NoReturn

from pushrelay import __version__
from pushrelay.access.exposure import seen_in_ps
from pushrelay.places import SETTINGS_FILE
from pushrelay.settings import NAMES, TABLE, SettingsError
from pushrelay.settings.sources import check_not_empty, flag_of, unknown
from pushrelay.settings.values import without_password

from .output import print_error

COMMAND_NAMES = ("doctor", "push", "listen", "token", "health", "outbox", "webhooks", "backup", "restore")
USAGE = "python relay.py [--SETTING VALUE ...]\n       python relay.py COMMAND ..."
ABOUT = """The relay takes a POST from PHP and delivers it to the right browsers at once.
Without a command it serves, until Ctrl+C.

commands (each has its own --help):
  python relay.py doctor   find out what keeps pushes from arriving
  python relay.py push     push to a destination
  python relay.py listen   print what is pushed to a destination
  python relay.py token    print a token for register
  python relay.py health   ask whether the relay accepts pushes, for health checks
  python relay.py outbox   print the SQL of the table for the outbox, or look at it
  python relay.py webhooks show what waits for PHP, repeat it or drop it
  python relay.py backup   write everything that is stored to a file
  python relay.py restore  put such a file in the place of the store

Each flag is a setting. You can also write it into [relay] of the INI file (port = 9000), or set it as RELAY_NAME in
the environment (RELAY_PORT=9000). Write secrets, keys and passwords there and not as flags, because every user of
this machine can see a program's flags."""
SECRET_FLAGS = (*(setting.name for setting in TABLE if setting.secret), "key")
# An error shows neither the value of such a flag nor the words after it, which may be a second secret.
_NEVER_SHOWN = (*SECRET_FLAGS, "token")


class FlagParser(argparse.ArgumentParser):
    """An argument parser that takes every setting as a flag, and raises SettingsError for a mistake."""

    def error(self, message: str) -> NoReturn:
        """Raise SettingsError with one sentence; argparse itself would print its usage and exit."""
        if found := re.fullmatch(r"argument (?:\S+/)?(\S+): expected one argument", message):
            message = f"{flag_of(found[1].lstrip('-'))} needs a value"
        raise SettingsError(f"{message} ({self.prog} --help lists the flags)")

    def add_settings(self, in_help: bool = True) -> None:
        """Add a flag for every setting, and `--config`."""
        file = str(SETTINGS_FILE).replace("%", "%%")  # argparse formats help with %
        about = f"the INI file to read [relay] from (default: {file})"
        self.add_argument("--config", metavar="FILE", help=about)
        for setting in TABLE:
            about = f"{setting.help} (default: {_written(setting.default)})" if in_help else argparse.SUPPRESS
            self.add_argument(flag_of(setting.name), metavar="VALUE", dest=setting.name, help=about)
            if "_" in setting.name:
                self.add_argument(f"--{setting.name}", dest=setting.name, help=argparse.SUPPRESS)

    def parse(self, argv: list[str]) -> tuple[argparse.Namespace, dict[str, str]]:
        """Return all arguments, and those that are settings as {name: text}. Raises SettingsError."""
        given, rest = self.parse_known_args(argv)
        if rest and "--" not in argv:  # argparse wants optional words before the flags: drop --before 1h URL
            given, rest = self.parse_known_intermixed_args(argv)
        if rest:
            raise SettingsError(_stray(rest[0], argv))
        flags = {n: text for n, text in vars(given).items() if n in (*NAMES, "config") and text is not None}
        for name, text in flags.items():
            check_not_empty(flag_of(name), name, text)
        return given, flags


def parse_flags(argv: list[str]) -> tuple[dict[str, str], bool]:
    """Return the settings on the command line as {name: text}, and whether `--check` is there too.

    `--help` and `--version` print and end the process. Raises SettingsError for a flag that does not exist.
    """
    parser = FlagParser(
        prog="python relay.py",
        usage=USAGE,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=ABOUT,
    )
    parser.add_argument("--check", action="store_true", help="check the settings, print who can do what, and exit")
    parser.add_argument(
        "--version", action="version", version=f"relay {__version__}", help="print the version and exit"
    )
    parser.add_settings()
    given, flags = parser.parse(argv)
    return flags, given.check


def warn_of_secrets(given: argparse.Namespace) -> None:
    """Warn if secrets are among the flags: while a command runs, every user of the machine can see its flags."""
    names = [flag_of(name) for name in SECRET_FLAGS if getattr(given, name, None)]
    if names:
        print_error(f"relay: warning: {seen_in_ps(names)}")


def _stray(word: str, argv: list[str]) -> str:
    """Return the error for a word of the command line that is neither a flag nor the value of one."""
    found = re.match(r"[-\u2010-\u2015]*([\w-]*)", word)  # web pages turn -- into a longer dash
    name = found[1] if found else ""
    if name.lower().replace("-", "_") in NAMES:  # -port 80, port=80, --PORT 80
        return f"the command line: write {flag_of(name.lower())} VALUE in place of {word.partition('=')[0]}"
    if word.startswith("-"):
        return unknown("the command line", name)
    if word in COMMAND_NAMES:
        return f"the command line: {word} must be the first word: python relay.py {word}"
    if word == argv[0]:
        near = difflib.get_close_matches(word.lower(), COMMAND_NAMES, 1)
        hint = f"did you mean {near[0]}?" if near else "without a command the relay serves"
        shown = without_password(word)
        return f"the command line: there is no command called {shown}; {hint} (python relay.py --help lists them)"
    before = [each for each in argv[: argv.index(word)] if each.startswith("--")]
    flag = before[-1].partition("=")[0] if before else ""
    if flag.lstrip("-").replace("-", "_") in _NEVER_SHOWN or "@" in word:  # the rest of an address with a password
        word = f"a word after {flag}" if flag else "the last word"
    return f"the command line: {word} is not a flag; put quotes around a value that has spaces (--help lists the flags)"


def _written(default: Any) -> str:
    """Return a default as a user would write it."""
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, tuple):
        return ", ".join(default) or "not set"
    return "not set" if default in ("", None) else f"{default:.15g}" if isinstance(default, float) else str(default)
