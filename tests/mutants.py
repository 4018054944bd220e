"""Relays without one of the protections against a Redis that fails, and the check that tests notice each of them.

python tests/mutants.py all           # runs a test with each mutant; the exit code is 1 if one is not noticed
python tests/mutants.py no_resync     # the same with one
MUTANT=no_resync python tests/chaos.py                    # any test that uses cluster.py, with this mutant
python tests/mutants.py --mutant=no_resync --broker=…     # the relay itself, as cluster.py starts it
"""

import os
import pathlib
import runpy
import subprocess
import sys
import time
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
FLAG = "--mutant="


class Mutant(NamedTuple):
    """A relay without a protection, and the command whose failure shows that its absence is noticed."""

    patch: Any  # it is called before the relay starts
    command: tuple[str, ...]  # arguments of Python


MUTANTS: dict[str, Mutant] = {}


def mutant(*command):
    """Make a function a mutant, which this command must notice."""

    def add(patch):
        MUTANTS[patch.__name__] = Mutant(patch, command)
        return patch

    return add


def chaos(scenario, kinds, seconds=15):
    return ("tests/chaos.py", "--scenario", scenario, "--kinds", kinds, "--seconds", str(seconds), "--calm", "15")


def pytest(file, name):
    return ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/{file}", "-k", name)


def without(script, text, instead=""):
    """Change a Lua script."""
    from hashlib import sha1

    from pushrelay.store.redis import scripts

    it = getattr(scripts, script)
    assert it.text.count(text) == 1, f"{script} no longer has the line {text!r}"
    it.text = it.text.replace(text, instead)
    it.sha = sha1(it.text.encode(), usedforsecurity=False).hexdigest()


@mutant(*chaos("always", "redis_kill,redis_kill_all,redis_kill_one", 20))
def no_number_guard():
    """A batch that is sent again is stored again."""
    without("BATCH", "if last == number then return {1, answer} end")


@mutant(*chaos("everysec", "redis_kill_all,proxy_cut"))
def no_resync():
    """After a cut, a node goes on with what is published next."""
    from pushrelay.store.redis import broker

    read_missed = broker.read_missed
    broker.read_missed = lambda *args: read_missed(*args)._replace(entries={}, lost=[])


@mutant(*chaos("everysec", "redis_kill_all,proxy_cut"))
def no_tips():
    """After a cut, a node subscribes and asks nothing."""
    from pushrelay.store.redis import broker, held, resync

    def wants(self, key, offset):
        reached = self.reached.get(key)
        return reached is not None and offset > reached

    held.Held.wants = wants
    broker.read_missed = lambda talk, held, *rest: resync.Missed(dict(held.reached), {}, [])


@mutant(*chaos("everysec", "proxy_half_down,proxy_half_up"))
def no_beat():
    """Nothing shows that a connection is dead if it does not say so itself."""
    from pushrelay.store.redis.link import BEAT_EVERY, Link

    Link._beat = lambda self: setattr(self, "_timer", self.loop.call_later(BEAT_EVERY, self._beat))


@mutant(*pytest("whole/test_redis_losses.py", "emptied and flushed"))
def ping_for_beat():
    """The beat does not write, and compares nothing."""
    from pushrelay.store.redis.link import Link

    def beaten(self, reply, work):
        self._beat_sent = 0.0

    Link._beaten = beaten
    run_script = Link.run_script

    def run(self, script, args, callback):
        if script.name == "beat":
            self.send(("PING",), callback)
        else:
            run_script(self, script, args, callback)

    Link.run_script = run


@mutant(*chaos("flushed", "redis_flush", 10))
def no_generation():
    """Only offsets tell what is new in a history."""
    from pushrelay.store.redis import resync

    def new_entries(history, reached, trimmed, before, now):
        return [each for each in history if each.offset > reached], False

    resync._new_entries = new_entries


@mutant(*pytest("whole/test_redis_losses.py", "in_turn"))
def no_earlier_epochs():
    """A node that comes back to a store does not know what it had of it."""
    from pushrelay.store.redis.held import Held

    Held.leave = lambda self, epoch, generation: None


@mutant(*pytest("whole/test_redis_losses.py", "cannot_be_filled"))
def silent_holes():
    """A hole that cannot be filled is passed over."""
    from pushrelay.store.redis.broker import RedisBroker

    RedisBroker._send_back = lambda self, keys: None


@mutant(*pytest("whole/test_redis_losses.py", "failover_lost and restarted"))
def kind_takeover():
    """Another Redis is taken for the same store."""
    without("HELLO", "(m[2] ~= run and not durable)", "false")


def run_relay(name):
    """Run relay.py with the rest of the arguments."""
    sys.path.insert(0, str(ROOT))
    MUTANTS[name].patch()
    sys.argv[0] = str(ROOT / "relay.py")
    runpy.run_path(sys.argv[0], run_name="__main__")


def is_noticed(name):
    """Run the test with a mutant. Return (whether it failed as it must, the output)."""
    command = [sys.executable, *MUTANTS[name].command]
    environ = {**os.environ, "MUTANT": name}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environ, cwd=ROOT)
    return ran.returncode == 1 and ("VIOLATION" in ran.stdout or "1 failed" in ran.stdout), ran.stdout + ran.stderr


def check(names):
    """Check these mutants, print a line for each, and return the number of those that were not noticed."""
    unnoticed = 0
    for name in names:
        begin = time.monotonic()
        noticed, output = is_noticed(name)
        signs = [line.strip() for line in output.splitlines() if "VIOLATION" in line or line.startswith("E  ")]
        word = "noticed" if noticed else "NOT NOTICED"
        sys.stdout.write(f"{name:20} {word:12} {time.monotonic() - begin:4.0f} s  {''.join(signs[:1])[:150]}\n")
        if not noticed:
            unnoticed += 1
            sys.stdout.write(output[-3000:] + "\n")
        sys.stdout.flush()
    return unnoticed


def main():
    flag = next((each for each in sys.argv if each.startswith(FLAG)), None)
    if flag:
        sys.argv.remove(flag)
        run_relay(flag.removeprefix(FLAG))
        return
    names = sys.argv[1:] if sys.argv[1:] != ["all"] else list(MUTANTS)
    if not names or not set(names) <= set(MUTANTS):
        sys.exit(f"usage: python tests/mutants.py all, or names of {', '.join(MUTANTS)}")
    sys.exit(bool(check(names)))


if __name__ == "__main__":
    main()
