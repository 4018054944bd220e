"""The files in static/ are compressed and cheap to revalidate, and pages of any origin can load the browser client.

An upgrade replaces these files while the relay runs and while browsers have older ones: no page mixes two versions.
"""

import gzip
import os
import posixpath
import re
import shutil
import time

import pytest
from conftest import ROOT, Relay

from pushrelay.pages.static_files import CLIENT

SCRIPT = (ROOT / "static/relay.js").read_bytes()
ADDRESSES = ["/static/relay.js", "/socket.io/socket.io.js"]
GZIP = {"Accept-Encoding": "gzip, deflate, br"}


@pytest.fixture(params=["", "/relay"])
def below(request, relay, relay_with):
    """A relay at the root, and one below a path."""
    return relay_with(base_path=request.param) if request.param else relay


@pytest.mark.parametrize("path", ADDRESSES)
def test_the_script_is_sent_compressed_to_who_takes_that(below, path):
    status, headers, body = below.request("GET", path, headers=GZIP)
    assert (status, headers["Content-Encoding"], headers["Vary"]) == (200, "gzip", "Accept-Encoding")
    assert len(body) == int(headers["Content-Length"]) < len(SCRIPT) / 2 and gzip.decompress(body) == SCRIPT
    for header in ({}, {"Accept-Encoding": "identity"}, {"Accept-Encoding": "gzip;q=0, br"}):
        status, headers, body = below.request("GET", path, headers=header)
        assert (status, headers["Vary"], body) == (200, "Accept-Encoding", SCRIPT)
        assert "Content-Encoding" not in headers and int(headers["Content-Length"]) == len(SCRIPT)
    assert "javascript" in headers["Content-Type"] and headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ADDRESSES)
@pytest.mark.parametrize("accept", [{}, GZIP])
def test_a_browser_that_has_the_script_gets_no_second_copy(relay, path, accept):
    _, headers, body = relay.request("GET", path, headers=accept)
    etag = headers["ETag"]
    status, again, nothing = relay.request("GET", path, headers={**accept, "If-None-Match": etag})
    assert (status, nothing, again["ETag"], again["Vary"]) == (304, b"", etag, "Accept-Encoding")
    assert again["Access-Control-Allow-Origin"] == "*"
    assert relay.request("GET", path, headers={**accept, "If-None-Match": '"another"'})[0] == 200
    status, head, nothing = relay.request("HEAD", path, headers=accept)
    assert (status, nothing, head["Content-Length"]) == (200, b"", str(len(body)))
    assert head["ETag"] == etag and head.get("Content-Encoding") == headers.get("Content-Encoding")


def test_each_coding_has_an_etag_of_its_own(relay):
    tags = {relay.request("GET", "/static/relay.js", headers=each)[1]["ETag"] for each in ({}, GZIP)}
    assert len(tags) == 2


def test_pages_of_any_origin_may_read_the_browser_client_and_nothing_else(relay):
    for path in [*ADDRESSES, *(f"/static/{name}" for name in CLIENT)]:
        status, headers, _ = relay.request("GET", path, headers={"Origin": "https://shop.example"})
        assert status == 200 and headers.get_all("Access-Control-Allow-Origin") == ["*"], path
        assert headers["Cross-Origin-Resource-Policy"] == "cross-origin"
        assert headers["Cache-Control"] == "public, no-cache"
        assert "Access-Control-Allow-Credentials" not in headers
    for path in (
        "/static/pages/console/main.js",
        "/static/pages/console.css",
        "/static/favicon.svg",
        "/",
        "/health/live",
        "/static/nothing.js",
    ):
        headers = relay.request("GET", path, headers={"Origin": "https://shop.example"})[1]
        assert "Access-Control-Allow-Origin" not in headers and "Cross-Origin-Resource-Policy" not in headers, path


@pytest.mark.parametrize(
    ("name", "kind"),
    [("relay.mjs", "text/javascript"), ("relay.min.js", "text/javascript"), ("relay.min.js.map", "application/json")],
)
def test_each_file_of_the_client_has_its_type_and_is_compressed(relay, name, kind):
    _, headers, body = relay.request("GET", f"/static/{name}", headers=GZIP)
    assert headers["Content-Type"].partition(";")[0] == kind and headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body) == (ROOT / "static" / name).read_bytes()


@pytest.mark.parametrize("path", ["pages/console/main.js", "pages/console.css", "favicon.svg"])
def test_the_demo_pages_files_are_compressed_too(relay, path):
    _, headers, body = relay.request("GET", f"/static/{path}", headers=GZIP)
    assert headers["Content-Encoding"] == "gzip" and gzip.decompress(body) == (ROOT / "static" / path).read_bytes()


@pytest.mark.parametrize("path", ["", "no.js", "../relay.py", "%2e%2e/relay.py", "..%2frelay.py", "%00", "a" * 5000])
def test_nothing_but_the_files_is_there(relay, path):
    assert relay.request("GET", f"/static/{path}")[0] == 404


def test_a_new_version_of_a_file_is_served_at_once(tmp_path):
    from werkzeug.wrappers import Request

    from pushrelay.pages.static_files import StaticFiles

    file, static_files = tmp_path / "a.js", StaticFiles(str(tmp_path))
    request = Request({"REQUEST_METHOD": "GET", "HTTP_ACCEPT_ENCODING": "gzip"})
    tags = set()
    for text in ("first " * 50, "second " * 50):
        file.write_text(text)
        os.utime(file, (time.time(), time.time() + len(tags)))
        for name in ("a.js", "x/../a.js"):
            response = static_files.response(name, request)
            assert gzip.decompress(response.get_data()).decode() == text
            tags.add(response.headers["ETag"])
    assert len(tags) == 2 and len(static_files._files) == 1


def files_of(relay, page="/"):
    """Return the files of a page, by address: those that it names, and those that these import."""
    html = relay.request("GET", page, headers={"Accept": "text/html"})[2].decode()
    found, waiting = {}, re.findall(r'(?:src|href)="(/static/[^"]+)"', html)
    while waiting:
        path = waiting.pop()
        if path not in found:
            status, headers, body = relay.request("GET", path)
            assert status == 200, path
            found[path] = (headers["Cache-Control"], body)
            imported = re.findall(r"""(?:from|import) ["'](\.[^"']+)["']""", body.decode())
            waiting += [posixpath.normpath(posixpath.join(posixpath.dirname(path), each)) for each in imported]
    return found


def test_while_files_are_replaced_a_page_gets_those_that_fit_the_running_relay(tmp_path):
    for name in ("relay.py", "pushrelay", "static", "templates"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy2)(ROOT / name, tmp_path / name)
    relay = Relay(tmp_path / "log", tmp_path / "relay.py")
    try:
        files = files_of(relay, "/?id=demo")
        own = {path: each for path, each in files.items() if "/pages-" in path}
        assert len(own) >= 3 and {caching for caching, _ in own.values()} == {"public, max-age=31536000, immutable"}
        assert not [path for path in files if "/pages/" in path], "a page uses addresses that an upgrade would change"
        for file in [*(tmp_path / "static").rglob("*.*"), *(tmp_path / "templates").iterdir()]:
            if file.is_file():
                file.write_text("the next version")
        assert files_of(relay, "/?id=demo").keys() == files.keys()
        for path, (_, body) in own.items():
            assert relay.request("GET", path)[2] == body, path
        assert relay.request("GET", "/static/relay.js")[2] == b"the next version"
        relay.stop()
        shutil.copytree(ROOT / "templates", tmp_path / "templates", dirs_exist_ok=True)
        relay.start()
        assert not own.keys() & files_of(relay, "/?id=demo").keys()
        assert {relay.request("GET", path)[0] for path in own} == {404}
    finally:
        relay.kill()
