"""Pages of relay.js under every kind of trouble: python tests/browser_chaos.py --seconds 300 --incidents 50 --seed 1

Five tabs of Chromium receive 20 pushes per second: a plain page with a frame, one with two connections, an inbox, one
that polls, and one with tokens. The network, the relay, the token endpoint, the tabs and the browser fail one after the
other, in an order that the seed determines. In the end every connection must have received each push once and in
order, or `lost` exactly if something was missing. The exit code is 1 if not.

`--mutant NAME` runs with a relay.js that lacks one of its protections, which the verdict must notice; `--mutant all`
runs one after the other.
"""

import argparse
import pathlib
import random
import sys
import tempfile
import time
from typing import NamedTuple

from conftest import ROOT

sys.path.insert(0, str(ROOT))  # for the tokens

from browser_chaos_site import KINDS, TABS, BrowserSite
from browser_verdict import Verdict

INCIDENTS = [
    "wifi", "dead_network", "slow_network", "cut", "torn", "blocked", "freeze", "long_freeze", "sleep", "stopped_relay",
    "deploy", "kill", "back_forward", "long_away", "reload", "crash", "token_down", "switch",
]  # fmt: skip


class Mutant(NamedTuple):
    """A text of relay.js, the text instead, and the incidents in which the difference shows soon."""

    old: str
    new: str
    kinds: tuple[str, ...] = tuple(INCIDENTS)


# relay.js without one of its protections.
MUTANTS = {
    "no position check": Mutant("if (!isAfter(position, state._handed)) return;", ""),
    "no recovery": Mutant("const since = from[0] && Object.fromEntries(from);", "const since = undefined;"),
    "recovered always": Mutant("const isLost = sinceOf(before) && !recovered;", "const isLost = false;"),
    "lost always": Mutant("const isLost = sinceOf(before) && !recovered;", "const isLost = sinceOf(before);"),
    "frames share positions": Mutant(
        "_item: scope.top === scope && !this.io && this._url", "_item: !this.io && this._url", ("torn",)
    ),
    "connections share positions": Mutant('state._item += "#"', "break", ("torn",)),
    "no position for the next page": Mutant("scope.sessionStorage.setItem(", "void (", ("reload", "crash")),
    "positions are stored late": Mutant("      saveAll();\n      live.forEach", "      live.forEach", ("reload",)),
    "acknowledged too early": Mutant(
        "const queue = state._queue;\n", "const queue = state._queue; state._acked = position;\n", ("crash",)
    ),
    "a failing token ends the connection": Mutant(
        'return isOver() || again(refusal("token_failed", "token: " + error));',
        'return this._drop("transport close");',
        ("token_down",),
    ),
    "deaf to silence": Mutant('this._wire.end(this.transport ? "ping timeout" : "timeout")', "0", ("dead_network",)),
}


class Incident(NamedTuple):
    kind: str
    tab: str
    seconds: float  # that it lasts, or a part of it
    pause: float  # seconds until the next one


def plan(seed, incidents, seconds, kinds=INCIDENTS):
    """Return the incidents in the order of the seed: all kinds in turn, each time in another order."""
    chance, deck, result = random.Random(seed), [], []
    pauses = seconds / incidents / 2  # incidents take the other half of the time
    for _ in range(incidents):
        deck = deck or chance.sample(kinds, len(kinds))
        tab, lasts = chance.choice(list(TABS)), chance.uniform(0.2, 1.2)
        result.append(Incident(deck.pop(), tab, lasts, chance.uniform(0.2, 1.8) * pauses))
    return result


class Run:
    """One run: `violations` is its result."""

    def __init__(self, folder, seed, incidents, seconds, kinds=INCIDENTS, rate=20, script=None):
        self.seed = seed
        self.plan = plan(seed, incidents, seconds, kinds)
        self.healed = []  # (incident, when it was over, numbers pushed until then, the tab in front)
        site = BrowserSite(folder, seed, script, rate)
        try:
            self._go(site)
        finally:
            site.close()

    def _go(self, site):
        began = time.monotonic()
        for incident in self.plan:
            getattr(site, incident.kind)(incident.tab, incident.seconds)
            self.healed.append((incident, time.monotonic(), site.publisher.count, site.front))
            time.sleep(incident.pause)
        site.heal()
        self.seconds = time.monotonic() - began
        self.ledger, self.count = site.ledger, site.publisher.count
        verdict = Verdict(site.ledger, KINDS, self.count)
        self.counts, self.violations = verdict.counts, site.violations + verdict.violations

    def report(self, most=10):
        """Return a table of the incidents and the verdict."""
        lines = [
            f"seed {self.seed}: {self.count:,} pushes, {self.counts['received']:,} received, {len(self.plan)} incidents"
            f" in {self.seconds:.0f} s",
            "  incident        times   seconds until the tab in front was live: median, most",
        ]
        for kind in sorted({incident.kind for incident in self.plan}):
            waits = sorted(self._wait(*each[1:]) for each in self.healed if each[0].kind == kind)
            lines.append(f"  {kind:15} {len(waits):5}   {waits[len(waits) // 2]:6.2f} {waits[-1]:6.2f}")
        lines.append("  " + ", ".join(f"{what} {number:,}" for what, number in sorted(self.counts.items())))
        lines += [f"  VIOLATION {each}" for each in self.violations[:most]]
        lines += [f"  and {len(self.violations) - most} more"] if len(self.violations) > most else []
        return "\n".join(lines if self.violations else [*lines, "  everything once and in order, or announced"])

    def _wait(self, over, count, tab):
        """Return the seconds from the end of an incident until all ids of the tab in front were live."""
        ids = [(key, id_) for key, ids in TABS[tab].items() for id_ in ids]
        return max(self.ledger.reached(key, id_, count, over) or 0.0 for key, id_ in ids)


def mutated(name):
    """Return relay.js without one of its protections."""
    script = (ROOT / "static" / "relay.js").read_text()
    old, new, _ = MUTANTS[name]
    assert script.count(old) == 1, f"{name}: relay.js contains this {script.count(old)} times: {old}"
    return script.replace(old, new)


def run(seed, incidents, seconds, **options):
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder:
        return Run(pathlib.Path(folder), seed, incidents, seconds, **options)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300, help="the duration, roughly")
    parser.add_argument("--incidents", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=INCIDENTS, help=", ".join(INCIDENTS))
    parser.add_argument("--rate", type=float, default=20, help="pushes per second")
    parser.add_argument("--mutant", choices=["all", *MUTANTS], help="a protection that relay.js lacks")
    options = parser.parse_args()
    numbers = {name: value for name, value in vars(options).items() if name != "mutant"}
    if not options.mutant:
        it = run(**numbers)
        print(it.report())
        sys.exit(bool(it.violations))
    unnoticed = []
    for name in MUTANTS if options.mutant == "all" else [options.mutant]:
        it = run(**{**numbers, "kinds": MUTANTS[name].kinds}, script=mutated(name))
        print(f"{name}: {'noticed' if it.violations else 'NOT NOTICED'}\n{it.report(3)}", flush=True)
        unnoticed += [] if it.violations else [name]
    sys.exit(bool(unnoticed))


if __name__ == "__main__":
    main()
