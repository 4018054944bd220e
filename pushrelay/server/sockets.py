"""Sockets to listen on: TCP, a Unix socket with its file's mode and group, or a socket that systemd passes."""

import contextlib
import os
import shutil
import socket
import stat

from .systemd import passed_socket

# Connections that wait to be accepted: after a restart all browsers return at once.
BACKLOG = 4096
# Bytes that the kernel may hold for one connection, as requested; Linux doubles this for its own bookkeeping, and
# grants at most that much. By default it would hold some 4 MB for a client that does not read, which no limit of ours
# counts. At a round trip of 100 ms this size still allows a megabyte per second.
SEND_BUFFER = 131_072


def bound_send_buffer(sock: socket.socket) -> None:
    """Bound what the kernel holds for this socket, and for the sockets that it accepts."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)


def listen(host: str, port: int, mode: int | None = None, group: str = "") -> tuple[socket.socket, str]:
    """Return a non-blocking socket to accept on, and the path to remove at the end if it is a Unix socket of ours.

    `host` is a name, an address, or `unix:PATH`; `mode` and `group` are for the file at PATH. A socket that systemd
    passed replaces it. Raises OSError.
    """
    path = ""
    sock = passed_socket()
    if sock is None and host.startswith("unix:"):
        path = host.removeprefix("unix:")
        sock = bind_unix(path, mode, group)
    elif sock is None:
        sock = bind_tcp(host, port)
    sock.listen(BACKLOG)
    sock.setblocking(False)
    if sock.family != socket.AF_UNIX:
        bound_send_buffer(sock)
        # Accepted sockets inherit it. A push is one small packet, which must not wait for the ACK of the last one.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock, path


def bind_tcp(host: str, port: int) -> socket.socket:
    """Bind a TCP socket to a name, an IPv4 address, or an IPv6 address (brackets are allowed). Raises OSError.

    With an empty `host` it is bound to all addresses; with port 0 the kernel chooses one.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def bind_unix(path: str, mode: int | None = None, group: str = "") -> socket.socket:
    """Bind a Unix socket. One that a killed relay left behind is replaced; one in use is not.

    `mode` and `group` are set on its file; without them, the umask and the process decide. Raises OSError.
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
        _set_access(path, mode, group)
    except OSError:
        sock.close()
        os.unlink(path)
        raise
    return sock


def _bind_closed(sock: socket.socket, path: str) -> None:
    """Bind a socket that only its owner may open, until its group and its mode are set."""
    before = os.umask(0o177)
    try:
        sock.bind(path)
    finally:
        os.umask(before)


def _set_access(path: str, mode: int | None, group: str) -> None:
    """Set the group and the mode of a socket's file. Raises OSError with what to do."""
    if group:
        try:
            shutil.chown(path, group=int(group) if group.isdigit() else group)
        except PermissionError:
            message = f"the relay's user is not in the group {group} (setting socket_group): add it to the group"
            raise OSError(message) from None
        except LookupError:
            raise OSError(f"there is no group {group} (setting socket_group): use one that exists") from None
    if mode is not None or group:
        os.chmod(path, 0o660 if mode is None else mode)
