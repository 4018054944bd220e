"""Socket activation and readiness notification for systemd, without libsystemd."""

import logging
import os
import socket

log = logging.getLogger(__name__)

FIRST_PASSED_FD = 3  # sd_listen_fds(3)


def passed_socket() -> socket.socket | None:
    """Return the listening socket that systemd passed to this process (`relay.socket`); None if there is none.

    It can be taken once. Raises OSError with a complete sentence if the relay cannot serve on what was passed.
    """
    count = os.environ.get("LISTEN_FDS", "0")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or count == "0":
        return None
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):  # they are for this process, not for its children
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
    """Send the state of the service to systemd, such as `READY=1` or `STOPPING=1` (sd_notify(3)).

    Does nothing if systemd did not ask for it (`Type=notify`). A failure is logged, and the relay continues.
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
    except OSError as error:
        log.warning("%s cannot be sent to systemd at NOTIFY_SOCKET: %s", state, error.strerror)
