"""How relay.py starts: as a program (`python relay.py`) or imported by another program, such as gunicorn.

Modules that need third-party packages are imported inside functions: a command such as `doctor` runs without them, and
serving ends with a sentence if one is missing.
"""

import copy
import importlib
import logging
import pathlib
import signal
import stat
import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn

from pushrelay.errors import StoreError
from pushrelay.outbox.packages import check_outbox_packages
from pushrelay.settings import Settings, load
from pushrelay.settings.values import is_redis
from pushrelay.store.redis.packages import check_packages
from pushrelay.wsgi import hosts

from . import output, streams
from .commands import missing_module, run_command
from .flags import parse_flags
from .redis_report import report_on

if TYPE_CHECKING:
    from pushrelay.core import Core
    from pushrelay.wsgi.front import WSGIApp

log = logging.getLogger(__name__)

# Importable names of what requirements.txt lists and serving needs.
PACKAGES = ("flask", "flask_socketio", "werkzeug", "jwt", "httptools", "simple_websocket", "engineio", "socketio")
# Options of Flask-SocketIO's run() that concern Werkzeug's development server. The relay accepts and ignores them.
_FOR_WERKZEUG = {"allow_unsafe_werkzeug", "debug", "extra_files", "log_output", "reloader_options", "use_reloader"}
_SIGPIPE = 141  # the exit code of a program that the signal ended: 128 and its number


def settings(name: str) -> Settings:
    """Return the relay's settings. `name` is relay.py's `__name__`.

    If relay.py is the program, they come from the INI file, the environment and the command line. This function then
    also runs commands such as `doctor`, and `--help` and `--check`, and ends the process after them. A mistake ends it
    with one sentence and exit code 2.

    In a program that imports relay.py, they come from the INI file and the environment. Raises SettingsError,
    ModuleNotFoundError, and Incompatible if an installed package has a version that cannot be used.
    """
    return _settings_of_program() if name == "__main__" else _settings_of_import()


def _settings_of_import() -> Settings:
    from pushrelay import dependencies

    dependencies.check()
    found = load()
    found.imported = True
    hosts.check_processes()
    return found


def _settings_of_program() -> Settings:
    streams.prepare()
    run_command(sys.argv[1:])  # ends the process if the first word is a command
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # before it serves, Ctrl+C ends it without a traceback
    try:
        flags, check_only = parse_flags(sys.argv[1:])
        _check_packages()
        found = load(flags=flags)
        _check_parts(found)
        if check_only:
            _check(found)
    except (ValueError, StoreError) as error:  # SettingsError is a ValueError
        stop_with(str(error))
    return found


def _check_packages() -> None:
    """End the process with a sentence if a package is missing, or has a version that cannot be used."""
    try:
        for package in PACKAGES:
            importlib.import_module(package)
    except ModuleNotFoundError as missing:
        stop_with(missing_module(str(missing.name)))
    from pushrelay import dependencies

    try:
        dependencies.check()
    except dependencies.Incompatible as error:
        stop_with(str(error))


def _check_parts(found: Settings) -> None:
    """Raise ValueError or StoreError for a setting that is well-formed but cannot work here. Opens nothing."""
    from pushrelay import core

    core.is_own(found)
    if is_redis(found.broker):
        check_packages()
    core.broker_of(found, lambda publication, skip_sid: 0)
    if found.outbox:
        check_outbox_packages()


def store_problem(found: Settings) -> str:
    """Return the error if the folder of the store does not exist, else "".

    `--check` does not open the store to find out. A folder that this user may not see counts as existing, because the
    relay's own user may see it.
    """
    kind, _, name = found.broker.partition(":")
    if kind != "sqlite":
        return ""
    folder = pathlib.Path(name).parent
    try:
        if stat.S_ISDIR(folder.stat().st_mode):
            return ""
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError:
        return ""
    return f"{name}: there is no folder {folder}: create it, or name another file in the setting broker"


def _check(found: Settings) -> NoReturn:
    """Carry out `--check`, and end the process. Raises StoreError for a Redis that the start would refuse."""
    from .banner import checked

    if problem := store_problem(found):
        stop_with(problem)
    redis = report_on(found)
    if redis and redis.refusals:
        stop_with(f"{redis.name}: {redis.refusals[0]}")
    error = output.print_text(checked(found, redis))
    if isinstance(error, BrokenPipeError):  # the reader of the output has closed it
        raise SystemExit(_SIGPIPE)
    if error:
        stop_with(f"the result of --check cannot be written ({error.strerror}): check where its output goes")
    raise SystemExit(0)


def run(relay: "Core", app: "WSGIApp") -> None:
    """Serve `app` until a signal ends the program.

    If another program imported relay.py, that program serves: then only close the relay when it ends.
    """
    if relay.settings.imported:
        hosts.at_end(relay.close)
    else:
        serve(relay, app)


def serve(relay: "Core", app: "WSGIApp", host: str | None = None, port: int | None = None) -> None:
    """Serve `app` until a signal or an exception comes, and shut down in order.

    `host` and `port` replace the settings of these names. End the process with a sentence if the address cannot be
    bound or the store cannot be opened.
    """
    from pushrelay.lifecycle import exit_at_signals
    from pushrelay.log.setup import start_log
    from pushrelay.server.systemd import notify

    from .banner import banner, cannot_listen
    from .reloading import Reloader

    chosen = copy.copy(relay.settings)
    chosen.host = chosen.host if host is None else host
    chosen.port = chosen.port if port is None else port
    start_log(chosen.log_level, chosen.log_format, also=relay.problems)
    if threading.current_thread() is threading.main_thread():
        exit_at_signals()
    try:
        server = relay.make_server(app, chosen)
    except OSError as error:
        stop_with(cannot_listen(chosen, error))
    try:
        relay.maintenance.start()
        if threading.current_thread() is threading.main_thread():
            Reloader(relay).start()
        if unprinted := output.print_text(banner(chosen, server.port)):
            log.warning("the relay serves, but its address could not be printed (%s)", unprinted.strerror)
        if chosen.log_format == "json":  # the program that reads it does not read the banner
            log.info("the relay serves at %s port %d", chosen.host, server.port)
        notify("READY=1")
        relay.lifecycle.serve(server)
    except StoreError as error:
        stop_with(str(error))
    finally:
        server.close()
        relay.maintenance.close()


def check_options(options: dict[str, Any]) -> None:
    """Check the options that an app passes to socketio.run(). Raise TypeError for those that are not supported."""
    unknown = sorted(set(options) - _FOR_WERKZEUG)
    if unknown:
        raise TypeError(
            f"socketio.run() of the relay takes host and port, not {', '.join(unknown)}: use the relay's settings "
            "(wsgi.ini, RELAY_*), and a web server in front for TLS"
        )
    if options.get("use_reloader") or options.get("extra_files"):
        log.warning("the relay does not reload an app that was changed: start it again")


def stop_with(message: str) -> NoReturn:
    """End the process because it cannot start: one sentence, exit code 2."""
    output.print_error(f"relay: {message}")
    raise SystemExit(2)
