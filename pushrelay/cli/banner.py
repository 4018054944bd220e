"""The texts that the relay prints when it starts: the banner, the result of `--check`, and why it cannot listen."""

import errno
import os

from pushrelay.access.exposure import on_command_line, open_to, warnings
from pushrelay.addresses import own_address
from pushrelay.core import clients_expected, is_own, most_clients
from pushrelay.errors import StoreError
from pushrelay.pages.demo import ANYWHERE, address, first_id, is_at_loopback, tunnel
from pushrelay.settings import Settings

from .redis_report import RedisReport, report_on


def remarks(settings: Settings) -> list[str]:
    """Return lines about the server if it cannot serve as many clients as the settings allow."""
    if is_own(settings):
        from pushrelay.server.open_files import file_limit

        most = most_clients(settings)
        if most >= clients_expected(settings):
            return []
        return [
            f"takes at most {most} clients, not {settings.max_connections} (max_connections), because the limit on "
            f"open files is {file_limit()}; raise it with ulimit -n, or LimitNOFILE= of systemd"
        ]
    why = "as the setting server demands" if settings.server == "werkzeug" else "because this system has no epoll"
    return [f"runs on Werkzeug, {why}: each client needs several threads, so the limit is a few hundred clients"]


def banner(settings: Settings, port: int) -> str:
    """Return the text that the relay prints once it serves: its address, who can do what, warnings, how to try it."""
    url, _ = address(settings, port)
    try:
        redis = report_on(settings)
    except StoreError:  # it has gone since the relay connected, which the log reports
        redis = None
    lines = [
        f"The relay serves on {url}",
        *(f"  {line}" for line in (*open_to(settings), *remarks(settings), *stored_in(redis))),
        *warnings(settings),
        *(f"warning: {each}" for each in (redis.warnings if redis else ())),
        *on_command_line(settings),
        *first_steps(settings, port),
    ]
    return "\n".join(lines)


def stored_in(redis: RedisReport | None) -> list[str]:
    """Return lines about the Redis in which pushes are stored, and about when it loses them; none without a Redis."""
    return [f"stores pushes in  {redis.name}", *redis.survives] if redis else []


def first_steps(settings: Settings, port: int) -> list[str]:
    """Return the lines that show how to try the relay, printed when it starts."""
    url, curl = address(settings, port)
    page = f"{url}/?id={first_id(settings)}"
    if settings.host.startswith("unix:"):
        lines = ["Try:", f"  {curl}", "Browsers need a web server in front: see docs/nginx.md and docs/apache.md."]
    elif is_at_loopback(settings):
        lines = [f"Open {page} in two windows, and try:", f"  {curl}", *_from_elsewhere(settings, port)]
    else:
        shown = f"Open {page} in two windows" if settings.demo else f"Set demo = yes to see the demo page ({page})"
        keys = "KEY is one of push_keys" if settings.push_keys else "set push_keys first, or nobody can push here"
        lines = [f"{shown}, and try ({keys}):", f"  {curl}"]
    if "INVOCATION_ID" not in os.environ:  # systemd sets it
        lines.append("Ctrl+C stops the relay. To keep it running, see docs/systemd.md.")
    return lines


def _from_elsewhere(settings: Settings, port: int) -> list[str]:
    if settings.demo and settings.host in ANYWHERE:
        return [f"On another machine: http://{own_address()}:{port}{settings.base_path}/?id={first_id(settings)}"]
    return [
        f"If your browser is on another machine, first run there:  ssh -L {tunnel(settings, port)} USER@THIS-SERVER"
    ]


def checked(settings: Settings, redis: RedisReport | None = None) -> str:
    """Return the text that `--check` prints for sound settings. `redis` is the verdict on their Redis."""
    lines = [f"The settings are sound ({settings.file or 'no file, all defaults'})."]
    lines += [f"  {line}" for line in (*open_to(settings), *stored_in(redis))]
    lines += [*warnings(settings), *(f"warning: {each}" for each in (redis.warnings if redis else ()))]
    return "\n".join(lines)


def cannot_listen(settings: Settings, error: OSError) -> str:
    """Return the sentence about an address on which the relay cannot listen. `error` is the reason."""
    if error.errno is None:  # the relay raised it itself, with a complete sentence
        return str(error)
    if settings.host.startswith("unix:"):
        if error.errno == errno.EADDRINUSE:
            return f"{settings.host} is in use: stop the program that listens there, or choose another path with --host"
        return f"cannot listen on {settings.host}: {error.strerror}; choose another path with --host"
    where = f"{settings.host} port {settings.port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is taken by another program: stop that program, or choose another port with --port"
    return f"cannot listen on {where}: {error.strerror}; choose another address with --host and --port"
