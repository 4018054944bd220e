"""The commands other than serving, such as `python relay.py doctor`; COMMANDS has them all.

A command is the first word of the command line. It reads the same settings as the relay, so it knows the relay's
address, a key and the secret.
"""

import argparse
import sys
from collections.abc import Callable
from typing import NamedTuple

from pushrelay.packages import install_command, other_python
from pushrelay.settings import SettingsError
from pushrelay.settings.values import seconds

from .flags import FlagParser, warn_of_secrets
from .output import discard, fail

WEBHOOK_ACTIONS = ("show", "retry", "drop", "resume")
ALSO = "Every setting is a flag here too; python relay.py --help lists them."


class Command(NamedTuple):
    """A command: its help, its arguments, and the function that runs it.

    `run(given, flags)` returns the exit code; `flags` are the settings on the command line.
    """

    about: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, dict[str, str]], int]


def run_command(argv: list[str]) -> None:
    """Run the command and end the process with its exit code; return if the first word is not a command."""
    if argv and argv[0] in COMMANDS:
        raise SystemExit(run(argv))


def run(argv: list[str]) -> int:
    """Run the command that is the first word, and return its exit code."""
    command = COMMANDS[argv[0]]
    parser = FlagParser(prog=f"python relay.py {argv[0]}", allow_abbrev=False, description=command.about, epilog=ALSO)
    command.add_arguments(parser)
    parser.add_settings(in_help=False)
    try:
        given, flags = parser.parse(argv[1:])
        return command.run(given, flags)
    except SettingsError as error:
        return fail(str(error), 2)
    except KeyboardInterrupt:
        return 130  # as in shells: 128 and the number of SIGINT
    except BrokenPipeError:
        discard(sys.stdout)
        return 141  # 128 and the number of SIGPIPE
    except OSError as error:  # for example, the standard output goes to a full disk
        discard(sys.stdout)
        return fail(f"the output cannot be written ({error.strerror or error}): check where it goes")
    except ModuleNotFoundError as missing:
        return fail(missing_module(str(missing.name)), 2)


def missing_module(name: str) -> str:
    """Return what to do about a module that cannot be imported; pip cannot install those of Python itself."""
    if name.partition(".")[0] in sys.stdlib_module_names:
        return f"this Python lacks its own module {name}, or this system has none: use the Python of a Linux system"
    if python := other_python():
        return f"{sys.executable} lacks the package {name}: use the Python of the virtual environment, {python}"
    return f"the Python package {name} is missing. Run:  {install_command('requirements.txt')}"


def _doctor_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("url", nargs="?", metavar="PUBLIC_URL", help="the relay's address for browsers: https://example.com/relay/")
    add("--origin", metavar="ORIGIN", help="another site whose pages connect too: https://shop.example.com")
    add("--connect", metavar="ADDRESS", help="connect to this address instead of the one that DNS has for PUBLIC_URL")
    add("--user", metavar="NAME[:PASSWORD]", help="name and password for a web server that asks for them (Basic)")
    add("--ca", metavar="FILE", help="the certificate of a CA (PEM) to trust in addition to the system's")
    add("--insecure", action="store_true", help="accept any certificate")
    add("--quick", action="store_true", help="skip the wait for the relay's ping, which finds short timeouts")


def _doctor(given: argparse.Namespace, flags: dict[str, str]) -> int:
    from .doctor import examine

    code = examine(given, flags)
    warn_of_secrets(given)
    return code


def _push_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("destination", metavar="DEST", help="the destination: the id that pages registered")
    add("data", metavar="DATA", help="the data to push, as text; - reads it from the standard input")
    add("--json", action="store_true", help="DATA is JSON; push its value")
    add("--event", help="the event's name (default: push)")
    add("--ttl", metavar="SECONDS", type=_number, help="how long to keep it for clients that are away; 0: not at all")
    add("--id", help="an idempotency key: a second push with the same key is not delivered again")
    add("--wait", metavar="SECONDS", type=_number, help="wait until a client acknowledges it; at most 30")
    add("--url", help="the relay's address (default: the one in the settings)")
    add("--key", help="the key to push with (default: the first of push_keys)")


def _push(given: argparse.Namespace, flags: dict[str, str]) -> int:
    from .push import push

    return push(given, flags)


def _listen_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("destinations", nargs="+", metavar="DEST", help="a destination to register for")
    add("--raw", action="store_true", help="print only the data; otherwise each push is a line of JSON")
    add("--url", help="the relay's address, which may be the public one (default: the one in the settings)")
    add("--token", help="a token for these destinations (default: one signed with the first secret)")


def _listen(given: argparse.Namespace, flags: dict[str, str]) -> int:
    from .listen import listen

    return listen(given, flags)


def _token_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--ids",
        nargs="+",
        required=True,
        metavar="ID",
        help="ids that its holder may register, such as 42 and 'room-*'",
    )
    add("--push", nargs="+", metavar="ID", help="destinations to which its holder may push from a page")
    add("--presence", nargs="+", metavar="ID", help="destinations whose members its holder may see")
    add("--as", dest="user", metavar="USER", help="the user that its holder is, a member of what it registers")
    add("--info", metavar="JSON", help='what the members of a destination see of that user: \'{"name": "Ann"}\'')
    add("--expires", type=_number, default=3600, metavar="SECONDS", help="seconds until it expires (default: 3600)")


def _token(given: argparse.Namespace, flags: dict[str, str]) -> int:
    from .token import token

    return token(given, flags)


def _backup_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the file to write, which only its owner can read")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")


def _backup(given: argparse.Namespace, flags: dict[str, str]) -> int:
    from .backup import backup

    return backup(given, flags)


def _restore_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the backup")


def _restore(given: argparse.Namespace, flags: dict[str, str]) -> int:
    from .backup import restore

    return restore(given, flags)


def _outbox_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("create", "check"), metavar="create|check", help="what to do")
    parser.add_argument("url", nargs="?", metavar="URL", help="the database (default: the setting outbox)")
    parser.add_argument("--run", action="store_true", help="create: run the SQL, instead of printing it")


def _outbox(given: argparse.Namespace, flags: dict[str, str]) -> int:
    from .outbox import outbox

    return outbox(given, flags)


def _health_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="the relay's address (default: the one in the settings)")


def _health(given: argparse.Namespace, flags: dict[str, str]) -> int:
    from .health import health

    return health(given, flags)


def _webhooks_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("action", nargs="?", choices=WEBHOOK_ACTIONS, default="show", help="what to do (default: show)")
    add("which", nargs="?", metavar="URL", help="one URL, or its number in webhook_url, or request_url (default: all)")
    add("--before", metavar="AGE", type=_number, help="drop only what has waited for longer, such as 1h")
    add("--url", metavar="ADDRESS", help="the relay's address (default: the one in the settings)")
    add("--key", help="the key to use on other machines (default: the first of push_keys)")


def _webhooks(given: argparse.Namespace, flags: dict[str, str]) -> int:
    from .webhooks import webhooks

    return webhooks(given, flags)


def _number(text: str) -> float:
    """Return a number of seconds, also written as 15m. Raises ValueError, which argparse makes a sentence of."""
    value = seconds(0, 1e10 - 1)(text)
    return int(value) if value.is_integer() else value


_number.__name__ = "number of seconds"  # argparse writes: invalid … value

COMMANDS = {
    "doctor": Command(
        "Checks this machine, the relay and, with PUBLIC_URL, the path of browsers to it. Prints what is wrong and how "
        "to fix it. Exit code 0: no check failed; 1: a check failed; 2: the command line or a setting is wrong.",
        _doctor_arguments,
        _doctor,
    ),
    "push": Command("Pushes DATA to DEST, and prints the relay's answer.", _push_arguments, _push),
    "listen": Command(
        "Prints each push to DEST as a line, until Ctrl+C. After a lost connection it resumes without a gap.",
        _listen_arguments,
        _listen,
    ),
    "token": Command("Prints a token that lets a page register, signed with the secret.", _token_arguments, _token),
    "health": Command(
        "Asks the relay whether it accepts pushes. Exit code 0: it does; 1: it does not, or does not answer.",
        _health_arguments,
        _health,
    ),
    "outbox": Command(
        "create: prints the SQL for the table of the outbox. check: connects to the database, and prints whether the "
        "relay can use the table, and how many rows wait.",
        _outbox_arguments,
        _outbox,
    ),
    "webhooks": Command(
        "Shows what waits for the URLs in webhook_url and request_url; retries at once, drops what waits, or resumes a "
        "URL that unsubscribed. The relay must be running.",
        _webhooks_arguments,
        _webhooks,
    ),
    "backup": Command(
        "Writes everything that the relay has stored to FILE, while the relay runs or while it does not. Start it in "
        "the folder in which the relay is started, with the same settings.",
        _backup_arguments,
        _backup,
    ),
    "restore": Command(
        "Puts a backup in the place of the store, and keeps the previous store beside it. Stop the relay first. "
        "Afterwards, clients that come back get the status lost: pushes that came after the backup are missing.",
        _restore_arguments,
        _restore,
    ),
}
