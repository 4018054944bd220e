"""The commands beside serving: `python relay.py doctor`, `push`, `listen` and `token`.

A command is the first word of the command line. It knows the settings from where the relay has them, so it finds the
relay's address, a key and the secret by itself.
"""

import argparse
import sys
from collections.abc import Callable
from typing import NamedTuple

from pushrelay.settings import FlagParser, SettingsError
from pushrelay.settings.values import seconds

from . import exposure, streams

ALSO = "Every setting is a flag here as well, and --config FILE: python relay.py --help lists them."


SECRET_FLAGS = ("secret", "push_keys", "key")


class Command(NamedTuple):
    """`run(given, flags)` does it and returns the exit code; `flags` are the settings on the command line."""

    about: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, dict[str, str]], int]


def run_command(argv: list[str]) -> None:
    """End the process with the command's exit code, where the first word is a command; else return."""
    if argv and argv[0] in COMMANDS:
        raise SystemExit(run(argv))


def run(argv: list[str]) -> int:
    command = COMMANDS[argv[0]]
    parser = FlagParser(prog=f"python relay.py {argv[0]}", allow_abbrev=False, description=command.about, epilog=ALSO)
    command.add_arguments(parser)
    parser.add_settings(in_help=False)
    try:
        given, flags = parser.parse(argv[1:])
        return command.run(given, flags)
    except SettingsError as error:
        return complain(str(error), 2)
    except KeyboardInterrupt:
        return 130  # as shells have it: 128 and the number of SIGINT
    except BrokenPipeError:
        streams.drop(sys.stdout)
        return 141  # and of SIGPIPE
    except OSError as error:  # a full disk behind the standard output, for example
        streams.drop(sys.stdout)
        return complain(f"the output cannot be written ({error.strerror or error}): check where it goes")
    except ModuleNotFoundError as missing:
        return complain(missing_module(str(missing.name)), 2)


def missing_module(name: str) -> str:
    """Return what to do about a module that cannot be imported: pip cannot install those of Python itself."""
    if name.partition(".")[0] in sys.stdlib_module_names:
        return f"this Python lacks its own module {name}, or this system has none: use the Python of a Linux system"
    return f"the Python package {name} is missing: run  pip install -r requirements.txt"


def warn_of_flags(given: argparse.Namespace) -> None:
    """Warn of secrets among the flags: while the command runs, every user of the machine can see its command line."""
    names = [f"--{name.replace('_', '-')}" for name in SECRET_FLAGS if getattr(given, name, None)]
    if names:
        streams.complain(f"relay: warning: {exposure.seen_in_ps(names)}")


def complain(message: str, code: int = 1) -> int:
    """Write what is wrong to the standard error output, and return the exit code."""
    streams.complain(f"relay: {printable(message)}")
    return code


def printable(text: str) -> str:
    """Some of what is said is what strangers answered, and a terminal obeys control characters."""
    return "".join(each if each.isprintable() else "?" for each in text)


def _doctor_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("url", nargs="?", metavar="PUBLIC_URL", help="where browsers find the relay: https://example.com/relay/")
    add("--origin", metavar="ORIGIN", help="a page elsewhere that is to connect too: https://shop.example.com")
    add("--connect", metavar="ADDRESS", help="connect to this address, and not to the one that DNS has for PUBLIC_URL")
    add("--user", metavar="NAME[:PASSWORD]", help="for a web server that asks visitors for a password (Basic)")
    add("--ca", metavar="FILE", help="a CA's certificate (PEM) to trust beside the system's")
    add("--insecure", action="store_true", help="take any certificate")
    add("--quick", action="store_true", help="do not wait for the relay's ping, so find no time-out that is too short")


def _doctor(given: argparse.Namespace, flags: dict[str, str]) -> int:
    from .doctor import examine

    code = examine(given, flags)
    warn_of_flags(given)
    return code


def _push_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("destination", metavar="DEST", help="who gets it: the id that pages registered")
    add("data", metavar="DATA", help="what they get, as text; - reads it from the standard input")
    add("--json", action="store_true", help="DATA is JSON, and is passed on as the value that it is")
    add("--event", help="the event's name (default: push)")
    add("--ttl", metavar="SECONDS", type=_number, help="how long it is kept for who is away; 0: not at all")
    add("--id", help="an idempotency key: sent again with the same one, it is one push")
    add("--wait", metavar="SECONDS", type=_number, help="answer when a client has acknowledged it; at most 30")
    add("--url", help="the relay's address (default: that of the settings)")
    add("--key", help="a key that pushes may come with (default: the first of push_keys)")


def _push(given: argparse.Namespace, flags: dict[str, str]) -> int:
    from .terminal import push

    return push(given, flags)


def _listen_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("destinations", nargs="+", metavar="DEST", help="what to register for")
    add("--raw", action="store_true", help="print the data alone; else each push is a line of JSON")
    add("--url", help="the relay's address, also its public one (default: that of the settings)")
    add("--token", help="a token that allows these destinations (default: one that is signed with the first secret)")


def _listen(given: argparse.Namespace, flags: dict[str, str]) -> int:
    from .terminal import listen

    return listen(given, flags)


def _token_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--ids", nargs="+", required=True, metavar="ID", help="what its holder may register; 'room-*' for all such")
    add("--push", nargs="+", metavar="ID", help="where its holder may push from a page")
    add("--expires", type=_number, default=3600, metavar="SECONDS", help="how long it is good (default: 3600)")


def _token(given: argparse.Namespace, flags: dict[str, str]) -> int:
    from .terminal import token

    return token(given, flags)


def _number(text: str) -> float:
    """A number of seconds, or such as 15m. Raises ValueError, which argparse makes a sentence of."""
    value = seconds(0, 1e10 - 1)(text)
    return int(value) if value.is_integer() else value


_number.__name__ = "number of seconds"  # argparse says: invalid … value

COMMANDS = {
    "doctor": Command(
        "Looks at this machine, at the relay and, with PUBLIC_URL, at the way that browsers take to it; says what "
        "is wrong and what to do about it. Exit code 0: all is well; 1: something failed; 2: it was not understood.",
        _doctor_arguments,
        _doctor,
    ),
    "push": Command("Pushes DATA to DEST, and prints what the relay answers.", _push_arguments, _push),
    "listen": Command(
        "Prints what is pushed to DEST, a line each, until Ctrl+C; after a lost connection nothing is missing.",
        _listen_arguments,
        _listen,
    ),
    "token": Command("Prints a token that lets a page register, signed with the secret.", _token_arguments, _token),
}
