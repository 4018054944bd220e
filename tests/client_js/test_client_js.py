"""relay.js on a clock, a network and a browser that its tests control: *.test.js, which Node's own test runner runs.

Each JavaScript test is a test here too. `node --test tests/client_js` runs them alone.
"""

import functools
import os
import pathlib
import re
import shutil
import subprocess

import pytest
from conftest import DEADLINE, need

FOLDER = pathlib.Path(__file__).parent
FILES = sorted(file.name for file in FOLDER.glob("*.test.js"))
NAME = re.compile(r'^test\("((?:[^"\\]|\\.)*)", ', re.M)
RESULT = re.compile(r"^(ok|not ok) \d+ - (.*)\n((?:  .*\n)*)", re.M)  # of the Test Anything Protocol
TESTS = [(file, name) for file in FILES for name in NAME.findall((FOLDER / file).read_text())]


@functools.cache
def results(file: str, script: str = "relay.js") -> dict[str, tuple[bool, str]]:
    """Run a file. Return for each test whether it passed, and what was printed about it."""
    need(shutil.which("node"), "Node")
    command = ["node", "--test", "--test-reporter=tap", FOLDER / file]
    environment = os.environ | {"RELAY_SCRIPT": script}
    output = subprocess.run(command, capture_output=True, text=True, timeout=6 * DEADLINE, env=environment).stdout
    return {name: (verdict == "ok", details) for verdict, name, details in RESULT.findall(output)}


@pytest.mark.parametrize(("file", "name"), TESTS, ids=[f"{file.split('.')[0]}: {name}" for file, name in TESTS])
def test_the_client(file, name):
    assert name in results(file), "the file was not run to its end, or the test's name is not a plain text"
    passed, details = results(file)[name]
    assert passed, details


@pytest.mark.parametrize("file", FILES)
def test_the_minified_client_behaves_the_same(file):
    failed = {name: details for name, (passed, details) in results(file, "relay.min.js").items() if not passed}
    assert not failed
    assert set(results(file, "relay.min.js")) == {name for each, name in TESTS if each == file}
