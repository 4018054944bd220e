"""The relay's Unix socket: bound at its path, for the users that may open it."""

import os
import shutil
import socket
import stat


def bind_unix(path: str, mode: int | None = None, group: str = "") -> socket.socket:
    """Bind a Unix socket. One that a killed relay left behind is replaced; one in use is not.

    `mode` and `group` are those of the file; without them the umask and the process decide. Raises OSError.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.exists(path) and stat.S_ISSOCK(os.stat(path).st_mode):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                if probe.connect_ex(path):
                    os.unlink(path)
        _bind_closed(sock, path) if mode is not None or group else sock.bind(path)
    except OSError:
        sock.close()
        raise
    try:
        _open_to(path, mode, group)
    except OSError:
        sock.close()
        os.unlink(path)
        raise
    return sock


def _bind_closed(sock: socket.socket, path: str) -> None:
    """Bind a socket that its owner alone may open, until it has its group and its mode."""
    before = os.umask(0o177)
    try:
        sock.bind(path)
    finally:
        os.umask(before)


def _open_to(path: str, mode: int | None, group: str) -> None:
    if group:
        try:
            shutil.chown(path, group=int(group) if group.isdigit() else group)
        except PermissionError:
            message = f"the relay's user is no member of the group {group} (setting socket_group): add it to the group"
            raise OSError(message) from None
        except LookupError:
            raise OSError(f"there is no group {group} (setting socket_group): name one of this machine") from None
    if mode is not None or group:
        os.chmod(path, 0o660 if mode is None else mode)
