"""The documentation in the browser: every link and anchor works, and nothing else of the disk is served."""

import json
import os
import re
import urllib.parse
from html.parser import HTMLParser

import pytest
from conftest import ROOT, own_only

from pushrelay.pages import docs
from pushrelay.places import HOME

FILES = ["README.md", "CHANGELOG.md", *(f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md")))]
BROWSER = {"Accept": "text/html,application/xhtml+xml"}


class Links(HTMLParser):
    """The anchors of a page, and the addresses that it names."""

    def __init__(self, html):
        super().__init__()
        self.anchors, self.addresses = set(), set()
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors.add(given.get("id"))
        self.addresses |= {given[name] for name in ("href", "src") if name in given}


def test_each_file_has_a_page_and_a_place_in_the_list():
    assert set(docs.NAMES) == set(FILES)
    assert len(set(docs.NAMES.values())) == len(FILES)
    titles = [entry[2] for _, entries in docs.Docs(HOME).contents() for entry in entries]
    assert len(set(titles)) == len(FILES) and all(titles)


@own_only
def test_every_link_and_every_anchor_of_every_page_works(relay):
    waiting, seen, broken = ["/docs/"], {}, []
    while waiting:
        path = waiting.pop()
        status, headers, body = relay.request("GET", path, headers=BROWSER)
        if status != 200:
            broken.append((path, status))
        is_page = headers["Content-Type"].startswith("text/html")
        seen[path] = Links(body.decode()) if is_page else None
        for address in seen[path].addresses if is_page and path.startswith("/docs/") else ():
            there = urllib.parse.urlsplit(urllib.parse.urljoin(path, address))
            if not there.netloc and there.path not in [*seen, *waiting]:
                waiting.append(there.path)
    assert set(docs.NAMES.values()) <= {path.removeprefix("/docs/") for path in seen}
    for path, links in seen.items():
        for address in links.addresses if links and path.startswith("/docs/") else ():
            there = urllib.parse.urlsplit(urllib.parse.urljoin(path, address))
            if there.fragment and there.fragment not in seen[there.path].anchors:
                broken.append((path, address))
    assert not [each for each in broken if each[0] != "/status"]


@own_only
def test_there_is_a_page_for_browsers_and_json_for_programs_if_the_name_is_unknown(relay):
    status, headers, body = relay.request("GET", "/docs/nothing", headers=BROWSER)
    assert (status, headers["Content-Type"]) == (404, "text/html; charset=utf-8") and b'href="./"' in body
    status, _, body = relay.request("GET", "/docs/nothing", headers={"Accept": "application/json"})
    assert (status, json.loads(body)["error"]) == (404, "not_found")


@own_only
@pytest.mark.parametrize(
    "path",
    [
        "/docs/..%2f..%2fetc%2fpasswd",
        "/docs/../wsgi.ini",
        "/docs/%2e%2e/relay.py",
        "/docs/php.md",
        "/docs/docs%2fphp",
        "/docs/php%00",
        "/docs/pictures/..%2fphp.md",
        "/docs/pictures/../../relay.py",
        "/docs//etc/passwd",
    ],
)
def test_no_other_file_is_served(relay, path):
    assert relay.request("GET", path, headers=BROWSER)[0] == 404


@own_only
def test_the_pages_are_for_those_who_may_see_the_demo_page(relay):
    status, headers, _ = relay.request("GET", "/docs/php", headers=BROWSER)
    assert (status, headers["Cache-Control"]) == (200, "no-store")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    for path in ("/docs/", "/docs/php", "/docs/nothing", "/docs/pictures/x.png"):
        status, _, body = relay.request("GET", path, headers={"X-Forwarded-For": "203.0.113.9"})
        assert (status, json.loads(body)["error"]) == (403, "demo_not_shown")
    status, _, body = relay.request("GET", "/docs/", headers={**BROWSER, "X-Forwarded-For": "203.0.113.9"})
    assert status == 403 and b"not shown here" in body


MARKDOWN = """# A title

<script>alert(1)</script>

A <b onclick="x">word</b>, [code](../php/Relay.php), [bad](javascript:alert(1)), [the log](logging.md#refusals),
![picture](pictures/a.png) and ![another](../bench/b.png).

## Twice, `it` is
## Twice, `it` is

| | |
|---|---|
| a | b |

| | meaning |
|---|---:|
| a | b |
"""


def test_markdown_becomes_html_without_html_of_its_own():
    page = docs.rendered(MARKDOWN, "docs/php.md")
    assert (page.name, page.title) == ("php", "A title")
    assert page.sections == [("twice-it-is", "Twice, it is"), ("twice-it-is-1", "Twice, it is")]
    html = page.html
    assert "<script" not in html and "alert(1)</script" not in html and "<b " not in html
    assert "&lt;b onclick=&quot;x&quot;&gt;word" in html
    assert 'href="javascript' not in html and "Relay.php" not in html and ", code, " in html
    assert '<a href="logging#refusals">the log</a>' in html
    assert re.findall(r'<img src="([^"]*)" alt="([^"]*)"', html) == [("pictures/a.png", "picture")]
    assert html.count("<thead>") == 1 and '<td></td>\n<th class="right">meaning</th>' in html
    assert '<td class="right">b</td>' in html and "style=" not in html


@pytest.mark.parametrize("text", ["| a |\n|---|\n| b |", "```bash\ncurl <it>\n```", "```\nit\n```", "    it"])
def test_tables_and_code_can_be_scrolled_by_the_keyboard_before_a_script_runs(text):
    html = docs.rendered(text, "docs/php.md").html
    boxes = re.findall(r'<(?:pre|div class="scroll") tabindex="0" role="group" aria-label="(?:Code|Table)">', html)
    assert len(boxes) == 1 and html.count("<pre") + html.count("<div") == 1


def test_a_page_is_rendered_again_when_its_file_changes(tmp_path):
    file = tmp_path / "README.md"
    file.write_text("# One")
    pages = docs.Docs(tmp_path)
    assert pages.page("").title == "One" and pages.page("") is pages.page("")
    file.write_text("# Two")
    os.utime(file, (0, file.stat().st_mtime + 1))  # both may have been written within one step of the clock
    assert pages.page("").title == "Two"
    assert pages.page("php") is None and pages.contents()[0] == ("Start", [("", "./", "Two")])


@own_only
def test_code_is_copied_and_nothing_is_wider_than_a_phone(relay, context):
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=relay.url)
    page = context.new_page()
    page.set_viewport_size({"width": 320, "height": 700})
    page.goto(f"{relay.url}/docs/http-api")
    assert page.title() == "Pushing over HTTP · the relay"
    block = page.locator(".block").first
    block.get_by_role("button").click()
    block.get_by_text("Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == block.locator("pre").text_content()
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    page.locator(".scroll[tabindex='0']").first.wait_for()  # the keyboard reaches a table that does not fit,
    page.set_viewport_size({"width": 1280, "height": 700})
    page.locator(".scroll:not([tabindex])").first.wait_for()  # and none that does
    page.set_viewport_size({"width": 320, "height": 700})
    page.get_by_role("link", name="All pages").click()
    assert page.url.endswith("#contents")
    page.get_by_role("link", name="Glossary").click()
    page.get_by_role("heading", name="Glossary", level=1).wait_for()
    page.set_viewport_size({"width": 1280, "height": 500})
    page.goto(f"{relay.url}/docs/engine")  # one of the last pages of the list, which scrolls to it
    box = page.locator("#contents [aria-current]").bounding_box()
    assert 0 < box["y"] < 500 and page.evaluate("scrollY") == 0
    page.set_viewport_size({"width": 320, "height": 700})
    for path in docs.NAMES.values():
        page.goto(f"{relay.url}/docs/{path}")
        assert page.evaluate("document.documentElement.scrollWidth") == 320, path
