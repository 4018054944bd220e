"""What the relay prints when it starts: the banner, the result of `--check`, and why it cannot listen."""

import errno

from pushrelay.core import clients_expected, is_own, most_clients
from pushrelay.pages.demo import address, first_steps
from pushrelay.settings import Settings

from .exposure import on_command_line, open_to, warnings


def remarks(settings: Settings) -> list[str]:
    """Return lines about the server if it cannot take as many clients as the settings ask for."""
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
    return [f"runs on Werkzeug, {why}: each client needs several threads, so a few hundred are the limit"]


def banner(settings: Settings, port: int) -> str:
    """Return the text that the relay prints when it serves: its address, who can do what, warnings, how to try it."""
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
    """Return the text that `--check` prints for sound settings."""
    lines = [f"The settings are sound ({settings.file or 'no file, all defaults'})."]
    return "\n".join([*lines, *(f"  {line}" for line in open_to(settings)), *warnings(settings)])


def cannot_listen(settings: Settings, error: OSError) -> str:
    """Return the sentence about an address on which the relay cannot listen. `error` is the reason."""
    if error.errno is None:  # the relay raised it itself, with a sentence
        return str(error)
    if settings.host.startswith("unix:"):
        if error.errno == errno.EADDRINUSE:
            return f"{settings.host} is in use: stop the program that listens there, or choose another path with --host"
        return f"cannot listen on {settings.host}: {error.strerror}; choose another path with --host"
    where = f"{settings.host} port {settings.port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is taken by another program: stop that one, or choose another port with --port"
    return f"cannot listen on {where}: {error.strerror}; choose another address with --host and --port"
