"""A machine on which the docs' commands run unchanged, with ports 80, 443 and 8080, and /etc, /var and /opt.

It is this machine in namespaces of its own. Changes in those folders are kept in memory, and go with the process. If
the tests replaced ports and folders in the docs' text instead, they would not test the text that people paste.
"""

import json
import os
import pathlib
import shlex
import shutil
import subprocess
import time

from conftest import DEADLINE, ROOT, clean_environ, need, wait_for

HOSTS = ("example.com", "www.example.com", "shop.example.com", "relay.example")
PREPARE = r"""
set -e
mount -t tmpfs tmpfs "$LAYERS"
for each in etc var opt; do
  mkdir -p "$LAYERS/$each/up" "$LAYERS/$each/work"
  mount -t overlay overlay -o "lowerdir=/$each,upperdir=$LAYERS/$each/up,workdir=$LAYERS/$each/work" "/$each"
done
mkdir -p /opt/relay /etc/letsencrypt/live/example.com
mount --bind "$CLONE" /opt/relay
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/apache2 /run/php
cp "$CERT" /etc/letsencrypt/live/example.com/fullchain.pem
cp "$KEY" /etc/letsencrypt/live/example.com/privkey.pem
echo "127.0.0.1 localhost $(hostname) $HOSTS" > /etc/hosts
ip link set lo up
echo ready
exec "$PYTHON" -c '
import os, time
while True:
    try:
        os.wait()
    except ChildProcessError:
        time.sleep(0.05)
'
"""
# Programs that a container does not have, or may not use.
STUBS = {
    "systemctl": """
case "$*" in
*"restart apache2")
  [ -e /run/apache2/apache2.pid ] && apachectl stop
  while pgrep -x apache2 >/dev/null; do sleep 0.05; done
  exec apachectl start ;;
*"restart nginx")
  [ -s /run/nginx.pid ] && kill "$(cat /run/nginx.pid)"
  while pgrep -x nginx >/dev/null; do sleep 0.05; done
  exec nginx ;;
esac
""",
    # The package exists, but nothing is installed, because tests use no network.
    "apt-get": """
for each; do
  case "$each" in -*|install|update) ;; *) apt-cache policy "$each" | grep -q . || exit 100 ;; esac
done
""",
    "sudo": 'exec "$@"\n',
    "python": f'exec {os.environ.get("VIRTUAL_ENV", ROOT / ".venv")}/bin/python "$@"\n',
}


class Machine:
    """The machine. `run` and `start` run shell commands on it, in the clone; `close` ends everything."""

    def __init__(self, folder, certificate):
        need(shutil.which("unshare") and shutil.which("ip"), "unshare and ip (apt-get install util-linux iproute2)")
        need(os.geteuid() == 0 and subprocess.run(["unshare", "-mn", "true"]).returncode == 0, "namespaces (root)")
        self.folder = folder
        self._started = []
        for name in ("layers", "stubs"):
            (folder / name).mkdir()
        for name, text in STUBS.items():
            (folder / "stubs" / name).write_text("#!/bin/sh\n" + text)
            (folder / "stubs" / name).chmod(0o755)
        given = {"LAYERS": folder / "layers", "CLONE": ROOT, "CERT": certificate.cert, "KEY": certificate.key}
        given |= {"HOSTS": " ".join(HOSTS), "PYTHON": shutil.which("python3")}
        self.environ = {**clean_environ(), "PATH": f"{folder / 'stubs'}:{os.environ['PATH']}:/usr/sbin:/sbin"}
        environ = {**self.environ, **{name: str(value) for name, value in given.items()}}
        command = ["unshare", "-mnpf", "--mount-proc", "--kill-child", "sh", "-c", PREPARE]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environ, text=True)
        try:
            assert self.process.stdout.readline() == "ready\n", "the machine did not start"
            children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
            self.pid = int(children.read_text().split()[0])
        except BaseException:
            self.close()
            raise

    def inside(self, *command):
        """Return a command line that runs a command there."""
        return ["nsenter", "-t", str(self.pid), "-m", "-n", "-p", "--", *command]

    def on_network(self, *command):
        """Return a command line that runs a command on its network, with the files and processes from here."""
        return ["nsenter", "-t", str(self.pid), "-n", "--", *command]

    def run(self, script, expected=0, timeout=120, **environ):
        """Run a shell script to its end, and return its output. If the script fails, the test fails."""
        command = self.inside("sh", "-ec", f"cd /opt/relay\n{script}")
        ran = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            env={**self.environ, **environ},
        )
        assert ran.returncode == expected, f"{script}\n{ran.stdout}"
        return ran.stdout

    def start(self, script, **environ):
        """Start a shell script that keeps running."""
        log = (self.folder / f"log{time.monotonic_ns()}").open("w+")
        command = self.inside("sh", "-ec", f"cd {self.folder}\n{script}")
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**self.environ, **environ})
        process.log = pathlib.Path(log.name)
        self._started.append(process)
        return process

    def relay(self, *flags, port=8080):
        """Start a relay there, and wait until it serves."""
        line = " ".join(["python", str(ROOT / "relay.py"), "--broker=memory:", f"--port={port}", *flags])
        process = self.start(f"echo $$ > relay{port}.pid; exec {line}")
        wait_for(lambda: "serves on" in process.log.read_text() or process.poll() is not None, "the start")
        assert process.poll() is None, process.log.read_text()
        return process

    def get(self, url, *options):
        """Return the response that curl gets, with the status on a line before it."""
        curl = shlex.join(["curl", "-sk", "-m", f"{DEADLINE:g}", "-w", "\\n%{http_code}", *options, url])
        return self.run(f"{curl} || true").rpartition("\n")[::-2]

    def push(self, destination, data):
        fields = f"--data-urlencode 'destination={destination}' --data-urlencode 'data={data}'"
        return json.loads(self.run(f"curl -s {fields} http://127.0.0.1:8080/push"))

    def close(self):
        self.process.kill()  # this ends everything that runs there
        self.process.wait(DEADLINE)
        self.process.stdout.close()
        for process in self._started:  # nsenter is outside, and may be stopped like the program that it started
            process.kill()
            process.wait(DEADLINE)
