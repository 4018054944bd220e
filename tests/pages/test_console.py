"""The console in Chromium: how fast a push arrives, what was missed, the list, the form, and its keyboard and phone."""

import contextlib
import json
import re
import shutil
import socket
import socketserver
import subprocess
import threading

import audience
import pytest
from conftest import ROOT, need, own_only, wait_for
from consoles import ONLINE, SECRET, SHIFTS, arrived, come_back, go_away, run, show

pytestmark = own_only  # the page is the same on every server


def batch(relay, id_, count, data="{}"):
    """Push `count` publications at once."""
    body = json.dumps([{"destination": id_, "data": data.format(n)} for n in range(count)]).encode()
    assert relay.request("POST", "/push", body, {"Content-Type": "application/json"})[0] == 200


def rows(page):
    """Return the text of the list's rows and rules, newest first."""
    read = "all => all.map(it => it.className.replace(' fresh', '') + ': ' + it.innerText)"
    return page.eval_on_selector_all("#arrived > :not([hidden])", read)


def texts(page):
    return page.eval_on_selector_all("#arrived > :not([hidden]) .data", "all => all.map(it => it.textContent)")


# Pushing.


def test_a_push_shows_after_how_many_milliseconds_it_arrived(console):
    page = console("fast")
    page.click("#push-button")
    page.locator("#push-answer").filter(
        has_text=re.compile(r"^Delivered to 1 window, here in (\d+|under 1) ms$")
    ).wait_for()
    page.locator(".arrival .latency").filter(has_text=re.compile(r"^\+(\d+|under 1) ms$")).wait_for()
    page.fill("#destination", "somebody else")
    page.click("#push-button")
    page.locator("#push-answer[data-kind=warn]").filter(
        has_text="no window is registered for “somebody else” now"
    ).wait_for()
    assert arrived(page).count() == 1


def test_the_milliseconds_are_right_whether_the_push_arrives_before_or_after_its_answer(console):
    page = console("order")
    module = page.get_attribute("script[type=module]", "src").replace("main.js", "latency.js")
    assert page.evaluate(
        """async (module) => {
          const {Latency} = await import(module);
          const latency = new Latency(), at = () => performance.now();
          const started = at(), wait = (ms) => new Promise((done) => setTimeout(done, ms));
          latency.arrived("x", "e:1");
          const arrived = at() - started;
          await wait(60);
          const before = await latency.of("x", "e:1", started);
          const after = latency.of("x", "e:2", started);
          latency.arrived("y", "e:2"); // the same position of another destination
          await wait(60);
          latency.arrived("x", "e:2");
          return before <= arrived && await after >= 110;
        }""",
        module,
    )


def test_json_is_checked_while_it_is_typed_and_sent_exactly_as_it_was_typed(relay, console):
    page = console("json")
    page.get_by_text("JSON", exact=True).click()
    assert json.loads(page.input_value("#data"))["text"] == "Hello"
    page.fill("#data", '{"a": 1,\n "b": }')
    page.locator("#push-answer").filter(has_text="Line 2, column 7: expected a value").wait_for()
    assert page.get_attribute("#data", "aria-invalid") == "true"
    page.press("#data", "Control+Enter")
    assert page.evaluate("[document.activeElement.id, document.activeElement.selectionStart]") == ["data", 15]
    page.fill("#data", '{"large": 12345678901234567890, "b": [1.1, null]}')
    page.fill("#event", "order:paid")
    rounded = "JavaScript reads 12345678901234567890 as 12345678901234567168"
    page.locator("#push-answer[data-kind~=warn]").filter(has_text=rounded).wait_for()
    page.press("#data", "Control+Enter")
    page.locator(".arrival").filter(has_text="order:paid").wait_for()
    page.locator("#push-answer[data-kind=ok]").filter(has_text=rounded).wait_for()
    kept = relay.request("GET", "/history?destination=json")[2].decode()
    assert "12345678901234567890" in kept and page.get_attribute("#data", "aria-invalid") == "false"


NO_JSON = [
    "",
    " ",
    "{",
    "[1,",
    "[1 2]",
    '{"a" 1}',
    "{'a': 1}",
    '{"a": 1,}',
    "[1,]",
    "nul",
    "01",
    "1.",
    '"a',
    '"\\x"',
    '"\n"',
    "1 2",
    "[" * 50000,
]
JSON_TEXTS = ["0", "-1.5e+3", '"\\u00e9\\n"', ' {"a": [true, false, null, {}, []]} ', "[[],[[]]]"]


def test_the_first_error_in_json_is_found(console):
    page = console("scan")
    module = page.get_attribute("script[type=module]", "src").replace("main.js", "json.js")
    find = "async ([module, texts]) => { const {findError} = await import(module); return texts.map(findError); }"
    assert page.evaluate(find, [module, JSON_TEXTS]) == [None] * len(JSON_TEXTS)
    found = page.evaluate(find, [module, NO_JSON])
    assert {each["line"] for each in found[:-1]} == {1}
    assert [each["column"] for each in found[:-1]] == [1, 2, 2, 4, 4, 6, 2, 9, 4, 1, 2, 2, 3, 2, 2, 3]
    assert all(each["expected"] for each in found)


# The list.


def test_a_row_has_one_line_and_opens_to_everything_about_the_push(relay, context, console):
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=relay.url)
    page = console("row")
    value = {"order": 7, "lines": ["a" * 100, None, True]}
    relay.push_json(destination="row", data=value, event="order:paid")
    row = page.locator(".arrival")
    row.wait_for()
    assert row.bounding_box()["height"] < 40
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}", row.locator("time").text_content())
    row.locator("summary").focus()
    page.keyboard.press("Enter")
    row.locator(".value .line").first.wait_for()
    row.get_by_role("button", name="Copy").click()
    row.get_by_text("Copied").wait_for()
    assert json.loads(page.evaluate("navigator.clipboard.readText()")) == value
    assert {"event", "type", "position", "time"} == set(row.locator("dt").all_text_contents())


def test_a_paused_list_counts_what_waits_and_shows_it_afterwards(relay, console):
    page = console("paused")
    relay.push("paused", "first")
    arrived(page).first.wait_for()
    page.click("#pause")
    batch(relay, "paused", 3, "while paused {}")
    page.locator("#pause[aria-pressed=true]").filter(has_text="Resume (3 new)").wait_for()
    assert texts(page) == ["first"]
    page.click("#pause")
    assert texts(page) == ["while paused 2", "while paused 1", "while paused 0", "first"]
    assert page.inner_text("#pause") == "Pause" and page.text_content("#count") == "4"


def test_the_list_can_be_filtered_copied_and_cleared(relay, context, console):
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=relay.url)
    page = console("sorted")
    batch(relay, "sorted", 3, "Apple {}")
    relay.push_json(destination="sorted", data={"pear": 1}, event="fruit")
    page.locator(".arrival").nth(3).wait_for()
    page.fill("#filter", "PEAR")
    assert texts(page) == ['{"pear":1}'] and page.text_content("#count") == "1 of 4"
    relay.push("sorted", "apple 4")
    relay.push("sorted", "pear 5")
    wait_for(lambda: len(texts(page)) == 2, "the second pear")
    page.click("#copy-all")
    page.locator("#copy-all").get_by_text("Copied").wait_for()
    lines = [json.loads(line) for line in page.evaluate("navigator.clipboard.readText()").splitlines()]
    assert [(line["event"], line["data"], line["destination"]) for line in lines] == [
        ("fruit", {"pear": 1}, "sorted"),
        ("push", "pear 5", "sorted"),
    ]
    assert all(set(line) == {"time", "id", "destination", "event", "data"} for line in lines)
    page.fill("#filter", "plum")
    empty = "getComputedStyle(document.querySelector('#arrived'), '::after').content"
    assert texts(page) == [] and page.evaluate(empty) == '"Nothing matches the filter."'
    page.press("#filter", "Escape")
    assert page.evaluate(empty) == "none"
    assert len(texts(page)) == 6 and page.input_value("#filter") == ""
    page.click("#clear")
    assert rows(page) == [] and page.locator("#empty").is_visible()


def test_numbers_that_pages_cannot_read_exactly_are_found(console):
    page = console("rounded")
    module = page.get_attribute("script[type=module]", "src").replace("main.js", "json.js")
    find = "async ([module, texts]) => { const {findRounded} = await import(module); return texts.map(findRounded); }"
    exact = ["9007199254740991", "9007199254740992", "1e21", "0.1", '"9007199254740993"', r'{"\"9007199254740993": 1}']
    assert page.evaluate(find, [module, exact]) == [None] * len(exact)
    rounded = ["9007199254740993", "[1, -9007199254740993]", '{"a": {"b": 12345678901234567890}}']
    found = page.evaluate(find, [module, rounded])
    assert found == [
        ["9007199254740993", "9007199254740992"],
        ["-9007199254740993", "-9007199254740992"],
        ["12345678901234567890", "12345678901234567168"],
    ]


def test_the_list_is_bounded_and_keeps_the_newest(relay, console):
    page = console("burst")
    batch(relay, "burst", 1000)
    page.locator("#count").filter(has_text="1,000, the newest 300 shown").wait_for()
    assert texts(page) == [str(n) for n in range(999, 699, -1)]


def test_the_full_view_of_a_megabyte_shows_its_beginning(console):
    page = console("megabyte")
    module = page.get_attribute("script[type=module]", "src").replace("main.js", "row.js")
    found = page.evaluate(
        """async (module) => {
          const {entryOf, rowOf} = await import(module);
          const row = rowOf(entryOf("x".repeat(1e6), {id: "e:1", event: "push", destination: "a"}, new Date()));
          document.body.append(row);
          row.firstChild.open = true;
          await new Promise((done) => setTimeout(done));
          return [row.querySelector(".value").textContent.length, row.querySelector(".full .hint").textContent];
        }""",
        module,
    )
    assert found == [50_000, "The first 50,000 characters. The button Copy copies all."]


def test_what_the_relay_keeps_does_not_fit_into_a_full_list(relay, console):
    page = console("full")
    module = page.get_attribute("script[type=module]", "src").replace("main.js", "arrivals.js")
    found = page.evaluate(
        """async (module) => {
          const {Arrivals, MAX_ROWS} = await import(module);
          const list = new Arrivals();
          const one = (n) => ({id: `e:${n}`, event: "push", destination: "full"});
          for (let n = 0; n < MAX_ROWS; n += 1) list.add(n, one(n), false);
          list.draw();
          const added = list.addKept([{...one(-1), data: "kept", created: 0}], "full");
          return [added, list.entries.length, list.list.querySelector(".rule.kept").textContent];
        }""",
        module,
    )
    assert found == [0, 300, "the list is full: clear it to see what the relay keeps"]


def test_the_console_shows_what_the_relay_keeps(relay, console):
    page = console("kept")
    page.click("#show-kept")
    page.locator(".rule.kept").filter(has_text="the relay keeps nothing else").wait_for()
    page.close()
    batch(relay, "kept", 3, "earlier {}")
    page = console("kept")
    relay.push("kept", "now")
    page.locator(".arrival").filter(has_text="now").wait_for()
    page.click("#show-kept")
    page.locator(".rule.kept").filter(has_text="earlier push").wait_for()
    assert texts(page)[0] == "now" and sorted(texts(page)[1:]) == [f"earlier {n}" for n in range(3)]


def test_windows_that_have_the_id_are_counted(console):
    page = console("shared")
    page.locator("#presence").filter(has_text="1 window has this id.").wait_for()
    other = console("shared")
    other.locator("#presence").filter(has_text="2 windows have this id.").wait_for()
    other.click("#push-button")
    other.locator("#push-answer").filter(has_text="Delivered to 2 windows, here in").wait_for()


def test_users_of_the_windows_are_shown_by_name(relay_with, console):
    relay = relay_with(secret=audience.SECRET)
    named = [
        ("1", {"name": "Ann"}),
        ("2", {}),
        ("3", {"name": "<b>Bob</b>" + "x" * 40}),
        *((str(n), {}) for n in range(4, 8)),
    ]
    with contextlib.ExitStack() as pages:
        for user, info in named[:2]:
            pages.callback(audience.Page(relay.port, "room", user=user, info=info).close)
        page = console("room", relay)
        presence = page.locator("#presence")
        presence.filter(has_text="3 windows have this id. Users: Ann and 2.").wait_for()
        for user, info in named[2:]:
            pages.callback(audience.Page(relay.port, "room", user=user, info=info).close)
        presence.filter(has_text=f"Users: Ann, 2, <b>Bob</b>{'x' * 19}…, 4, 5 and 2 others.").wait_for()


# Away and back.


def test_what_was_missed_is_marked_and_so_is_what_is_lost(relay_with, console):
    relay = relay_with(history_size=3)
    page = console("missed", relay)
    relay.push("missed", "before")
    arrived(page).first.wait_for()
    go_away(page)
    page.locator(".rule").filter(has_text="away since").wait_for()
    for n in range(2):
        relay.push("missed", f"caught {n}")
    come_back(page)
    page.locator(".rule").filter(
        has_text=re.compile(r"^away \d\d:\d\d:\d\d to \d\d:\d\d:\d\d · 2 caught up$")
    ).wait_for()
    page.locator("#note").filter(has_text="2 pushes caught up, none missing").wait_for()
    relay.push("missed", "after")
    page.locator(".arrival").filter(has_text="after").wait_for()
    kinds = [row.split(":")[0] for row in rows(page)]
    assert kinds == ["arrival", "rule", "arrival caught-up", "arrival caught-up", "arrival"]
    assert texts(page) == ["after", "caught 1", "caught 0", "before"]

    go_away(page)
    for n in range(5):
        relay.push("missed", f"many {n}")
    come_back(page)
    page.locator(".rule.lost").filter(has_text="some pushes are missing here").wait_for()
    page.locator("#note").filter(has_text="Some pushes are missing").wait_for()
    kinds = [row.split(":")[0] for row in rows(page)]
    assert kinds[:3] == ["rule", "rule lost", "arrival"] and texts(page)[0] == "after"


def test_a_page_that_missed_nothing_says_so_and_a_reloaded_one_marks_what_came_between(relay, console):
    page = console("nothing")
    go_away(page)
    come_back(page)
    page.locator(".rule").filter(has_text="nothing missed").wait_for()
    page.goto("about:blank")
    relay.push("nothing", "while closed")
    page.goto(f"{relay.url}/?id=nothing")
    page.locator(".rule").filter(has_text="while this page was closed · 1 caught up").wait_for()
    assert texts(page) == ["while closed"] and "caught-up" in rows(page)[1]


def test_offline_is_told_clearly_and_try_now_connects_at_once(start_relay, console):
    relay = start_relay()
    page = console("offline", relay)
    page.evaluate(
        "() => { Math.random = () => 1000; }"
    )  # it waits for a quarter of an hour, if nobody presses the button
    go_away(page)
    assert page.title() == "Offline · offline · the relay" and page.text_content("#state") == "Offline"
    page.locator("#note[data-kind=warn]").filter(has_text="The relay does not answer.").wait_for()
    assert page.inner_text("#waiting") == "Offline: nothing can arrive now" and page.inner_text("#presence") == ""
    page.evaluate("() => { [window.WebSocket, window.fetch] = kept; }")
    page.click("#try-now")
    page.locator(ONLINE).wait_for()
    page.locator("#note").filter(has_text="Reconnected after").wait_for()
    assert page.locator("#try-now").is_hidden() and page.title() == "offline · the relay"
    assert "Next try" not in page.inner_text("#note") and "does not answer" not in page.inner_text("main")


def test_the_seconds_until_the_next_try_are_counted_down(console):
    page = console("countdown")
    page.evaluate("() => { Math.random = () => 0.9; }")
    go_away(page)
    page.evaluate("() => { window.seen = new Set(); setInterval(() => seen.add(countdown.textContent), 50); }")
    wait_for(lambda: {"Next try in 2 s.", "Next try in 1 s."} <= set(page.evaluate("[...seen]")), "a countdown")
    come_back(page)


# Code.


def test_the_snippets_for_a_relay_with_a_secret_sign_and_use_a_token(start_relay, refused, context):
    need(shutil.which("php"), "PHP")
    relay = start_relay(secret=SECRET, demo="yes")
    page = refused(relay, "it's 42")
    php = page.text_content("#snippet-token").replace("'Relay.php'", f"'{ROOT}/php/Relay.php'")
    ran = subprocess.run(["php"], input=php, capture_output=True, text=True, env={"RELAY_SECRET": SECRET})
    pages = [context.new_page() for _ in range(2)]
    for mine, name in zip(pages, ("page", "socketio"), strict=True):
        mine.route("**/relay-token.php", lambda route: route.fulfill(body=ran.stdout))
        show(mine, relay, "<body></body>" + page.text_content(f"#snippet-{name}"))
    served = "() => true"  # Playwright answers requests of the pages only while it works
    wait_for(
        lambda: pages[0].evaluate(served) and relay.push("it's 42", "for both")["connections"] == 2, "the registrations"
    )
    for mine in pages:
        mine.get_by_text("for both").first.wait_for()
    page.fill("#token", ran.stdout)
    page.click("#token-form button")
    page.locator(ONLINE).wait_for()
    assert "{token: " in page.text_content("#snippet-page") and "missing" not in page.inner_text("#note")


KEY = "0123456789abcdef0123456789"


@pytest.mark.parametrize("way", ["key", "socket"])
def test_the_snippets_of_a_visitor_run_on_the_server_with_a_key_or_at_a_socket(relay_with, context, way, tmp_path):
    """The relay is told to write these facts into the page, because no browser of this machine is such a visitor."""
    need(shutil.which("php") and shutil.which("curl"), "PHP and curl")
    relay = relay_with(push_keys=f"web:{KEY}")
    facts = {"may-push": "no", "needs-key": "yes", "local-url": relay.url}
    given = {"KEY": KEY}
    if way == "socket":
        facts = {"may-push": "no", "local-url": "http://localhost", "local-option": "relay.sock"}
        given = {"/PATH/OF": str(tmp_path)}

    def changed(route):
        html = route.fetch().text()
        for name, value in facts.items():
            html = re.sub(f'data-{name}="[^"]*"', f'data-{name}="{value}"', html)
        route.fulfill(body=html, content_type="text/html")

    page = context.new_page()
    page.route("**/?id=server", changed)
    page.goto(f"{relay.url}/?id=server")
    page.locator(ONLINE).wait_for()
    with forwarder(tmp_path / "relay.sock", relay.port):
        for name, data in (("php", "PHP"), ("curl", "cURL"), ("shell", "the shell")):
            text = (
                page.text_content(f"#snippet-{name}")
                .replace(f"'{ROOT}/php/", "'")
                .replace("'Relay.php'", f"'{ROOT}/php/Relay.php'")
            )
            for old, new in given.items():
                assert old in text, text
                text = text.replace(old, new)
            run("sh" if name == "shell" else "php", text)
            arrived(page).get_by_text(f"Hello from {data}", exact=True).wait_for()


@contextlib.contextmanager
def forwarder(path, port):
    """A Unix socket that leads to a relay: each connection has one request."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            with socket.create_connection(("127.0.0.1", port)) as relay:
                there = threading.Thread(target=pump, args=(self.request, relay), daemon=True)
                there.start()
                pump(relay, self.request)

    def pump(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    with Server(str(path), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield
        server.shutdown()


def test_the_tabs_work_with_the_keyboard(console):
    page = console("tabs")
    page.focus("#tab-page")
    for key, name in (
        ("ArrowRight", "php"),
        ("End", "socketio"),
        ("ArrowRight", "page"),
        ("ArrowLeft", "socketio"),
        ("Home", "page"),
    ):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.id") == f"tab-{name}"
        assert page.eval_on_selector_all("[role=tabpanel]:not([hidden])", "all => all.map(it => it.id)") == [
            f"panel-{name}"
        ]
    assert page.locator("[role=tab][tabindex='-1']").count() == 3


# Everybody, and every screen.


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (390, 844)])
def test_the_first_screen_shows_what_this_is_and_that_the_push_arrived_how_fast(context, relay, width, height):
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": height})
    page.add_init_script(SHIFTS)
    page.goto(f"{relay.url}/?id=first-{width}")
    page.locator("#presence").filter(has_text="window").wait_for()
    page.click("#push-button")
    page.locator("#push-answer strong").wait_for()
    assert page.evaluate("[scrollY, document.documentElement.scrollWidth]") == [0, width]
    for what in ("h1", ".lead", "#id", "#push-button", "#push-answer", ".arrival .latency"):
        box = page.locator(what).bounding_box()
        assert box["y"] > 0 and box["y"] + box["height"] <= height, what
    assert page.evaluate("shifted") < 0.01


KEYBOARD = """
const viewport = new EventTarget();
Object.assign(viewport, {height: innerHeight, offsetTop: 0});
Object.defineProperty(window, "visualViewport", {value: viewport});
window.keyboard = (height) => { viewport.height = innerHeight - height; viewport.dispatchEvent(new Event("resize")); };
"""


def test_on_a_phone_the_arrival_is_in_view_above_the_bar_and_the_keyboard(context, relay):
    page = context.new_page()
    page.set_viewport_size({"width": 390, "height": 844})
    page.add_init_script(KEYBOARD)
    page.goto(f"{relay.url}/?id=thumb")
    page.locator("#presence").filter(has_text="window").wait_for()
    page.focus("#data")
    page.evaluate("keyboard(340)")
    page.click("#push-button")
    page.locator("#push-answer strong").wait_for()
    page.locator(".arrival .latency").filter(has_text="ms").wait_for()
    bar, row, top = (page.locator(each).bounding_box() for each in ("#push", ".arrival", ".top"))
    assert bar["y"] + bar["height"] <= 504 + 1
    assert top["y"] + top["height"] <= row["y"] and row["y"] + row["height"] <= bar["y"]
    page.evaluate("keyboard(0)")
    assert page.locator("#push").bounding_box()["y"] > 650
    page.click("#push-more")
    assert page.locator("#destination").is_visible()
    page.press("#destination", "Escape")
    assert page.locator("#destination").is_hidden() and page.evaluate("document.activeElement.id") == "push-more"


@pytest.mark.parametrize("width", [320, 640, 768, 2560])
def test_the_page_fits_every_screen_and_the_list_grows_with_it(relay, console, width):
    page = console("wide", width=width, height=320 if width == 640 else 1000)  # 640 × 320: 1280 × 640 at 200 %
    page.evaluate("document.documentElement.style.fontSize = '24px'")
    relay.push("wide", "x" * 5000)
    page.locator(".arrival summary").first.click()
    for tab in ("php", "shell", "socketio", "page"):
        page.click(f"#tab-{tab}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, tab
    page.evaluate("document.documentElement.style.fontSize = ''")
    if width == 2560:
        assert page.locator("#arrivals").bounding_box()["width"] > 1300
        assert page.locator("#arrived").bounding_box()["height"] > 600


def test_with_forced_colors_and_reduced_motion_every_state_is_seen_and_nothing_moves(console):
    page = console("forced")
    page.emulate_media(forced_colors="active", reduced_motion="reduce")
    page.click("#push-button")
    page.locator(".arrival").wait_for()
    assert page.evaluate("document.getAnimations().length") == 0
    dot = "getComputedStyle(document.getElementById('state'), '::before').borderTopWidth"
    assert page.evaluate(dot) == "5px"
    go_away(page)
    assert page.evaluate(dot) == "2px"


def test_the_code_for_a_phone_and_the_way_to_get_one_are_shown(start_relay, console, browser):
    page = console("phone")
    page.click("#phone")
    assert "--host 0.0.0.0 --demo yes" in page.inner_text("#phone-panel") and page.locator("#qr").count() == 0
    page.press("#phone", "Enter")
    assert page.locator("#phone-panel").is_hidden()
    relay = start_relay(host="0.0.0.0", demo="yes")
    page = console("phone", relay)
    if page.locator("#qr").count():  # this machine has a network
        page.click("#phone")
        wait_for(lambda: page.evaluate("document.getElementById('qr').naturalWidth > 0"), "the code")
        assert f":{relay.port}/?id=phone" in page.inner_text("#phone-panel")
    far = browser.new_context(extra_http_headers={"X-Forwarded-For": "203.0.113.9"})
    page = far.new_page()
    page.goto(f"{relay.url}/?id=phone")
    page.locator(ONLINE).wait_for()
    assert page.locator("#push-form").count() == 0 and "--host" not in page.inner_text("main")
    far.close()
