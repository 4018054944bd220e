"""The list of the relay's paths: the routes of relay.py, the docs and the log have the same ones."""

import pytest
from conftest import ROOT

import relay as relay_app
from pushrelay.log.refusals import BELOW
from pushrelay.paths import FOLDERS, PAGES, PATHS


def test_relay_py_has_a_route_for_each_path_and_no_other():
    routes = {rule.rule for rule in relay_app.app.url_map.iter_rules()}
    assert routes == {*PATHS, *PAGES, "/static/<path:filename>"}


@pytest.mark.parametrize("page", ["docs/http-api.md", "docs/extending.md"])
def test_the_docs_name_each_path(page):
    text = (ROOT / page).read_text()
    if page.endswith("extending.md"):  # it lists what an app must not use, the paths of health checks as one
        text = (
            text.partition("## Reserved names")[2]
            .partition("\n## ")[0]
            .replace("/health/…", "/health/live /health/ready")
            .replace("/docs/…", "/docs/pictures/")
        )
    assert not [path for path in (*PATHS, *FOLDERS, *PAGES) if path.partition("<")[0].rstrip("/") not in text]


def test_the_log_recognizes_each_path_below_another():
    for path in (*PATHS[1:], "/static/relay.js", "/socket.io/"):
        assert (BELOW.match(f"/site/relay{path}") is not None) == (path != "/"), path
        assert BELOW.match(path) is None, path
