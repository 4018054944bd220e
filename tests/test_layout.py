"""The docs name tests, files and modules that exist, and each module has its tests in a file of its name."""

import re

import pytest
from conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "tests/README.md", *sorted((ROOT / "docs").glob("*.md"))]
TESTS = [file for file in (ROOT / "tests").rglob("test_*.py") if "node_modules" not in file.parts]

# The modules that have no test file of their own, and the files with their tests.
ELSEWHERE = {
    "cli/doctor/exposed": "cli/doctor/test_doctor.py",
    "cli/doctor/public": "cli/doctor/test_doctor.py",
    "cli/doctor/site": "access/test_auth_site.py",
    "engine/host": "engine/test_engine.py",
    "engine/request_host": "engine/test_requests.py",
    "errors": "push/test_push.py",
    "own_server": "test_core.py",
    "pages/status": "status/test_status.py",
    "presence/person": "presence/test_members.py",
    "presence/view": "presence/test_views.py",
    "register/guards": "access/test_tokens.py",
    "register/membership": "presence/test_members.py",
    "requests/pages": "requests/test_requests.py",
    "rooms/rooms": "rooms/test_manager.py",
    "store/members": "store/redis/test_members.py",
    "store/memory_events": "store/test_events.py",
    "webhooks/admin": "webhooks/test_webhooks.py",
    "webhooks/reporter": "webhooks/test_webhooks.py",
    "store/sqlite_events": "store/test_events.py",
    "store/nodes": "register/test_node_clients.py",
}


def test_every_test_that_the_docs_name_exists():
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", page.read_text())}
    named.discard("test_client")  # of Flask-SocketIO
    there = {name for file in TESTS for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)}
    assert len(named) > 50 and named <= there, named - there


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_file_that_the_docs_name_exists(page):
    named = set(re.findall(r"`(?:tests/)?((?:[a-z_]+/)+\w+\.py)`", page.read_text()))
    folders = ("", "pushrelay", "tests", "php/example")
    assert not [name for name in named if not any((ROOT / folder / name).exists() for folder in folders)]


def test_each_module_has_tests_in_a_file_of_its_name():
    package = ROOT / "pushrelay"
    modules = [file.relative_to(package) for file in package.rglob("*.py") if not file.stem.startswith("__")]
    without = {
        str(each.with_suffix(""))
        for each in modules
        if not (ROOT / "tests" / each).with_name(f"test_{each.name}").exists()
    }
    assert without == set(ELSEWHERE), "give a new module a test file, and remove a line for a module that has one"
    assert not [file for file in ELSEWHERE.values() if not (ROOT / "tests" / file).exists()]


def test_each_file_has_at_most_450_lines():
    files = [ROOT / "relay.py", *(ROOT / "pushrelay").rglob("*.py")]
    assert not [file.name for file in files if len(file.read_text().splitlines()) > 450]
