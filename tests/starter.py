"""Starts relays from a process that has already imported what they need.

Importing Flask, Flask-SocketIO, what they import and the relay's own modules takes Python nine tenths of the processor
time of a start, and the tests start hundreds of relays. So each worker of pytest runs this file once; it imports them,
and forks for every relay. The fork runs relay.py from its first line, with its own arguments, environment, working
folder and output. Programs of the tests that change the relay import its modules themselves, as they would alone.
"""

import atexit
import contextlib
import functools
import gc
import json
import os
import pathlib
import resource
import runpy
import secrets
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = ("flask", "flask_socketio", "jwt", "sqlite3", "werkzeug.serving", "wsproto")
MODULES = ("pushrelay.core", "pushrelay.cli.startup", "pushrelay.cli.banner", "pushrelay.store.local_broker")
# The interpreter and its libraries read these when a process begins, so a fork cannot have others.
FIXED = ("LD_", "PYTHON", "MALLOC_")
FORKS = True  # whether relays that serve are forked; the tests of the doctor set it to False


class Forked:
    """A process that was forked, with the methods of subprocess.Popen that tests use."""

    def __init__(self, starter, pid):
        self.pid = pid
        self.returncode = None
        self._starter = starter

    def poll(self):
        if self.returncode is None:
            self._starter.hear()
        return self.returncode

    def wait(self, timeout=None):
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(f"the relay with process id {self.pid}", timeout)
            time.sleep(0.002)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


class Starter:
    """The process that forks relays."""

    def __init__(self):
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd="/")
        self._owner = os.getpid()
        self._running = {}  # process id -> Forked; the system may give an id again
        self._lock = threading.Lock()

    def start(self, arguments, output, environ, folder, errors=None, stdin=None):
        """Run a Python file with its arguments, and return its Forked. The others are files.

        `output` is its standard output, and its standard error output too if there is no `errors`.
        """
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        request = {"arguments": arguments, "environ": environ, "folder": str(folder), "files": limits}
        with self._lock:
            files = [each.fileno() for each in (output, errors or output, stdin) if each]
            socket.send_fds(self._socket, [json.dumps(request).encode()], files)
            while "started" not in (message := self._next()):
                pass
            forked = self._running[message["started"]] = Forked(self, message["started"])
        return forked

    def hear(self):
        """Set the exit codes of the processes that have ended."""
        with self._lock, contextlib.suppress(BlockingIOError):
            while True:
                self._next(socket.MSG_DONTWAIT)

    def close(self):
        if os.getpid() == self._owner:  # and not in a fork of it
            self._socket.shutdown(socket.SHUT_RDWR)
            self._process.wait()

    def _next(self, flags=0):
        message = self._socket.recv(1000, flags)
        if not message:
            raise RuntimeError("the process that starts relays has ended")
        message = json.loads(message)
        if "ended" in message:
            self._running.pop(message["ended"]).returncode = message["code"]
        return message


def _fixed():
    return {name: value for name, value in os.environ.items() if name.startswith(FIXED)}


_at_import = _fixed()


def can_start(command):
    """Return whether a command is a Python file that may run in a fork."""
    return command[0] == sys.executable and _fixed() == _at_import


def run(command, environ, folder=None, text=None, seconds=None):
    """Run a Python file in a fork, or else a program, to its end. Return what subprocess.run() does."""
    options = {"capture_output": True, "text": True, "env": environ, "cwd": folder, "timeout": seconds}
    if not can_start(command):
        return subprocess.run(command, input=text, **options)
    with contextlib.ExitStack() as files:
        stdin, output, errors = (files.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3))
        stdin.write(text or "")
        for each in (stdin, output, errors):
            each.seek(0)
        folder = folder or os.getcwd()
        process = of_this_process().start(
            command[1:], output, environ, folder, errors, stdin if text is not None else None
        )
        try:
            process.wait(seconds)
        finally:
            process.kill()
        for each in (output, errors):
            each.seek(0)
        return subprocess.CompletedProcess(command, process.returncode, output.read(), errors.read())


def of_this_process():
    """Return the Starter of this process."""
    return _starter(os.getpid())


@functools.cache
def _starter(pid):
    starter = Starter()
    atexit.register(starter.close)
    return starter


def serve(connection):
    """Fork for each request. In the fork, return the request; in this process, end when the other side closes.

    The relays that no test has ended by then end as well.
    """
    running = set()
    wakes, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        readable, _, _ = select.select([connection, wakes], [], [])
        if wakes in readable:
            os.read(wakes, 1000)
            running -= report_ends(connection)
        if connection in readable:
            message, files, _, _ = socket.recv_fds(connection, 100_000, 3)
            if not message:
                for pid in running:
                    os.kill(pid, signal.SIGKILL)
                os._exit(0)
            pid = os.fork()
            if pid == 0:
                os.close(wakes)
                signal.set_wakeup_fd(-1)
                os.close(wake)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                connection.close()
                return json.loads(message), files
            running.add(pid)
            for file in files:
                os.close(file)
            connection.send(json.dumps({"started": pid}).encode())


def report_ends(connection):
    """Send the exit codes of the processes that have ended, and return their ids."""
    reported = set()
    with contextlib.suppress(ChildProcessError, OSError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            reported.add(ended[0])
            code = os.waitstatus_to_exitcode(ended[1])
            connection.send(json.dumps({"ended": ended[0], "code": code}).encode())
    return reported


def become(request, files):
    """Make this process what `python FILE ARGUMENTS` would be, up to its first line."""
    for number, file in zip((1, 2, 0), files, strict=False):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environ"])
    resource.setrlimit(resource.RLIMIT_NOFILE, request["files"])
    sys.argv = request["arguments"]
    sys.path[0] = str(pathlib.Path(sys.argv[0]).parent)
    if sys.argv[0] == str(ROOT / "relay.py"):
        sys.modules["pushrelay.access.instance"].WORD = secrets.token_hex(16)  # each process has its own
    else:
        for name in [each for each in sys.modules if each.partition(".")[0] == "pushrelay"]:
            del sys.modules[name]


def import_all():
    """Import what relays need."""
    sys.path.insert(0, str(ROOT))
    for name in (*PACKAGES, *MODULES):
        __import__(name)
    sys.path.remove(str(ROOT))


if __name__ == "__main__":
    import_all()
    gc.freeze()  # the forks share what is there, instead of copying it at their first collection
    signal.signal(signal.SIGINT, signal.default_int_handler)
    become(*serve(socket.socket(fileno=int(sys.argv[1]))))
    runpy.run_path(sys.argv[0], run_name="__main__")
