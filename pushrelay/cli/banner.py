"""What people see of the start: its banner, the result of --check, and why it cannot serve."""

import errno

from pushrelay.core import clients_expected, is_own, most_clients
from pushrelay.pages.demo import address, first_steps
from pushrelay.settings import Settings

from .exposure import on_command_line, open_to, warnings


def remarks(settings: Settings) -> list[str]:
    """What the start tells about the server, where that is not the usual."""
    if is_own(settings):
        from pushrelay.server.open_files import file_limit

        most = most_clients(settings)
        if most >= clients_expected(settings):
            return []
        return [
            f"takes {most} clients at most, not {settings.max_connections} (max_connections): "
            f"the limit on open files is {file_limit()} (ulimit -n, or LimitNOFILE= of systemd)"
        ]
    why = "as the setting says" if settings.server == "werkzeug" else "because this system has no epoll"
    return [f"runs on Werkzeug, {why}: every client takes several threads, so it is good for some hundred of them"]


def banner(settings: Settings, port: int) -> str:
    """Return what the start prints: the address, the rights, warnings, and how to try it."""
    url, _ = address(settings, port)
    lines = [
        f"The relay serves on {url}",
        *(f"  {line}" for line in (*open_to(settings), *remarks(settings))),
        *warnings(settings),
        *on_command_line(settings),
        *first_steps(settings, port),
    ]
    return "\n".join(lines)


def checked(settings: Settings) -> str:
    """What `--check` prints."""
    lines = [f"The settings are sound ({settings.file or 'no file, all defaults'})."]
    return "\n".join([*lines, *(f"  {line}" for line in open_to(settings)), *warnings(settings)])


def cannot_listen(settings: Settings, error: OSError) -> str:
    """The sentence for an address that cannot be listened on."""
    if error.errno is None:  # of our own, and a sentence
        return str(error)
    if settings.host.startswith("unix:"):
        if error.errno == errno.EADDRINUSE:
            return f"{settings.host} is in use: stop the program that listens there, or choose another path with --host"
        return f"cannot listen on {settings.host}: {error.strerror}; choose another path with --host"
    where = f"{settings.host} port {settings.port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is taken by another program: stop that one, or choose another port with --port"
    return f"cannot listen on {where}: {error.strerror}; choose others with --host and --port"
