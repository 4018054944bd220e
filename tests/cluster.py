"""Several relays that share one Redis: real processes, which tests kill, freeze and restart."""

import contextlib
import json
import os
import signal
import time

from conftest import DEADLINE, Relay, wait_for

MUTANT = os.environ.get("MUTANT")  # a relay of mutants.py, which checks that tests notice it


class Node(Relay):
    """One relay of a cluster."""

    def __init__(self, name, log, program="relay.py", **settings):
        self.name = name
        if MUTANT:
            program, settings["mutant"] = "tests/mutants.py", MUTANT
        super().__init__(log, program, **settings)

    def freeze(self):
        """Stop the process with SIGSTOP; it keeps its connections."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        """End it with SIGKILL, also while it is frozen."""
        super().kill()

    def restart(self, patience=DEADLINE):
        """Start it on the same port. If it refuses to start, because Redis is away, try again as systemd does."""
        end = time.monotonic() + patience
        while True:
            try:
                return self.start()
            except AssertionError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def is_ready(self):
        """Return whether it would accept a push."""
        return self.trouble() is None

    def trouble(self):
        """Return the reason that /health/ready gives, None if it is ready."""
        try:
            status, _, body = self.request("GET", "/health/ready")
        except OSError as error:
            return str(error)
        return None if status == 200 else json.loads(body)["reason"]

    def wait_until_ready(self, deadline=DEADLINE):
        wait_for(self.is_ready, f"relay {self.name} is ready", deadline)

    def text(self):
        """Return its log."""
        return self.log.read_text(errors="replace")

    def lines(self, *words):
        """Return the lines of its log that have all of these words."""
        return [line for line in self.text().splitlines() if all(word in line for word in words)]


class Cluster:
    """`count` relays named a, b, c and so on. `urls` is one address of Redis, or a list with one for each relay."""

    def __init__(self, folder, urls, count=3, program="relay.py", **settings):
        urls = [urls] * count if isinstance(urls, str) else urls
        self.nodes = []
        with contextlib.ExitStack() as started:
            for name, url in zip("abcdefghij", urls, strict=False):
                self.nodes.append(Node(name, folder / f"relay-{name}.log", program, broker=url, **settings))
                started.callback(self.nodes[-1].kill)
            self._started = started.pop_all()

    def __getitem__(self, number):
        return self.nodes[number]

    def __iter__(self):
        return iter(self.nodes)

    def wait_until_ready(self, deadline=DEADLINE):
        for node in self.nodes:
            node.wait_until_ready(deadline)

    def tracebacks(self):
        """Return the logs that have a traceback."""
        return [node.text() for node in self.nodes if "Traceback" in node.text()]

    def close(self):
        self._started.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
