"""Carries out a Dockerfile without a container runtime: a stage is a copy of a minimal Debian, in which each step runs.

It knows the instructions and the forms that our Dockerfile uses; anything else fails. The
processes of a container, such as its health check, run in namespaces of their own.
"""

import contextlib
import fnmatch
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess

from conftest import DEADLINE, ROOT, need, wait_for
from debian import debian

# How this machine reaches the package registries is no part of the image, so these files are there for RUN only.
REGISTRIES = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/apt/apt.conf.d",
    "/etc/pip.conf",
    "/etc/xdg/pip",
    "/root/.config/pip",
)
CERTIFICATES = "/usr/local/share/ca-certificates"
PREPARE = """
set -e
mount -t tmpfs tmpfs "$LAYERS"
mkdir "$LAYERS/stages"
echo ready
exec sleep infinity
"""


def instructions(text):
    """Return the instructions of a Dockerfile as pairs (name, rest)."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n", "", "\n".join(lines))
    return [tuple(line.strip().split(None, 1)) for line in whole.splitlines() if line.strip()]


def is_ignored(path, patterns):
    """Return whether .dockerignore leaves a path of the context out: the last pattern that matches decides."""
    ignored = False
    parents = [path, *(str(each) for each in pathlib.PurePath(path).parents if str(each) != ".")]
    for pattern in patterns:
        is_exception, bare = pattern.startswith("!"), pattern.lstrip("!")
        if any(fnmatch.fnmatch(each, bare) or fnmatch.fnmatch(f"/{each}", bare.replace("**", "*")) for each in parents):
            ignored = not is_exception
    return ignored


class Stage:
    """One FROM: a file system, and what the later instructions say about its processes."""

    def __init__(self, root):
        self.root = root
        self.environ = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.user = "0:0"
        self.folder = "/"
        self.entrypoint, self.command, self.health = [], [], []
        self.stop_signal, self.ports, self.volumes = "SIGTERM", [], []


class Builder:
    """Builds the images of one Dockerfile, in a mount namespace and in memory."""

    def __init__(self, folder, dockerfile):
        need(os.geteuid() == 0 and shutil.which("unshare") and shutil.which("ip"), "root, unshare and ip")
        need(subprocess.run(["unshare", "-mn", "true"]).returncode == 0, "namespaces")
        self.text = (ROOT / dockerfile).read_text()
        self._ignored = [
            line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
        ]
        self._layers = folder / "layers"
        self._layers.mkdir()
        self._stages = {}
        environ = {**os.environ, "LAYERS": str(self._layers)}
        command = ["unshare", "-m", "sh", "-c", PREPARE]
        self._holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)
        assert self._holder.stdout.readline() == "ready\n"

    def build(self):
        """Carry out all instructions, and return the last stage."""
        stage = None
        for name, rest in instructions(self.text):
            if name == "FROM":
                stage = self._from(rest)
            else:
                getattr(self, f"_{name.lower()}")(stage, rest)
        return stage

    def inside(self, *command):
        """Return a command line that runs a command where the stages can be seen."""
        return ["nsenter", "-t", str(self._holder.pid), "-m", "--", *command]

    def outside(self, *command, **options):
        """Run a command there to its end, and return its output."""
        ran = subprocess.run(self.inside(*command), capture_output=True, text=True, timeout=300, **options)
        assert ran.returncode == 0, f"{shlex.join(command)}\n{ran.stdout[-3000:]}{ran.stderr[-3000:]}"
        return ran.stdout

    def close(self):
        self._holder.kill()
        self._holder.wait(DEADLINE)

    # The instructions.

    def _from(self, rest):
        image, _, name = rest.partition(" AS ")
        if image in self._stages:
            base = self._stages[image].root
        else:
            base = debian(re.fullmatch(r"debian:(\w+)-slim", image)[1])
        layers = self._layers / "stages" / str(len(self._stages))
        root = layers / "root"
        mount = f"lowerdir={base},upperdir={layers}/up,workdir={layers}/work"
        self.outside("mkdir", "-p", *(str(layers / each) for each in ("root", "up", "work")))
        self.outside("mount", "-t", "overlay", "overlay", "-o", mount, str(root))
        stage = self._stages[name or str(len(self._stages))] = Stage(root)
        return stage

    def _run(self, stage, rest):
        script = f"""
            set -e
            root={stage.root}
            mount -t proc proc $root/proc
            mount --bind /dev $root/dev
            mount -t tmpfs tmpfs $root/dev/shm
            for each in {" ".join(REGISTRIES)}; do
              [ -e $each ] || continue
              mkdir -p $root$(dirname $each)
              if [ -d $each ]; then
                mkdir -p $root$each
                mount -t tmpfs tmpfs $root$each
                cp -rL $each/. $root$each/
              else
                [ -e $root$each ] || : >$root$each
                mount --bind $each $root$each
              fi
            done
            if [ -n "${{PIP_CERT:-}}" ]; then
              cp -L $PIP_CERT $root/dev/shm/registries.pem
              export PIP_CERT=/dev/shm/registries.pem
            fi
            exec chroot $root {self._as_user(stage)} /bin/sh -c {shlex.quote(f"cd {stage.folder} && {rest}")}
        """
        given = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        environ = {**stage.environ, "DEBIAN_FRONTEND": "noninteractive", "HOME": "/root", **given}
        self.outside("unshare", "--mount", "sh", "-c", script, env=environ)

    def _copy(self, stage, rest):
        *sources, target = shlex.split(rest)
        if sources[0].startswith("--from="):
            other = self._stages[sources.pop(0).removeprefix("--from=")].root
            [source] = sources
            self.outside("mkdir", "-p", str(stage.root) + os.path.dirname(target))
            self.outside("cp", "-a", f"{other}{source}", f"{stage.root}{target}")
            return
        for source in sources:
            there = ROOT / source
            files = [each for each in there.rglob("*") if each.is_file()] if there.is_dir() else [there]
            files = [each for each in files if not is_ignored(str(each.relative_to(ROOT)), self._ignored)]
            assert files, f"COPY {source}: .dockerignore leaves out everything"
            lines = []
            for file in files:
                inside = file.relative_to(there) if there.is_dir() else file.name if target.endswith("/") else ""
                place = f"{stage.root}{target.rstrip('/')}/{inside}".rstrip("/")
                lines.append(shlex.join(["install", "-D", "-p", "-m", "644", str(file), place]))
            self.outside("sh", "-ec", "\n".join(lines))

    def _env(self, stage, rest):
        stage.environ.update(each.split("=", 1) for each in shlex.split(rest))

    def _user(self, stage, rest):
        assert re.fullmatch(r"\d+:\d+", rest), "the numbers of user and group"
        stage.user = rest

    def _workdir(self, stage, rest):
        self.outside("mkdir", "-p", f"{stage.root}{rest}")
        stage.folder = rest

    def _entrypoint(self, stage, rest):
        stage.entrypoint, stage.command = json.loads(rest), []

    def _cmd(self, stage, rest):
        stage.command = json.loads(rest)

    def _healthcheck(self, stage, rest):
        stage.health = json.loads(re.fullmatch(r"(?:--[\w-]+=\S+ +)*CMD (\[.*\])", rest)[1])

    def _stopsignal(self, stage, rest):
        stage.stop_signal = rest

    def _expose(self, stage, rest):
        stage.ports += [int(each) for each in rest.split()]

    def _volume(self, stage, rest):
        stage.volumes.append(rest)

    # Containers.

    def _as_user(self, stage):
        user, group = stage.user.split(":")
        return f"setpriv --reuid={user} --regid={group} --clear-groups"

    def container(self, stage, *arguments, **environ):
        """Start a container of an image: its process 1, in namespaces of its own."""
        return Container(self, stage, arguments, environ)


def _children(pid):
    return [int(each) for each in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Container:
    """A container. `process` ends with the exit code of its process 1."""

    def __init__(self, builder, stage, arguments, environ):
        self.stage = stage
        command = [*stage.entrypoint, *(arguments or stage.command)]
        settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in {**stage.environ, **environ}.items())
        self._as_user = f"{builder._as_user(stage)} env -i {settings}"
        script = f"""
            mount -t proc proc {stage.root}/proc
            mount --bind /dev {stage.root}/dev
            ip link set lo up
            cd {stage.root}
            exec chroot . {self._as_user} sh -c {shlex.quote(f'cd {stage.folder}; exec "$@"')} sh {shlex.join(command)}
        """
        unshare = [
            "unshare",
            "--mount",
            "--net",
            "--pid",
            "--ipc",
            "--uts",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            script,
        ]
        self.log = builder._layers.parent / f"log{len(list(builder._layers.parent.glob('log*')))}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(builder.inside(*unshare), stdout=log, stderr=log)
        self._find(command[0])

    def _find(self, program):
        """Find the process that is process 1 in there, by its number out here, once the image's program has a child.

        By then it handles signals. Until it does, Linux drops those that are sent to a process 1.
        """

        def process_1():
            with contextlib.suppress(OSError, IndexError):
                pid = _children(self.process.pid)[0]
                is_program = pathlib.Path(f"/proc/{pid}/comm").read_text() == f"{program}\n"
                return is_program and _children(pid) and pid
            return self.process.poll() is not None

        self.pid = wait_for(process_1, "process 1")

    def run(self, *command):
        """Run a command in there, as its user, as a health check or `docker exec` does."""
        there = ["nsenter", "-t", str(self.pid), "-m", "-n", "-p", "-i", "-u", f"--root=/proc/{self.pid}/root"]
        script = f'cd {self.stage.folder}; exec {self._as_user} "$@"'
        return subprocess.run(
            [*there, "--", "sh", "-c", script, "sh", *command], capture_output=True, text=True, timeout=DEADLINE
        )

    def is_healthy(self):
        return self.run(*self.stage.health).returncode == 0

    def children(self):
        """Return the states of the children of process 1, such as S for sleeping and Z for zombie."""
        states = []
        for each in _children(self.pid):
            with contextlib.suppress(OSError):
                states.append(pathlib.Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[0])
        return states

    def stop(self):
        """Stop it as `docker stop` does, and return the exit code."""
        os.kill(self.pid, getattr(signal, self.stage.stop_signal))
        return self.process.wait(DEADLINE)

    def close(self):
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.process.wait(DEADLINE)
