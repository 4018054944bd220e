"""Relays on one Redis under every kind of failure: python tests/chaos.py --seconds 60 --seed 1 --scenario always

Publishers push through all relays, and each relay has a client that returns with its last positions. Relays and
Redis are killed, frozen and cut off, in an order that the seed determines. In the end every answered push must have
arrived at every client exactly once and in order, within what Redis promises in this scenario (see SCENARIOS). The exit
code is 1 if it did not. `--kinds redis_kill,relay_kill` restricts the failures to some kinds.
"""

import argparse
import contextlib
import pathlib
import random
import signal
import sys
import tempfile
import threading
import time
from typing import Any, NamedTuple

from chaos_site import KINDS, SCENARIOS, TORN, Site
from conftest import ROOT
from verdict import Verdict
from witnesses import Publisher, Witness

DESTINATIONS = 48
PUBLISHERS = 6
KEYLESS = 3  # publishers of these that use no idempotency keys
PAUSES = (0.15, 0.7)  # seconds between two failures
MOST_TIMES = 5  # as long as --seconds, if pushes or incidents are still to come


class Incident(NamedTuple):
    """A failure."""

    kind: str
    begin: float
    end: float
    detail: str


class Run:
    """One run: `violations` and `figures` are its result."""

    def __init__(self, folder, options):
        self.options = options
        self.scenario = SCENARIOS[options.scenario]
        self.kinds = [each for each in options.kinds or self.scenario.kinds]
        self.incidents = []
        self.site = Site(folder, self.scenario)
        self.publishers, self.witnesses = [], []
        self.verdict = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for each in self.witnesses:
            each.stop()
        self.site.close()

    def go(self):
        self._begin()
        began = time.monotonic()
        self._fail(began)
        self.seconds = time.monotonic() - began
        self.site.heal()
        given_up = [each for each in self.publishers if not each.stop(self.options.calm)]
        self._wait_for_witnesses()
        for each in self.witnesses:
            each.stop()
        allowed = self.scenario.allowed
        self.is_torn = self.site.redis is not None and self.site.redis.is_torn()
        if self.is_torn:
            allowed = allowed._replace(losses=True, epochs=True)
        self.verdict = Verdict(self.publishers, self.site.cluster[0], allowed)
        for each in self.witnesses:
            self.verdict.check(each)
        self.verdict.violations += self._shortfall()
        self.verdict.violations += [f"a batch was not answered within {self.options.calm:g} s" for _ in given_up]
        self.verdict.violations += [f"a traceback: {text[-1500:]}" for text in self.site.cluster.tracebacks()]

    def _begin(self):
        names = [f"d{number}" for number in range(DESTINATIONS)]
        ports = [node.port for node in self.site.cluster]
        seed = self.options.seed
        wanderer = random.Random(f"{seed} wanderer")
        for node in self.site.cluster:
            self.witnesses.append(Witness(node.name, lambda port=node.port: port, names))
        self.witnesses.append(Witness("wanderer", lambda: wanderer.choice(ports), names))
        for each in self.witnesses:
            each.start()
        self._wait(lambda: all(each.registrations for each in self.witnesses), "all clients to register")
        for number in range(PUBLISHERS):
            rate = self.options.rate / PUBLISHERS
            has_keys = number >= KEYLESS
            self.publishers.append(Publisher(number, ports, names[number::PUBLISHERS], rate, seed, has_keys))
            self.publishers[-1].start()

    def _fail(self, began):
        """Let one failure follow another, all kinds in turn in a random order, until the run is long enough."""
        chance = random.Random(self.options.seed)
        options, deck = self.options, []
        while (now := time.monotonic()) < began + MOST_TIMES * options.seconds:
            enough = sum(each.count for each in self.publishers) >= options.pushes
            if now > began + options.seconds and enough and len(self.incidents) >= options.incidents:
                return
            time.sleep(chance.uniform(*PAUSES))
            deck = deck or chance.sample(self.kinds, len(self.kinds))
            kind, begin = deck.pop(), time.monotonic()
            detail = KINDS[kind](self.site, chance, self.witnesses)
            self.incidents.append(Incident(kind, begin, time.monotonic(), detail or ""))

    def _shortfall(self):
        options = self.options
        if self.answered >= options.pushes and len(self.incidents) >= options.incidents:
            return []
        wanted = f"wanted {options.pushes:,} pushes and {options.incidents} incidents"
        return [f"only {self.answered:,} pushes were answered during {len(self.incidents)} incidents, {wanted}"]

    def _wait_for_witnesses(self):
        """Wait until each client has the last number of each destination that was answered."""
        ends = {}
        for publisher in self.publishers:
            for to, positions in publisher.answered.items():
                answered = [(number, position) for number, position in enumerate(positions, 1) if position]
                ends |= {to: answered[-1]} if answered else {}
        with contextlib.suppress(TimeoutError):  # what is missing is a violation
            self._wait(
                lambda: all(witness.has(to, *end) for witness in self.witnesses for to, end in ends.items()),
                "all publications to arrive",
            )
        time.sleep(0.5)  # what comes twice may come later

    def _wait(self, condition, what):
        end = time.monotonic() + self.options.calm
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"waited {self.options.calm:g} s for {what}")
            time.sleep(0.02)

    # Results.

    @property
    def answered(self):
        return sum(each.count for each in self.publishers)

    @property
    def violations(self):
        return self.verdict.violations

    def worst(self, begin=0.0, end=float("inf")):
        return max(each.worst(begin, end) for each in self.publishers)

    def report(self):
        """Return the figures as text."""
        options, delivered = self.options, sum(each.count for each in self.witnesses)
        lines = [
            f"{options.scenario}, seed {options.seed}: {self.answered:,} answered and {delivered:,} delivered "
            f"in {self.seconds:.0f} s, {len(self.incidents)} incidents, slowest batch {self.worst():.2f} s",
            "  incident           times   slowest batch, s",
        ]
        starts = [each.begin for each in self.incidents] + [float("inf")]
        slowest: dict[str, list[float]] = {}
        for number, each in enumerate(self.incidents):
            slowest.setdefault(each.kind, []).append(self.worst(each.begin, starts[number + 1]))
        lines += [f"  {kind:18} {len(all_):5}   {max(all_):.2f}" for kind, all_ in sorted(slowest.items())]
        lines.append(f"  refused: {self._refused()}")
        lines += [self._line_of(witness) for witness in self.witnesses]
        lines.append(f"  store: {_listed(self.verdict.counts['store'])}")
        if self.is_torn:
            lines.append(f"  Redis has damaged its append-only file ({TORN}): losses are not violations in this run")
        lines += [f"  VIOLATION {each}" for each in self.violations]
        return "\n".join(lines)

    def _line_of(self, witness):
        counts = _listed(self.verdict.counts[witness.name])
        came = f"registrations {witness.registrations}, replayed {witness.replayed:,}{_refusals(witness)}"
        return f"  {witness.name}: {counts}, {came}"

    def _refused(self):
        total: dict[Any, int] = {}
        for publisher in self.publishers:
            for word, number in publisher.refused.items():
                total[word] = total.get(word, 0) + number
        return total


def _refusals(witness):
    return f", refused {dict(witness.refused)}" if witness.refused else ""


def _listed(counts):
    return ", ".join(f"{word} {number:,}" for word, number in counts.items())


def options_of(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenario", choices=SCENARIOS, default="always")
    parser.add_argument(
        "--seconds", type=float, default=60, help=f"the least duration; at most {MOST_TIMES} times as long"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=6000, help="maximum publications per second")
    parser.add_argument("--pushes", type=int, default=0, help="go on until this number is answered")
    parser.add_argument("--incidents", type=int, default=0, help="go on until this number of incidents has happened")
    parser.add_argument("--kinds", type=lambda text: text.split(","), help=f"of {', '.join(KINDS)}")
    parser.add_argument(
        "--calm", type=float, default=60, help="seconds in which all must arrive after the last failure"
    )
    parser.add_argument("--keep", action="store_true", help="keep the logs, and print their folder")
    return parser.parse_args(arguments)


def run(folder, *arguments):
    """Run with these arguments of the command line, and return the Run."""
    with Run(pathlib.Path(folder), options_of(arguments)) as it:
        it.go()
    return it


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.path.insert(0, str(ROOT))
    sys.setswitchinterval(0.001)
    options = options_of()
    folder = tempfile.mkdtemp(prefix="chaos-")
    try:
        it = run(folder, *sys.argv[1:])
        sys.stdout.write(it.report() + "\n")
        sys.exit(bool(it.violations))
    finally:
        if options.keep:
            sys.stdout.write(f"{folder}\n")
        else:
            import shutil

            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    threading.excepthook = lambda args: (threading.__excepthook__(args), sys.stderr.flush())
    main()
