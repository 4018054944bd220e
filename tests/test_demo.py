"""The demo page in Chromium: what a PHP developer sees first."""

import json
import shutil
import subprocess
import urllib.parse

import pytest
from conftest import need, wait_for


@pytest.fixture
def demo(context):
    """Opens the demo page of a relay with an id, and waits until it is registered there."""

    def open_page(relay, id_, **viewport):
        page = context.new_page()
        if viewport:
            page.set_viewport_size(viewport)
        page.goto(f"{relay.url}/?id={id_}")
        page.locator("#state[data-status=online]").wait_for()
        return page

    return open_page


def arrived(page):
    return page.locator("#arrived .data")


def test_a_push_from_one_page_is_seen_in_both_that_share_the_id(relay, demo):
    first, second = demo(relay, "both"), demo(relay, "both")
    wait_for(lambda: relay.push("both", "ready?")["connections"] == 2, "both registrations")
    first.fill("#data", "from <b>one</b> to both")
    first.click("#push-button")
    for page in (first, second):
        arrived(page).get_by_text("from <b>one</b> to both", exact=True).wait_for()
    assert "2 connections" in first.text_content("#push-answer")


def test_the_page_says_who_it_is_and_how_it_is_connected(relay, demo):
    page = demo(relay, "someone")
    assert page.text_content("#id") == "someone"
    assert page.input_value("#destination") == "someone"
    assert "WebSocket" in page.text_content("#transport")


def test_a_page_opened_without_an_id_gets_one_that_stays_in_the_address(relay, context):
    page = context.new_page()
    page.goto(relay.url)
    page.locator("#state[data-status=online]").wait_for()
    own = page.text_content("#id")
    assert own and f"id={own}" in page.url
    page.reload()
    page.locator("#state[data-status=online]").wait_for()
    assert page.text_content("#id") == own


def test_the_page_comes_back_by_itself_after_the_relay_was_away(start_relay, demo):
    relay = start_relay()
    page = demo(relay, "patient")
    relay.kill()
    page.locator("#state[data-status=offline]").wait_for()
    relay.start()
    page.locator("#state[data-status=online]").wait_for()
    wait_for(lambda: relay.push("patient", "welcome back")["connections"] == 1, "the registration")
    arrived(page).get_by_text("welcome back", exact=True).first.wait_for()


def test_any_event_and_json_are_shown_as_they_are(relay, demo):
    page = demo(relay, "shows")
    wait_for(lambda: relay.push("shows", "ready?")["connections"] == 1, "the registration")
    value = {"order": 7, "lines": ["a", None, True]}
    relay.push_json(destination="shows", data=value, event="order:paid")
    item = page.locator("#arrived > *").filter(has_text="order:paid")
    item.wait_for()
    assert json.loads(item.locator(".data").text_content()) == value


def test_the_form_shows_what_the_relay_refuses(relay, demo):
    page = demo(relay, "refused")
    page.fill("#destination", "")
    page.click("#push-button")
    page.locator("#push-answer[data-kind=error]").wait_for()
    assert "destination" in page.text_content("#push-answer")


NASTY = ["plain", 'it\'s "quoted" \\ $HOME `id`', "</script><b>&amp;", "ü 👍 two  spaces"]


@pytest.mark.parametrize("kind", ["php", "curl"])
@pytest.mark.parametrize("id_", NASTY)
def test_a_copied_snippet_pushes_to_this_page(relay, context, demo, kind, id_, tmp_path):
    command = {"php": ["php"], "curl": ["sh"]}[kind]
    need(shutil.which(command[0]) and shutil.which("curl"), "PHP and curl")
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=relay.url)
    page = demo(relay, "".join(f"%{byte:02x}" for byte in id_.encode()))
    assert page.text_content("#id") == id_
    wait_for(lambda: relay.push(id_, "ready?")["connections"] == 1, "the registration")
    page.click(f"[data-copy=snippet-{kind}]")
    page.get_by_text("Copied").first.wait_for()
    script = tmp_path / "snippet"
    script.write_text(page.evaluate("navigator.clipboard.readText()"))
    ran = subprocess.run([*command, str(script)], capture_output=True, text=True)
    assert json.loads(ran.stdout)["connections"] == 1, ran
    arrived(page).get_by_text(f"Hello from {'PHP' if kind == 'php' else 'curl'}", exact=True).wait_for()


def test_the_copied_page_listens(relay, demo, context):
    page = demo(relay, "embed")
    snippet = page.text_content("#snippet-html")
    mine = context.new_page()
    mine.route("**/my-page", lambda route: route.fulfill(body="<body></body>" + snippet, content_type="text/html"))
    mine.goto(f"{relay.url}/my-page")
    wait_for(lambda: relay.push("embed", "to the snippet")["connections"] == 2, "the snippet's registration")
    mine.get_by_text("to the snippet").first.wait_for()


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_of_the_page_is_wider_than_the_screen(relay, demo, width):
    page = demo(relay, "w" * 200, width=width, height=800)
    wait_for(lambda: relay.push("w" * 200, "x" * 5000)["connections"] == 1, "the registration")
    arrived(page).first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_page_that_was_disconnected_by_the_server_comes_back(relay, demo):
    demo(relay, "seen-off")
    wait_for(lambda: relay.push("seen-off", "ready?")["connections"] == 1, "the registration")
    status, _, body = relay.request("DELETE", "/connections?destination=seen-off")
    assert (status, json.loads(body)) == (200, {"closed": 1})
    wait_for(lambda: relay.push("seen-off", "again")["connections"] == 1, "the return")


BAD = "<img src=x onerror=document.title='run'><script>document.title='run'</script>"


@pytest.mark.parametrize("id_", ["__proto__", "constructor", BAD])
def test_whatever_arrives_is_text_and_the_page_breaks_no_rule_of_its_own(relay, context, id_):
    said = []
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.goto(relay.url + "/?" + urllib.parse.urlencode({"id": id_}))
    page.locator("#state[data-status=online]").wait_for()
    assert page.text_content("#id") == id_ and "WebSocket" in page.text_content("#transport")
    wait_for(lambda: relay.push(id_, BAD, event=BAD[:100])["connections"] == 1, "the registration")
    relay.push_json(destination=id_, data={"__proto__": {BAD: BAD}, "constructor": None})
    page.fill("#data", BAD)
    page.click("#push-button")
    arrived(page).get_by_text(BAD, exact=True).nth(1).wait_for()
    arrived(page).get_by_text('"__proto__"').first.wait_for()
    assert page.locator("#arrived script, #arrived img, #id *").count() == 0
    assert page.title() == f"{id_} · the relay" and not said, said


def test_the_pages_rules_leave_no_room_for_scripts_of_others(relay):
    status, headers, _ = relay.request("GET", "/?id=x")
    assert (status, headers["Referrer-Policy"]) == (200, "no-referrer")
    rules = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["frame-ancestors"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == "'self'" and "unsafe" not in str(rules)


@pytest.mark.parametrize("header", [{"Via": "1.1 proxy"}, {"Host": "shop.example"}])
def test_the_page_is_for_this_machine_unless_the_setting_says_otherwise(start_relay, header):
    relay = start_relay()
    status, _, body = relay.request("GET", "/", headers=header)
    assert (status, json.loads(body)["error"]) == (403, "demo_not_shown")
    assert "demo = yes" in json.loads(body)["message"]
    relay.stop()
    relay.settings["demo"] = "yes"
    relay.start()
    assert relay.request("GET", "/", headers=header)[0] == 200
