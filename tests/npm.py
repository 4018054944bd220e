"""The npm package of the browser client, as its users install it."""

import json
import shutil
import subprocess

from conftest import DEADLINE, ROOT, need


def run(*command, cwd):
    """Run a command of Node or npm in a folder, and return its output. Nothing is fetched from a registry."""
    need(shutil.which("npm"), "npm")
    ran = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=6 * DEADLINE)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def install(folder):
    """Install the packed client in a new project. packed.json has the facts that npm printed about it."""
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    [package] = json.loads(run("npm", "pack", "--json", "--offline", "--pack-destination", folder, cwd=ROOT / "static"))
    (folder / "packed.json").write_text(json.dumps(package))
    run("npm", "install", "--offline", "--no-audit", "--no-fund", folder / package["filename"], cwd=folder)


def link_others(folder):
    """Let a project import the packages of the tests as if they were installed there."""
    for package in (ROOT / "tests" / "node_modules").resolve().iterdir():
        if not package.name.startswith("."):
            (folder / "node_modules" / package.name).symlink_to(package)
