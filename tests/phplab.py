"""PHP for the tests: scripts that use php/Relay.php, PHP's own web server, and servers that are not a relay."""

import contextlib
import json
import os
import re
import shutil
import signal
import socketserver
import subprocess
import threading
import time
import urllib.request

from conftest import DEADLINE, ROOT, clean_environ, free_port, need, wait_for

CLIENT = ROOT / "php" / "Relay.php"
PROLOGUE = f"<?php error_reporting(E_ALL); ini_set('display_errors', '1'); require '{CLIENT}';\n"
# Prints each push with its time. PHP's own messages are off, because they would break the JSON.
TIMED = """
function timed(callable $work): array {
    $start = hrtime(true);
    $answer = $work();
    return ['answer' => $answer, 'ms' => (hrtime(true) - $start) / 1e6];
}
"""


def patient(code):
    """Return PHP code whose pushes wait for a busy machine: documented are 0.3 seconds."""
    code = code.replace("CURLOPT_TIMEOUT_MS, 300)", "CURLOPT_TIMEOUT_MS, 20000)")
    return re.sub(r"(new Relay\('[^']*')(?:, \[|\))", lambda found: f"{found[1]}, ['budget' => 20{end(found)}", code)


def end(found):
    return ", " if found[0].endswith("[") else "])"


class Php:
    """PHP with its own folder for temporary files, so that no breaker outlives its test."""

    def __init__(self, folder):
        need(shutil.which("php"), "PHP (apt-get install php-cli php-curl)")
        self.folder = folder
        self.tmp = folder / "tmp"
        self.tmp.mkdir(mode=0o700)
        self.environ = {**clean_environ(), "TMPDIR": str(self.tmp)}

    def run(self, code, *flags, **environ):
        """Run code that echoes JSON, and return the value. Any other output of PHP fails the test."""
        script = self.folder / f"{time.monotonic_ns()}.php"
        script.write_text(PROLOGUE + TIMED + code)
        command = ["php", *flags, str(script)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, env={**self.environ, **environ})
        assert ran.returncode == 0 and not ran.stderr, ran
        try:
            return json.loads(ran.stdout)
        except ValueError:
            raise AssertionError(f"this is not JSON alone: {ran.stdout}") from None

    def push(self, url, options="[]", push="'42', 'hello'", times=1):
        """Push several times with one object; return a list of {answer, error, ms}."""
        return self.run(f"""
            $relay = new Relay('{url}', {options});
            for ($i = 0; $i < {times}; $i++) {{
                $got = timed(function () use ($relay) {{ return $relay->push({push}); }});
                $all[] = $got + ['error' => $relay->lastError()];
            }}
            echo json_encode($all);""")

    @contextlib.contextmanager
    def serve(self, folder, *flags, workers=4, **environ):
        """Start PHP's own web server for a folder, and return its URL."""
        port = free_port()
        environ = {**self.environ, "PHP_CLI_SERVER_WORKERS": str(workers), **environ}
        command = ["php", *flags, "-d", "display_errors=1", "-d", "error_reporting=-1", "-t", str(folder)]
        with open(self.folder / "server.log", "ab") as log:
            command += ["-S", f"127.0.0.1:{port}"]
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environ, start_new_session=True)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(lambda: answers(url + "/no-such-file"), "PHP's web server")
            yield url
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # its workers would outlive it
            process.wait(DEADLINE)


def answers(url):
    try:
        urllib.request.urlopen(url, timeout=DEADLINE).close()
    except urllib.error.HTTPError as error:
        error.close()
    except OSError:
        return False
    return True


def get(url):
    with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
        return answer.read().decode()


class Stranger(socketserver.ThreadingTCPServer):
    """A server that calls `behave(stranger, connection, request)` with all bytes of each request."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, behave):
        self.behave = behave
        self.requests = []
        self.closing = threading.Event()
        super().__init__(("127.0.0.1", 0), None)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def finish_request(self, connection, address):
        request = read_request(connection)
        if request:  # not a connection that only tests whether the port is open
            self.requests.append(request)
            with contextlib.suppress(OSError):
                self.behave(self, connection, request)

    def handle_error(self, connection, address):
        """Ignore errors of clients that disconnect, which these tests are about."""

    def end(self):
        self.closing.set()
        self.shutdown()
        self.server_close()


def read_request(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def reply(status, body=b"", *headers):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def hang(stranger, connection, request):
    stranger.closing.wait(DEADLINE)


def drip(stranger, connection, request):
    for byte in reply("200 OK", b"[" * 1000):
        connection.sendall(bytes([byte]))
        if stranger.closing.wait(0.03):
            return


def says(*replies):
    """Return a behavior that answers each request with the next reply, and from the last one on always with that."""

    def behave(stranger, connection, request):
        connection.sendall(replies[min(len(stranger.requests), len(replies)) - 1])

    return behave
