"""Lighthouse's scores of the console, the status page and the documentation, on a phone and on a desktop.

    python tests/lighthouse.py                         npx fetches Lighthouse
    python tests/lighthouse.py --program PATH --why    an installed one; prints each audit that costs points too

It needs Node and Chromium, and a machine that does nothing else: the performance score is measured.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from scenes import Scenes

PAGES = {"console": "/?id=coral-otter-512", "status": "/status", "docs": "/docs/operations"}
CATEGORIES = ("performance", "accessibility", "best-practices", "seo")
LEAST = 95  # of 100


def examine(program, url, how):
    """Return Lighthouse's report of a page. `how` is mobile or desktop."""
    flags = ["--output=json", "--quiet", "--chrome-flags=--headless=new --no-sandbox"]
    if how == "desktop":
        flags.append("--preset=desktop")
    environ = {**os.environ, "CHROME_PATH": shutil.which("chromium") or ""}
    ran = subprocess.run([*program, url, *flags], capture_output=True, text=True, env=environ, timeout=300)
    if ran.returncode:
        raise SystemExit(f"Lighthouse failed: {ran.stderr[-2000:]}")
    return json.loads(ran.stdout)


def costs(report):
    """Return the audits that cost points, as lines."""
    for name in CATEGORIES:
        for each in report["categories"][name]["auditRefs"]:
            audit = report["audits"][each["id"]]
            if each["weight"] and audit["score"] is not None and audit["score"] < 0.9:
                yield f"    {name}: {audit['title']} ({audit['score']:.2f}) {audit.get('displayValue', '')}"


def main():
    reader = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    reader.add_argument("--program", help="the lighthouse to run; without it, npx fetches one")
    reader.add_argument("--why", action="store_true", help="print the audits that cost points")
    wanted = reader.parse_args()
    program = [wanted.program] if wanted.program else ["npx", "--yes", "lighthouse"]
    lowest = 100
    print("page     device   " + "  ".join(CATEGORIES))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        scenes = Scenes(pathlib.Path(folder), stack)
        relay = scenes.relay()
        scenes.push_orders(relay, "coral-otter-512")
        for name, path in PAGES.items():
            for how in ("mobile", "desktop"):
                report = examine(program, relay.url + path, how)
                scores = [round(100 * report["categories"][each]["score"]) for each in CATEGORIES]
                lowest = min(lowest, *scores)
                print(
                    f"{name:8} {how:8} "
                    + "  ".join(f"{score:{len(each)}}" for each, score in zip(CATEGORIES, scores, strict=True))
                )
                if wanted.why:
                    print(*costs(report), sep="\n")
    return 0 if lowest >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
