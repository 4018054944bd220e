"""The status page in Chromium: what it shows in each state of the relay, to whom, and whether everybody can use it.

The figures come from a real relay. For an hour of them, `busy()` fills the history of its answer.
"""

import json
import math
import re
import sqlite3

import pytest
from conftest import own_only, wait_for

pytestmark = own_only

FAR = {"X-Forwarded-For": "203.0.113.9"}


@pytest.fixture(scope="module")
def seen(relay_with):
    """A relay that shows its pages to everybody."""
    return relay_with(demo="yes", push_keys="web:a-key-of-this-test-0123456789")


@pytest.fixture
def status(context):
    """Return a function that opens a relay's status page. The test fails if the page breaks its own CSP."""
    said = []

    def open_page(relay, where=None, ready="body:not([data-loading])", before=None):
        page = (where or context).new_page()
        page.on("console", lambda message: "Content Security" in message.text and said.append(message.text))
        if before:
            before(page)
        page.goto(f"{relay.url}/status")
        page.locator(ready).wait_for()
        return page

    yield open_page
    assert not said


def text(page, name):
    return page.text_content(f"[data-figure='{name}']").replace("\xa0", " ")


def level(page, name):
    page.locator(f"#verdict[data-level={name}]").wait_for()
    return page.inner_text("#verdict")


def figures(relay):
    return json.loads(relay.request("GET", "/status.json")[2])


def busy(page, change=lambda answer: None):
    """Let the page see an hour of figures, with a restart after two thirds, in the answers of the relay."""

    def answer(route):
        found = route.fetch().json()
        length = found["history"]["length"]
        series = {name: [None] * length for name in found["history"]["series"]}
        for step in [*range(10, 240), *range(244, length)]:
            wave = 1 + 0.3 * math.sin(step / 20)
            for name in series:
                series[name][step] = int(1000 * wave)
        series["refused"] = [value and step // 350 * 30 for step, value in enumerate(series["clients"])]
        found["history"]["series"] = series
        at = found["history"]["end"] - 116 * found["history"]["step"]
        found["history"]["marks"] = [
            {"at": at, "kind": "restart", "text": "The relay was killed, and back after 30 s."}
        ]
        found["clients"].update(now=950, websocket=500, polling=450, websocket_percent=52.6, limit=1000, percent=95.0)
        found["busiest"]["pushes"] = [{"name": "x" * 256, "count": 12345678}]
        change(found)
        route.fulfill(json=found)

    page.route("**/status.json", answer)


def test_a_new_relay_shows_what_to_do_first_and_then_what_came_of_it(start_relay, status, connect, context):
    relay = start_relay()
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=relay.url)
    page = status(relay)
    assert "Ready." in level(page, "ok") and text(page, "latency") == "—" and text(page, "nobody") == "—"
    page.click("#copy")
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()").startswith("curl -d destination=")
    connect(relay.url, "here")
    relay.push("here", "hello")
    relay.push("nobody-is-here", "hello")
    page.locator("#nobody-to").get_by_text("nobody-is-here").wait_for()
    wait_for(lambda: text(page, "pushes-more").startswith("2 this hour"), "the pushes")
    assert text(page, "browsers") == text(page, "destinations") == "1"
    assert text(page, "websocket") == "1 · 100 %" and text(page, "nobody") == "1 · 50 %"
    wait_for(lambda: text(page, "kept") == "2", "what is kept")
    wait_for(lambda: "ms" in text(page, "latency"), "the delay")
    assert page.text_content("#state") == "Ready" and page.title() == "Status · the relay"


def test_the_page_shows_that_the_relay_is_away_keeps_its_figures_and_comes_back(start_relay, status):
    relay = start_relay()
    relay.push("42", "hello")
    page = status(relay)
    wait_for(lambda: text(page, "kept") == "1", "the push")
    relay.kill()
    assert re.search(r"has not answered since \d\d:\d\d:\d\d\.", level(page, "bad"))
    assert page.locator("body[data-old]").count() == 1 and text(page, "kept") == "1"
    assert page.text_content("#state") == "No answer" and page.title().startswith("▲")
    assert "has not answered" in page.text_content("#said")
    relay.start()
    page.click("#again")
    level(page, "ok")
    assert page.locator("body[data-old], #again:visible").count() == 0
    page.locator("#marks li").first.wait_for()  # the restart


def test_a_store_that_is_in_trouble_is_the_sentence_with_what_to_do(start_relay, status):
    relay = start_relay()
    page = status(relay)
    with sqlite3.connect(f"{relay.log}.db", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        wait_for(lambda: relay.push_json(destination="42", data="hello")[0] == 503, "the refusal")
        said = level(page, "bad")
        assert "refused" in said and f"{relay.log}.db" in said
        assert page.text_content("#state") == "Not ready" and "▲" in text(page, "store")
        page.locator("#problems .error").first.wait_for()
        wait_for(lambda: re.fullmatch(r"0 this hour · ▲ \d+ failed", text(page, "pushes-more")), "and none refused")
    wait_for(lambda: relay.push_json(destination="42", data="hello")[0] == 200, "the end of the trouble")
    page.locator("#verdict:not([data-level=bad])").wait_for()


def test_strangers_see_no_names_no_texts_and_not_who_may_do_what(seen, browser, status):
    seen.push("a-secret-name", "hello")
    context = browser.new_context(extra_http_headers=FAR)
    try:
        page = status(seen, context)
        page.locator("#nobody-to dt").first.wait_for()
        shown = page.inner_text("main")
        assert "a-secret-name" not in shown and str(seen.log) not in shown and "Not shown here" in shown
    finally:
        context.close()


def test_a_page_whose_access_was_withdrawn_shows_why(start_relay, status):
    page = status(start_relay())
    page.route("**/status.json", lambda route: route.continue_(headers={**route.request.headers, **FAR}))
    said = level(page, "bad")
    assert "no longer shows its status" in said and "demo = yes" in said


def test_the_page_recognizes_an_answer_that_comes_from_a_proxy(seen, status):
    page = status(seen)
    page.route("**/status.json", lambda route: route.fulfill(status=502, body="Bad gateway"))
    assert "A web server answers in its place: HTTP 502." in level(page, "bad")


def test_a_hidden_page_does_not_ask_and_failures_make_it_ask_less_often(seen, status):
    asked = []

    def count(page):
        page.clock.install()
        page.add_init_script("Object.defineProperty(document, 'hidden', {get: () => window.away ?? false})")

    page = status(seen, before=count)
    page.route("**/status.json", lambda route: (asked.append(1), route.continue_()))
    look = "(away) => { window.away = away; document.dispatchEvent(new Event('visibilitychange')); }"
    page.clock.run_for(2100)
    wait_for(lambda: page.evaluate("1") and len(asked) == 1, "the next request")
    page.evaluate(look, True)
    page.clock.run_for(60_000)
    assert len(asked) == 1
    page.evaluate(look, False)
    wait_for(lambda: page.evaluate("1") and len(asked) == 2, "a request at once")
    page.route("**/status.json", lambda route: (asked.append(1), route.abort()))
    for _ in range(120):
        page.clock.run_for(1000)
        page.evaluate("new Promise((resolve) => queueMicrotask(resolve))")
    level(page, "bad")
    assert 4 <= len(asked) - 2 <= 14, "a request every two seconds would make 60"


def test_the_keys_the_mouse_and_a_finger_show_one_moment_in_all_three_charts(seen, status):
    page = status(seen, before=busy)
    slider = page.get_by_role("slider")
    moments = page.locator("[data-moment]")

    def shown():
        return [page.text_content("#moment"), *moments.all_text_contents()]

    now = shown()
    assert now[:2] == ["Now", text(page, "browsers")] and now[2].startswith(text(page, "pushes")) and "▲" in now[2]
    slider.focus()
    slider.press("ArrowLeft")
    before, place = shown(), int(slider.get_attribute("aria-valuenow"))
    assert re.fullmatch(r"\d\d:\d\d:\d\d", before[0])
    slider.press("PageDown")
    assert int(slider.get_attribute("aria-valuenow")) < place
    assert shown()[0] != before[0] and shown()[1] != before[1]
    assert shown()[1] in slider.get_attribute("aria-valuetext")
    slider.press("Home")
    assert shown()[1:] == ["—", "—", "—"] and slider.get_attribute("aria-valuenow") == "0"
    slider.press("Escape")
    assert shown()[0] == "Now"
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    assert re.fullmatch(r"\d\d:\d\d:\d\d", shown()[0]) and shown()[1] != now[1]
    page.mouse.move(0, 0)
    assert shown()[0] == "Now"
    finger = "(slider, x) => slider.dispatchEvent(new PointerEvent('pointerdown', {pointerType: 'touch', clientX: x}))"
    slider.evaluate(finger, box["x"] + box["width"] / 3)
    assert shown()[0] != "Now"


def test_the_axis_of_a_young_relay_is_short(seen, status):
    def young(answer):
        series = answer["history"]["series"]
        for name, values in series.items():
            series[name] = [None] * 260 + values[260:]

    page = status(seen, before=lambda page: busy(page, young))
    assert page.text_content("#hour-title") == "The last 20 minutes"
    assert page.get_by_role("slider").get_attribute("aria-valuemax") == "119"
    assert page.locator(".axis span").count() in (3, 4) and page.locator("#marks li").count() == 1
    for chart in page.locator(".plot svg, .spark").all():
        assert chart.get_attribute("viewBox") == "0 0 120 100"


def test_the_charts_are_sentences_too_and_show_gaps_and_restarts(seen, status):
    page = status(seen, before=busy)
    names = [each.get_attribute("aria-label") for each in page.locator(".plot svg[role=img]").all()]
    assert len(names) == 3 and all("between" in name and "now" in name for name in names)
    for plot in page.locator(".plot svg").all():
        assert plot.locator(".gaps rect").count() == 2 and plot.locator(".lines .restart").count() == 1
        assert plot.locator(".line").get_attribute("d").count("M") == 2
    assert "back after 30 s" in page.text_content("#marks")
    limit = page.locator("[data-limit=clients]")
    assert "▲ reached · 950 of 1,000" in limit.inner_text().replace("\xa0", " ")
    assert limit.get_by_role("meter").get_attribute("aria-valuetext") == limit.locator("span").text_content()
    assert "▲ 450 · 47 %" in text(page, "polling")


def test_the_page_is_still_without_movement_and_visible_in_forced_colors(seen, status):
    page = status(seen, before=busy)
    page.emulate_media(reduced_motion="reduce", forced_colors="active")
    assert page.evaluate("document.getAnimations().length") == 0
    line = page.locator(".plot .line").first.evaluate("(line) => getComputedStyle(line).stroke")
    assert line == page.evaluate("getComputedStyle(document.body).color")


def test_without_javascript_the_sentence_is_there_and_the_figures_are_a_link_away(seen, browser):
    context = browser.new_context(java_script_enabled=False)
    try:
        page = context.new_page()

        def has_the_sentence():
            page.goto(f"{seen.url}/status")
            return page.text_content("#sentence") == figures(seen)["verdict"]["sentence"]

        wait_for(has_the_sentence, "the sentence of the same second")
        page.get_by_role("link", name="status.json").click()
        assert "verdict" in json.loads(page.text_content("pre"))
    finally:
        context.close()


WRITTEN = {
    "count(1284)": "1,284",
    "count(null)": "—",
    "large(41.23)": "41.2",
    "large(9999)": "9,999",
    "large(138240)": "138 k",
    "large(10160000)": "10.2 M",
    "large(999960)": "1 M",
    "percent(2.94)": "2.9 %",
    "percent(97.04)": "97 %",
    "bytes(512)": "512 bytes",
    "bytes(12582912)": "12 MiB",
    "bytes(1073741823)": "1 GiB",
    "seconds(0.00003)": "< 0.1 ms",
    "seconds(0.0014)": "1.4 ms",
    "seconds(0.061)": "61 ms",
    "seconds(1.25)": "1.3 s",
    "span(0)": "0 s",
    "span(59.9)": "59 s",
    "span(3540)": "59 min",
    "span(273600)": "3 d 4 h",
    "span(86400)": "1 d",
    "plural(1, 'node', 'nodes')": "1 node",
}


def test_figures_are_written_as_people_write_them(seen, status):
    page = status(seen)
    calls = ", ".join(f"f.{call}" for call in WRITTEN)
    module = f"{seen.url}/static/pages/status/format.js"
    found = page.evaluate(f"import('{module}').then((f) => [{calls}])")
    assert dict(zip(WRITTEN, (each.replace("\xa0", " ") for each in found), strict=True)) == WRITTEN


def test_every_figure_has_its_name_in_a_list_of_terms(seen, status):
    page = status(seen)
    outside = page.locator("main [data-figure]:not(dl dd, dl dd *)")
    assert outside.count() == 0
    assert page.locator("main dd[data-figure]").evaluate_all("all => all.every(dd => dd.previousElementSibling)")
