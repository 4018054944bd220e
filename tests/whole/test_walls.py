"""The import rules and the type check of pyproject.toml hold today, and each fails when its rule is broken."""

import ast
import pathlib
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, need

BIN = pathlib.Path(sys.executable).parent

# The contract's id in pyproject.toml, a module, and the line that it must not contain.
FORBIDDEN = [
    ("layers", "server/server.py", "import pushrelay.engine.session"),
    ("layers", "access/tokens.py", "from pushrelay.push import body"),
    ("layers", "store/memory.py", "from pushrelay.server import quota"),
    ("layers", "new_layer.py", ""),
    ("circles", "json_text.py", "from pushrelay import errors, waiting"),
    ("flask", "rooms/manager.py", "from flask import request"),
    ("flask", "cli/terminal.py", "import relay"),
    ("server", "server/server.py", "from pushrelay.settings import Settings"),
    ("sqlite3", "register/expiry.py", "import sqlite3"),
    ("httptools", "client/replies.py", "import httptools"),
    ("jwt", "cli/terminal.py", "import jwt"),
    ("socketio", "push/publisher.py", "from socketio import packet"),
    ("client", "access/callers.py", "import http.client"),
    ("client", "cli/terminal.py", "import wsproto"),
]


@pytest.fixture(scope="module")
def tools():
    need((BIN / "lint-imports").exists() and (BIN / "mypy").exists(), "import-linter or mypy (tests/requirements.txt)")


@pytest.fixture
def house(tools, tmp_path):
    """A copy of the package, to break."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "pushrelay", tmp_path / "pushrelay", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def run(folder, tool, *arguments):
    done = subprocess.run([BIN / tool, *arguments], cwd=folder, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def test_every_import_goes_downwards():
    code, output = run(ROOT, "lint-imports", "--no-cache")
    assert code == 0, output


@pytest.mark.parametrize(("contract", "module", "line"), FORBIDDEN)
def test_an_import_through_a_wall_fails_the_check(house, contract, module, line):
    with (house / "pushrelay" / module).open("a") as file:
        file.write(f"\n{line}\n")
    if contract == "circles":
        with (house / "pushrelay/waiting.py").open("a") as file:
            file.write("\nimport pushrelay.json_text\n")
    code, output = run(house, "lint-imports", "--no-cache", "--contract", contract)
    assert code == 1 and (pathlib.Path(module).stem in output), output


@pytest.mark.parametrize("line", ["def untyped(a): ...", "def wrong() -> int:\n    return 'a'", "x: list = []"])
def test_a_missing_or_wrong_type_fails_the_check(tools, tmp_path, line):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "pushrelay").mkdir()
    (tmp_path / "pushrelay/__init__.py").touch()
    (tmp_path / "pushrelay/waiting.py").write_text(f"{line}\n")
    code, output = run(tmp_path, "mypy", "--cache-dir", str(tmp_path))
    assert code == 1 and "waiting.py" in output, output


def test_tests_run_checks_both_before_the_tests():
    script = (ROOT / "tests/run").read_text()
    assert script.index("lint-imports") < script.index("-m pytest") and script.index("/mypy") < script.index(
        "-m pytest"
    )


def test_only_the_client_imports_http_client():
    """The contract `client` cannot tell http.client from http, of which others use HTTPStatus."""
    for file in (ROOT / "pushrelay").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module, *(f"{node.module}.{each.name}" for each in node.names)]
            if "http.client" in names:
                assert file.parent.name == "client", file
