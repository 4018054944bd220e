"""The files in static/ are compressed and cheap to revalidate, and pages of any origin can load relay.js."""

import base64
import gzip
import hashlib
import os
import time

import pytest
from conftest import ROOT
from pages import Server, Site

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


def test_the_client_alone_may_be_read_from_everywhere(relay):
    for path in (*ADDRESSES, "/static/relay.mjs", "/static/relay.min.js", "/static/relay.min.js.map"):
        headers = relay.request("GET", path, headers={"Origin": "https://shop.example"})[1]
        assert headers.get_all("Access-Control-Allow-Origin") == ["*"]
        assert headers["Cross-Origin-Resource-Policy"] == "cross-origin"
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


def test_a_page_of_another_origin_loads_the_script_with_integrity_and_as_a_module(relay, context):
    digest = base64.b64encode(hashlib.sha384(SCRIPT).digest()).decode()
    page = context.new_page()
    with Server(("127.0.0.1", 0), Site) as site:
        for attributes in (f'integrity="sha384-{digest}" crossorigin', 'type="module"', "crossorigin"):
            tag = f'<script src="{relay.url}/static/relay.js" {attributes}></script>'
            site.html = f"<!doctype html><title>a shop</title>{tag}".encode()
            page.goto(site.url)
            assert page.evaluate("typeof Relay") == "function", attributes
