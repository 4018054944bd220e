"""The demo page in Chromium, the first thing that a PHP developer sees."""

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.parse

import pytest
from conftest import ROOT, need, own_only, wait_for
from consoles import FAR, ONLINE, SECRET, arrived, run, show, try_now

from pushrelay.access.tokens import sign
from pushrelay.pages.demo import address, demo_facts
from pushrelay.settings import load


def test_a_push_from_one_page_is_seen_in_both_that_share_the_id(relay, demo):
    first, second = demo(relay, "both"), demo(relay, "both")
    wait_for(lambda: relay.push("both", "ready?")["connections"] == 2, "both registrations")
    first.fill("#data", "from <b>one</b> to both")
    first.click("#push-button")
    for page in (first, second):
        arrived(page).get_by_text("from <b>one</b> to both", exact=True).wait_for()
    first.locator("#push-answer").filter(has_text="Delivered to 2 windows, here in").wait_for()


@own_only
def test_the_page_shows_its_id_and_its_transport(relay, demo):
    page = demo(relay, "someone")
    assert page.text_content("#id") == "someone"
    assert page.input_value("#destination") == "someone"
    assert "WebSocket" in page.text_content("#transport")


@own_only
def test_two_windows_of_the_bare_address_share_an_id(relay, context):
    first, second = context.new_page(), context.new_page()
    for page in (first, second):
        page.goto(relay.url)
        page.locator(ONLINE).wait_for()
        assert page.url == f"{relay.url}/?id=demo"
    wait_for(lambda: relay.push("demo", "ready?")["connections"] == 2, "both registrations")
    first.click("#push-button")
    arrived(second).get_by_text("Hello from the form", exact=True).wait_for()


@own_only
def test_the_page_reconnects_automatically_after_the_relay_was_away(start_relay, demo):
    relay = start_relay()
    page = demo(relay, "patient")
    relay.kill()
    page.locator("#state[data-status=offline]").wait_for()
    relay.start()
    page.locator(ONLINE).wait_for()
    wait_for(lambda: relay.push("patient", "welcome back")["connections"] == 1, "the registration")
    arrived(page).get_by_text("welcome back", exact=True).first.wait_for()


@own_only
def test_any_event_and_json_are_shown_as_they_are(relay, demo):
    page = demo(relay, "shows")
    wait_for(lambda: relay.push("shows", "ready?")["connections"] == 1, "the registration")
    value = {"order": 7, "lines": ["a", None, True]}
    relay.push_json(destination="shows", data=value, event="order:paid")
    item = page.locator("#arrived > *").filter(has_text="order:paid")
    item.locator("summary").click()
    item.locator(".value .line").first.wait_for()
    assert json.loads(item.locator(".value").text_content()) == value


@own_only
def test_the_form_shows_what_the_relay_refuses(relay, demo):
    page = demo(relay, "refused")
    page.fill("#destination", "")
    page.click("#push-button")
    page.locator("#push-answer[data-kind=bad]").wait_for()
    answer = page.text_content("#push-answer")
    assert answer.startswith("Not pushed: ") and "destination" in answer
    page.fill("#destination", "somebody")  # the answer is about what was there before
    assert page.text_content("#push-answer") == ""


NASTY = ["plain", 'it\'s "quoted" \\ $HOME `id`', "</script><b>&amp;", "ü 👍 two  spaces"]


@own_only
@pytest.mark.parametrize("id_", NASTY)
def test_the_snippets_that_push_and_their_copies_run_as_they_stand(relay, context, demo, id_):
    need(shutil.which("php") and shutil.which("curl"), "PHP and curl")
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=relay.url)
    page = demo(relay, urllib.parse.quote(id_, safe=""))
    assert page.text_content("#id") == id_
    page.locator("#presence").filter(has_text="1 window has this id").wait_for()
    for name, command, data in (("php", "php", "PHP"), ("curl", "php", "cURL"), ("shell", "sh", "the shell")):
        page.click("#tab-shell" if name == "shell" else "#tab-php")
        if name == "curl":
            page.click("#panel-php summary")
        page.click(f"[data-copy=snippet-{name}]")
        page.locator(f"[data-copy=snippet-{name}]").get_by_text("Copied").wait_for()
        answer = run(command, page.evaluate("navigator.clipboard.readText()"))
        assert answer == "" if name == "php" else json.loads(answer)["connections"] == 1
        arrived(page).get_by_text(f"Hello from {data}", exact=True).wait_for()


@own_only
@pytest.mark.parametrize("id_", ["embed", "</script>\"'ü"])
def test_the_pages_of_the_snippets_listen(relay, demo, context, id_):
    page = demo(relay, urllib.parse.quote(id_, safe=""))
    official = (ROOT / "tests/node_modules/socket.io-client/dist/socket.io.min.js").read_text()
    snippets = [page.text_content("#snippet-page"), page.text_content("#snippet-socketio")]
    with_official = re.sub(r"<script src=.*?</script>", lambda _: f"<script>{official}</script>", snippets[1])
    page.close()
    pages = [context.new_page() for _ in range(3)]
    for mine, html in zip(pages, [*snippets, with_official], strict=True):
        body = "<!doctype html><meta charset=utf-8><body></body>" + html
        show(mine, relay, body)
    wait_for(lambda: relay.push(id_, "to the snippet")["connections"] == 3, "the registrations")
    for mine in pages:
        mine.get_by_text("to the snippet").first.wait_for()


@own_only
def test_a_long_id_and_a_long_push_do_not_make_the_page_wider_than_the_screen(relay, demo):
    page = demo(relay, "w" * 200, width=320, height=800)
    wait_for(lambda: relay.push("w" * 200, "x" * 5000)["connections"] == 1, "the registration")
    arrived(page).first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


@own_only
def test_a_page_that_was_disconnected_by_the_server_comes_back(relay, demo):
    demo(relay, "seen-off")
    wait_for(lambda: relay.push("seen-off", "ready?")["connections"] == 1, "the registration")
    status, _, body = relay.request("DELETE", "/connections?destination=seen-off")
    assert (status, json.loads(body)) == (200, {"closed": 1})
    wait_for(lambda: relay.push("seen-off", "again")["connections"] == 1, "the return")


BAD = "<img src=x onerror=document.title='run'><script>document.title='run'</script>"


@own_only
@pytest.mark.parametrize("id_", ["__proto__", "constructor", BAD])
def test_whatever_arrives_is_text_and_the_page_breaks_no_rule_of_its_own(relay, context, id_):
    said = []
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.goto(relay.url + "/?" + urllib.parse.urlencode({"id": id_}))
    page.locator(ONLINE).wait_for()
    assert page.text_content("#id") == id_ and "WebSocket" in page.text_content("#transport")
    wait_for(lambda: relay.push(id_, BAD, event=BAD[:100])["connections"] == 1, "the registration")
    relay.push_json(destination=id_, data={"__proto__": {BAD: BAD}, "constructor": None})
    page.fill("#data", BAD)
    page.click("#push-button")
    arrived(page).get_by_text(BAD, exact=True).nth(1).wait_for()
    arrived(page).get_by_text('"__proto__"').first.wait_for()
    assert page.locator("#arrived script, #arrived img, #id *").count() == 0
    assert page.title() == f"{id_} · the relay" and not said, said


@own_only
def test_the_pages_rules_leave_no_room_for_scripts_of_others(relay):
    status, headers, _ = relay.request("GET", "/?id=x")
    assert (status, headers["Referrer-Policy"]) == (200, "no-referrer")
    rules = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["frame-ancestors"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == "'self'" and "unsafe" not in str(rules)


@own_only
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


@own_only
def test_a_refusal_stays_on_the_page_after_a_restart(start_relay, refused):
    relay = start_relay(secret=SECRET, demo="yes")
    page = refused(relay)
    relay.kill()
    page.locator("#state[data-status=offline]").wait_for()
    assert "token" in page.text_content("#note")
    relay.start()
    try_now(page)
    page.locator("#state[data-status=refused]").wait_for()
    assert "token" in page.text_content("#note") and "Reconnected" not in page.text_content("#note")
    assert page.text_content("#state") == "Not registered"
    assert relay.push("42", "to nobody")["connections"] == 0


@own_only
def test_a_page_that_was_refused_registers_automatically_once_the_relay_allows_it(start_relay, refused):
    relay = start_relay(secret=SECRET, demo="yes")
    page = refused(relay)
    relay.kill()
    del relay.settings["secret"]
    relay.start()
    try_now(page)
    page.locator(ONLINE).wait_for()
    wait_for(lambda: relay.push("42", "welcome")["connections"] == 1, "the registration")
    page.locator("#note:not([data-kind=error])").wait_for()


@own_only
def test_a_page_that_may_not_register_shows_no_waiting_and_no_snippet_that_would_fail(start_relay, refused):
    page = refused(start_relay(secret=SECRET, demo="yes"))
    assert "Waiting" not in page.inner_text("#empty") and page.locator("#next").is_hidden()
    assert "{token}" in page.text_content("#snippet-page")


@own_only
def test_the_line_that_the_page_shows_prints_a_token_that_it_then_accepts(start_relay, refused):
    page = refused(start_relay(secret=SECRET, demo="yes"), id_="room 4's")
    line = page.text_content("#token-line").replace(".venv/bin/python", sys.executable)
    ran = subprocess.run(
        ["sh", "-c", line], cwd=ROOT, env={**os.environ, "RELAY_SECRET": SECRET}, capture_output=True, text=True
    )
    page.fill("#token", ran.stdout.strip() or ran.stderr)
    page.click("#token-form button")
    page.locator(ONLINE).wait_for()


@own_only
def test_a_page_registers_with_the_token_that_is_given_to_it(start_relay, refused):
    relay = start_relay(secret=SECRET, demo="yes")
    page = refused(relay)
    page.fill("#token", "no-token")
    page.click("#token-form button")
    page.get_by_text("Not registered: ").wait_for()
    page.fill("#token", sign({"ids": ["42"]}, SECRET))
    page.click("#token-form button")
    page.locator(ONLINE).wait_for()
    relay.push("42", "with a token")
    arrived(page).get_by_text("with a token", exact=True).wait_for()
    assert page.locator("#token-form").is_hidden()


@own_only
def test_a_page_that_is_identified_by_its_cookie_offers_to_be_me(start_relay, refused):
    relay = start_relay(id_cookie="PHPSESSID")
    page = refused(relay, headers={})
    context = page.context
    assert 'relay.register("me")' in page.text_content("#snippet-page")
    assert "session_id()" in page.text_content("#snippet-php")
    context.add_cookies([{"name": "PHPSESSID", "value": "a-session-of-20-characters", "url": relay.url}])
    page.click("#use-me")
    page.locator(ONLINE).wait_for()
    wait_for(lambda: relay.push("a-session-of-20-characters", "for me")["connections"] == 1, "the registration")
    arrived(page).get_by_text("for me", exact=True).first.wait_for()


@own_only
def test_with_a_secret_a_page_on_the_relays_machine_has_a_token_and_so_has_its_snippet(start_relay, demo, context):
    relay = start_relay(secret=SECRET)
    page = demo(relay, "it's%20mine")
    mine = context.new_page()
    html = "<body></body>" + page.text_content("#snippet-page")
    mine.route("**/my-page", lambda route: route.fulfill(body=html, content_type="text/html"))
    mine.goto(f"{relay.url}/my-page")
    wait_for(lambda: relay.push("it's mine", "for both")["connections"] == 2, "both registrations")
    for each in (arrived(page).first, mine.get_by_text("for both").first):
        each.wait_for()
    assert page.locator("#about-own-token").is_visible() and page.locator("#token-form").is_hidden()


@own_only
def test_only_programs_that_may_read_all_pushes_get_the_demo_pages_token(start_relay):
    relay = start_relay(secret=SECRET, demo="yes")
    assert b'data-token="ey' in relay.request("GET", "/?id=42")[2]
    for headers in (FAR, {"Host": "shop.example"}, {"Via": "1.1 proxy"}):
        assert b'data-token=""' in relay.request("GET", "/?id=42", headers=headers)[2]
    assert b'data-token=""' in relay.request("GET", "/?id=" + "x" * 257)[2]  # no id, and so no token


@own_only
def test_without_its_session_cookie_the_page_explains_where_it_comes_from_and_sets_one(start_relay, refused):
    relay = start_relay(id_cookie="PHPSESSID")
    page = refused(relay, "", headers={})
    assert page.url.endswith("/?id=me") and "session_start()" in page.inner_text("#cookie-hint")
    page.click("#set-cookie")
    page.locator(ONLINE).wait_for()
    page.click("#push-button")
    arrived(page).get_by_text("Hello from the form", exact=True).wait_for()
    page.locator("#push-answer").filter(has_text="Delivered to 1 window, here in").wait_for()
    page.click("#show-kept")
    page.locator(".rule.kept").filter(has_text="nothing else").wait_for()  # the push is in the list, and not twice
    assert page.locator("#about-id").is_hidden()
    assert json.loads(run("sh", page.text_content("#snippet-shell")))["connections"] == 1


class Site(http.server.BaseHTTPRequestHandler):
    """A site's auth_url, with a login by cookie."""

    def do_GET(self):  # noqa: N802
        body = b'["demo"]' if "user=7" in self.headers.get("Cookie", "") else b""
        self.send_response(200 if body else 401)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@own_only
def test_if_the_site_denies_an_id_the_page_leads_on_after_the_login(start_relay, refused):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as site:
        threading.Thread(target=site.serve_forever).start()
        relay = start_relay(auth_url=f"http://127.0.0.1:{site.server_port}/", auth_cache=0)
        page = refused(relay, "", headers={})
        assert "Log in to your site" in page.inner_text("#site-hint")
        page.context.add_cookies([{"name": "user", "value": "7", "url": relay.url}])
        page.evaluate("() => new Promise((resolve) => setTimeout(resolve, 1100))")  # a refusal counts for a second
        page.reload()
        page.locator(ONLINE).wait_for()
        assert page.locator("#site-hint").is_hidden()
        site.shutdown()


@own_only
def test_an_error_that_is_no_longer_true_disappears(start_relay, demo):
    relay = start_relay()
    page = demo(relay, "42")
    relay.kill()
    page.click("#push-button")
    page.get_by_text("Is the relay running?").wait_for()
    relay.start()
    try_now(page)
    page.locator(ONLINE).wait_for()
    assert page.text_content("#push-answer") == ""


@pytest.fixture
def visitor(start_relay, browser):
    """A page that came through a proxy, and its relay."""
    relay = start_relay(demo="yes")
    context = browser.new_context(extra_http_headers={"X-Forwarded-For": "203.0.113.9"})
    page = context.new_page()
    page.goto(f"{relay.url}/?id=far")
    page.locator(ONLINE).wait_for()
    yield relay, page
    context.close()


def test_a_visitor_who_may_not_push_gets_the_line_to_run_on_the_server(visitor, tmp_path):
    need(shutil.which("curl"), "curl")
    relay, page = visitor
    assert page.locator("#push-form").count() == 0
    assert "Push from the server" in page.inner_text("main") and "Press Push" not in page.inner_text("main")
    wait_for(lambda: relay.push("far", "ready?")["connections"] == 1, "the registration")
    assert "Your browser may not push here" in page.inner_text("main")
    for snippet in ("server", "shell"):
        assert json.loads(run("sh", page.text_content(f"#snippet-{snippet}")))["connections"] == 1
    assert str(ROOT) not in page.content()


PEOPLE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@own_only
def test_people_who_may_not_see_the_demo_get_a_page_that_leads_on_and_programs_json(start_relay, browser):
    relay = start_relay(host="0.0.0.0")
    for headers in ({"Accept": "*/*"}, {"Accept": "application/json"}, {}):
        status, got, body = relay.request("GET", "/", headers={**FAR, **headers})
        assert (status, json.loads(body)["error"], got["Vary"]) == (403, "demo_not_shown", "Accept")
    page = relay.request("GET", "/", headers={**PEOPLE, "Host": "push.example.com:81"})[2].decode()
    assert f"ssh -L {relay.port}:127.0.0.1:{relay.port} USER@push.example.com<" in page
    context = browser.new_context(extra_http_headers=FAR)
    page = context.new_page()
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.goto(f"{relay.url}/?id=demo").status == 403
    assert "USER@SERVER" in page.inner_text("main") and "demo = yes" in page.inner_text("main")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    links = page.eval_on_selector_all("main a", "links => links.map(link => link.href)")
    assert set(links) == {f"http://127.0.0.1:{relay.port}/?id=demo"}
    context.close()


def test_a_visitor_reads_no_path_of_the_relays_machine():
    facts = demo_facts(load({}, {"host": "unix:/srv/secret-folder/relay.sock", "base_path": "/r"}), "0")
    assert "secret-folder" not in str(facts)
    assert (facts["local_url"], facts["local_option"]) == ("http://localhost/r", "relay.sock")
    own = demo_facts(load({}, {"host": "0.0.0.0", "secret": SECRET, "id_cookie": "PHPSESSID"}), "8081")
    assert (own["local_url"], own["needs"]) == ("http://127.0.0.1:8081", "token cookie") and SECRET not in str(own)


@own_only
def test_the_keyboard_pushes_and_closes_the_form_for_another_id(relay, demo):
    page = demo(relay, "keys")
    wait_for(lambda: relay.push("keys", "ready?")["connections"] == 1, "the registration")
    page.fill("#data", "by keyboard")
    page.press("#data", "Control+Enter")
    arrived(page).get_by_text("by keyboard", exact=True).wait_for()
    page.click("#change")
    page.locator("#new-id").wait_for()
    page.press("#new-id", "Escape")
    assert page.locator("#change-form").is_hidden()
    assert page.evaluate("document.activeElement.id") == "change"
    assert page.get_attribute("#change", "aria-expanded") == "false"


@own_only
def test_a_screen_reader_gets_one_sentence_a_second_however_many_arrive(relay, demo):
    page = demo(relay, "many")
    wait_for(lambda: relay.push("many", "ready?")["connections"] == 1, "the registration")
    assert page.locator("#arrived[aria-live]").count() == 0
    page.locator("#news").filter(has_text="new").wait_for(state="attached")
    page.evaluate("""() => {
      window.news = [];
      new MutationObserver(() => news.push([performance.now(), document.getElementById("news").textContent]))
        .observe(document.getElementById("news"), {childList: true});
    }""")
    body = json.dumps([{"destination": "many", "data": n} for n in range(300)]).encode()
    assert relay.request("POST", "/push", body, {"Content-Type": "application/json"})[0] == 200
    wait_for(lambda: page.evaluate("news.reduce((sum, [, text]) => sum + parseInt(text), 0) >= 300"), "the last one")
    times = [time for time, _ in page.evaluate("news")]
    assert all(later - earlier > 900 for earlier, later in zip(times, times[1:], strict=False)), times


@own_only
def test_the_readers_font_size_counts_and_regions_have_roles(relay, demo):
    page = demo(relay, "reader")
    page.evaluate("document.documentElement.style.fontSize = '24px'")
    assert page.evaluate("getComputedStyle(document.body).fontSize") == "24px"
    assert page.locator("pre[aria-label]:not([role])").count() == 0


def test_the_command_for_a_unix_socket_has_its_path_quoted():
    assert (
        "--unix-socket '/run/my site/relay.sock' " in address(load({}, {"host": "unix:/run/my site/relay.sock"}), 0)[1]
    )
    assert "--unix-socket /run/relay.sock " in address(load({}, {"host": "unix:/run/relay.sock"}), 0)[1]
