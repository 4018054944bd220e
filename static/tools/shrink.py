"""The search of static/tools/shrink.mjs, with the zlib that compresses relay.min.js for browsers, and in its test.

It reads a model as JSON, and prints the best names and the best order of the methods that it found.
"""

import json
import math
import sys
import time
import zlib
from random import Random

random = Random()  # noqa: S311
ONE = [*"tesirnhoalcdupfgmwybkvExjSMDOAPTIRLNqzJUCWHBFGKQVXYZ_$"]  # the most usual ones first


class Candidate:
    """The code with names and an order of methods that can be changed."""

    def __init__(self, model: dict, seconds: float):
        self.between = model["between"]  # parts of the code around and between the methods; every second part is a name
        self.methods = model["methods"]  # parts of each method
        self.peers = model["peers"]  # for each method, those of its class
        self.differ = model["differ"]  # for each name, those that must differ
        self.pool = model["pool"]
        self.names = model["names"]
        self.order = list(range(len(self.methods)))
        self.properties = [name for name in self.names if name[0] == "_"]
        self.locals = [name for name in self.names if name[0] == "$"]
        self.seconds = seconds

    def size(self) -> int:
        names, text = self.names, []
        for i, parts in enumerate(self.between):
            text += [names[part] if k % 2 else part for k, part in enumerate(parts)]
            if i < len(self.order):
                text += [names[part] if k % 2 else part for k, part in enumerate(self.methods[self.order[i]])]
        return len(zlib.compress("".join(text).encode(), 9))

    def swap(self):
        """Swap two methods of a class. Return a function that undoes it."""
        i = random.randrange(len(self.order))
        k = random.choice(self.peers[i])

        def run():
            self.order[i], self.order[k] = self.order[k], self.order[i]

        run()
        return run

    def rename(self, name: str, wish: str):
        """Rename one. Those that must differ and have the new name get the old one, if they can."""
        names, before = self.names, self.names[name]
        others = [it for it in self.differ[name] if names[it] == wish]
        if wish == before or any(it != name and names[it] == before for other in others for it in self.differ[other]):
            return None

        def run(mine: str, theirs: str):
            names[name] = mine
            names.update(dict.fromkeys(others, theirs))

        run(wish, before)
        return lambda: run(before, wish)

    def change(self):
        what = random.random()
        if what < 0.1:
            return self.swap()
        if what < 0.45:
            return self.rename(random.choice(self.properties), random.choice(self.pool[:100]))
        return self.rename(random.choice(self.locals), random.choice(ONE[: random.choice((14, 14, 54))]))

    def search(self) -> dict:
        began = time.process_time()
        size = self.size()
        best = {"size": size, "before": size, "names": dict(self.names), "order": list(self.order)}
        while (part := (time.process_time() - began) / self.seconds) < 1:
            if not (undo := self.change()):
                continue
            changed = self.size()
            heat = 0.7 * max(0.001, 1 - part / 0.7)
            if changed > size and random.random() >= math.exp((size - changed) / heat):
                undo()
                continue
            size = changed
            if size < best["size"]:
                best |= {"size": size, "names": dict(self.names), "order": list(self.order)}
        return best


if __name__ == "__main__":
    json.dump(Candidate(json.load(sys.stdin), float(sys.argv[1])).search(), sys.stdout)
