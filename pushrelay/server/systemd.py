"""What systemd and a service tell each other: a socket that is passed on, and how the service is. No library of its."""

import logging
import os
import socket

log = logging.getLogger(__name__)

FIRST_PASSED_FD = 3  # sd_listen_fds(3)


def passed_socket() -> socket.socket | None:
    """The listening socket that systemd passed to this process (`relay.socket`); None where there is none.

    It can be taken once. Raises OSError with a whole sentence where what was passed cannot be served on.
    """
    count = os.environ.get("LISTEN_FDS", "0")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or count == "0":
        return None
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):  # they are said to this process alone
        os.environ.pop(name, None)
    if count != "1":
        raise OSError(
            f"systemd passed {count} sockets, and the relay serves on one: leave one ListenStream= in its unit"
        )
    sock = socket.socket(fileno=FIRST_PASSED_FD)
    sock.set_inheritable(False)
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise OSError("systemd passed a socket that nobody can connect to: its unit needs ListenStream=, and Accept=no")
    return sock


def notify(state: str) -> None:
    """Tell systemd how the service is: `READY=1`, `STOPPING=1` (sd_notify(3)).

    Nothing where it did not ask for that (`Type=notify`).
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # an abstract address
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(address)
            sock.sendall(state.encode())
    except OSError as error:  # the relay serves all the same
        log.warning("systemd cannot be told %s at NOTIFY_SOCKET: %s", state, error.strerror)
