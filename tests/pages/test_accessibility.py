"""Everybody can use the pages: WCAG 2.2 AA by axe-core, keyboard, zoom, large type, and the colors of the system.

One Chromium opens each page in each of its states (scenes.py) and looks at it from all sides.
"""

import contextlib
import json

import pytest
from conftest import CHROMIUM, CHROMIUM_FLAGS, DEADLINE, ROOT, need
from consoles import ONLINE
from scenes import Scenes

AXE = ROOT / "tests/node_modules/axe-core/axe.min.js"
STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# Color schemes and widths. 640 is what zoom makes of 1280 pixels at 200 %.
LOOKS = (("light", 320), ("dark", 390), ("light", 640), ("light", 1280), ("dark", 2560))
PLACES = [
    *(("console", name) for name in Scenes.CONSOLE),
    *(("status", name) for name in Scenes.STATUS),
    ("docs", "docs"),
    ("not shown", "not_shown"),
]
# Before any script of a page: what moves without the reader's doing, and what the CSP forbids.
WATCH = """
window.watched = {shifts: [], forbidden: [], animations: []};
new PerformanceObserver((list) => {
  for (const each of list.getEntries()) if (!each.hadRecentInput)
    watched.shifts.push([each.value, each.sources.map(({node}) => node?.id || node?.className || node?.nodeName)]);
}).observe({type: "layout-shift", buffered: true});
addEventListener("securitypolicyviolation", ({violatedDirective, blockedURI, sourceFile}) =>
  watched.forbidden.push([violatedDirective, blockedURI, sourceFile]));
for (const kind of ["animationstart", "transitionrun"]) addEventListener(kind, (event) =>
  watched.animations.push([kind, event.animationName ?? event.propertyName, event.target.id]), true);
const {animate} = Element.prototype;
Element.prototype.animate = function (...how) {
  watched.animations.push(["animate", this.id]);
  return animate.apply(this, how);
};
"""


@pytest.fixture(scope="module")
def server():
    """The relay's own server: the pages are the same on both."""
    return "own"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    with contextlib.ExitStack() as stack:
        yield Scenes(tmp_path_factory.mktemp("scenes"), stack)


@pytest.fixture(scope="module")
def visible(browser):
    """One profile of Chromium for all scenes, of a reader who prefers reduced motion."""
    need(AXE.exists(), "axe-core (npm install --prefix tests)")
    context = browser.new_context(reduced_motion="reduce")
    context.set_default_timeout(DEADLINE * 1000)
    context.add_init_script(WATCH)
    yield context
    context.close()


@pytest.fixture(scope="module")
def seen(scenes, visible):
    """The findings for each page in each state: {(page, state): {what: …}}."""
    asked, seen = [], {}
    visible.on("request", lambda request: asked.append(request.url))
    for place, state in PLACES:
        asked.clear()
        page = getattr(scenes, state)(visible)
        seen[place, state] = {
            "origin": page.evaluate("location.origin"),
            "requests": list(asked),
            "forbidden": page.evaluate("watched.forbidden"),
            "animations": page.evaluate("watched.animations"),
            "controls": page.evaluate(CONTROLS),
            "reached": reached(page),
            "flat": flat(page),
            **looks(page),
        }
        page.close()
    return seen


# The findings of axe-core.

TWO_FRAMES = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
# Rules that depend on neither the colors nor the width run once.
EVERYTHING = {"runOnly": STANDARDS}
AGAIN = {"runOnly": {"type": "rule", "values": ["color-contrast", "target-size"]}}
# axe-core leaves to people the colors of text that is scrolled out of view or reaches beyond what scrolls. The
# background of such text is that of its nearest ancestor with one; pictures and transparent colors are left to people.
# The button "More fields" of narrow windows shows "⋯", which cannot be part of its name.
ASK_AXE = """async (options) => {
  const rgb = (text) => /^rgb\\((\\d+), (\\d+), (\\d+)\\)$/.exec(text)?.slice(1).map(Number);
  const light = (color) => color.map((part) => part / 255)
    .map((part) => part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4)
    .reduce((sum, part, each) => sum + part * [.2126, .7152, .0722][each], 0);
  const behind = (node) => {
    const {backgroundColor, backgroundImage} = getComputedStyle(node);
    if (backgroundImage !== "none") return null;
    if (backgroundColor !== "rgba(0, 0, 0, 0)") return rgb(backgroundColor);
    return node.parentElement && behind(node.parentElement);
  };
  const readable = (node) => {
    const ink = rgb(getComputedStyle(node).color), paper = behind(node);
    if (!ink || !paper) return false;
    const [dark, bright] = [light(ink), light(paper)].sort((a, b) => a - b);
    return (bright + .05) / (dark + .05) >= 4.5;
  };
  const hidden = ["bgOverlap", "elmPartiallyObscured", "elmPartiallyObscuring", "outsideViewport"];
  const short = ["nonBmp", "shortTextContent"];  // an arrow, "…" or a single digit
  const explained = (id, {any, target}) => (id === "label-content-name-mismatch" && target[0] === "#push-more")
    || (id === "color-contrast" && [...hidden, ...short].includes(any[0]?.data?.messageKey)
        && readable(document.querySelector(target[0])));
  const {violations, incomplete} = await axe.run(document, {resultTypes: ["violations", "incomplete"], ...options});
  const tell = (kind) => ({id, help, nodes}) => nodes.filter((node) => kind === "violation" || !explained(id, node))
    .map((node) => `${kind}: ${id}: ${node.target}: ${node.any.concat(node.all, node.none)[0]?.message || help}`);
  return [...violations.flatMap(tell("violation")), ...incomplete.flatMap(tell("look at it"))];
}"""


def looks(page):
    """Return what is too wide for each width, and what axe-core finds in each look or leaves to people."""
    page.evaluate(FROM_THE_TOP)
    page.evaluate(AXE.read_text())
    found, too_wide = [], {}
    for scheme, width in LOOKS:
        page.emulate_media(color_scheme=scheme)
        resize(page, width)
        if wider := page.evaluate(WIDE):
            too_wide[width] = wider
        rules = EVERYTHING if (scheme, width) == LOOKS[0] else AGAIN
        if width != 640:
            found += [f"{scheme}, {width}: {line}" for line in page.evaluate(ASK_AXE, rules)]
    return {"axe": found, "wide": too_wide}


def resize(page, width):
    """Set the window's width, and wait until two frames have been drawn: the page may adapt to it by a script."""
    page.set_viewport_size({"width": width, "height": 800})
    page.evaluate(TWO_FRAMES)


def test_axe_finds_nothing_in_any_state_width_and_color_scheme(seen):
    found = [f"{place}, {line}" for place, what in seen.items() for line in what["axe"]]
    assert not found, "\n".join(found)


# The keyboard.

# All that takes the keyboard's focus, in the order of the document, and what the reader sees of it.
CONTROLS = """() => [...document.querySelectorAll(
  "a[href], button, input, select, textarea, summary, [tabindex]")].filter((each) =>
    each.tabIndex >= 0 && !each.disabled && !each.closest("[inert]") && each.checkVisibility({visibilityProperty: true})
    && !(each.type === "radio" && !each.checked)).map((each) => {
      each.dataset.number ??= String(window.numbered = (window.numbered ?? 0) + 1);
      return each.dataset.number;
    })"""
FROM_THE_TOP = """() => {
  document.body.tabIndex = -1;
  document.body.focus();
  document.body.removeAttribute("tabindex");
  scrollTo(0, 0);
}"""
FOCUSED = """() => {
  const each = document.activeElement, style = getComputedStyle(each), box = each.getBoundingClientRect();
  const shown = each.type === "radio" ? getComputedStyle(each.nextElementSibling) : style;
  const middle = [box.left + box.width / 2, box.top + Math.min(box.height, innerHeight) / 2];
  return {
    number: each.dataset.number ?? each.tagName,
    name: each.id || each.textContent.trim().slice(0, 30),
    ring: shown.outlineStyle !== "none" && parseFloat(shown.outlineWidth) >= 2,
    seen: box.width > 0 && box.top < innerHeight && box.bottom > 0 && box.left < innerWidth && box.right > 0,
  };
}"""


def reached(page):
    """Return what the key Tab reaches, one after the other."""
    page.evaluate(FROM_THE_TOP)
    reached = []
    for _ in range(len(page.evaluate(CONTROLS))):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(FOCUSED))
    return reached


def test_the_keyboard_reaches_every_control_in_order_and_the_focus_is_visible(seen):
    for place, what in seen.items():
        assert what["controls"] and [each["number"] for each in what["reached"]] == what["controls"], (place, what)
        unseen = [each for each in what["reached"] if not (each["ring"] and each["seen"])]
        assert not unseen, (place, unseen)


# Sizes.

# Returns the elements that are wider than the window, except those that scroll by themselves.
WIDE = """() => {
  const scrolls = (node) => node && node !== document.body
    && (["auto", "scroll", "hidden", "clip"].includes(getComputedStyle(node).overflowX) || scrolls(node.parentElement));
  const wide = [...document.body.querySelectorAll("*")].filter((each) =>
    each.getBoundingClientRect().right > innerWidth + 1 && !scrolls(each) && each.checkVisibility());
  const root = document.scrollingElement;
  return root.scrollWidth > innerWidth || wide.length
    ? [root.scrollWidth, ...wide.slice(0, 5).map((each) => each.id || each.className || each.tagName)] : null;
}"""


def test_nothing_is_wider_than_the_window_from_320_pixels_and_at_twice_the_size(seen):
    assert not {place: what["wide"] for place, what in seen.items() if what["wide"]}


def test_the_readers_own_font_size_counts_and_nothing_is_cut_off(browser, scenes):
    """A reader has set 24 pixels in the browser, in place of 16."""
    flags = [*CHROMIUM_FLAGS, "--blink-settings=defaultFontSize=24"]
    with contextlib.closing(browser.browser_type.launch(executable_path=CHROMIUM, args=flags)) as large:
        context = large.new_context()
        for state in ("arrivals", "refused", "busy", "docs", "not_shown"):
            page = getattr(scenes, state)(context)
            assert page.evaluate("parseFloat(getComputedStyle(document.body).fontSize)") == 24, state
            for _, width in LOOKS:
                resize(page, width)
                too_wide = page.evaluate(WIDE)
                assert not too_wide, (state, width, too_wide)
            page.close()


# Motion, colors, the network.


def test_nothing_moves_for_readers_who_prefer_reduced_motion(seen):
    moved = {place: what["animations"] for place, what in seen.items()}
    assert not any(moved.values()), moved


def flat(page):
    """Return the controls without an edge, and whether the state is said in words, in Windows' high contrast."""
    page.emulate_media(forced_colors="active")
    controls = page.evaluate(FLAT)
    page.emulate_media(forced_colors="none")
    return controls


FLAT = """() => [...document.querySelectorAll("button, input, textarea, #state")].filter((each) => {
  const {borderTopStyle, textDecorationLine} = getComputedStyle(each);
  if (each.id === "state") return !each.textContent.trim();
  return each.checkVisibility() && each.type !== "radio" && borderTopStyle === "none"
    && !textDecorationLine.includes("underline");
}).map((each) => each.id || each.textContent)"""


def test_the_system_may_choose_all_colors(seen):
    assert not {place: what["flat"] for place, what in seen.items() if what["flat"]}


def test_no_page_asks_another_host_or_does_what_its_policy_forbids(seen):
    for place, what in seen.items():
        foreign = [url for url in what["requests"] if not url.startswith(f"{what['origin']}/")]
        assert what["requests"] and not foreign, (place, foreign)
        assert not what["forbidden"], (place, what["forbidden"])


# A page of the documentation knows the size of its pictures before they have come.
PICTURES = """() => {
  const sizes = [...document.querySelectorAll("main img")].map((each) =>
    [each.naturalWidth, each.naturalHeight, ...["width", "height"].map((name) => Number(each.getAttribute(name)))]);
  return sizes.length > 0 && sizes.every(([width, height, ...said]) => String(said) === String([width, height]));
}"""


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_jumps_when_a_page_loads_or_the_first_push_arrives(scenes, visible, width):
    """The sum is Chromium's cumulative layout shift; 0.1 counts as good."""
    relay, page = scenes.relay(), visible.new_page()
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"{relay.url}/?id=coral-otter-512")
    page.locator(ONLINE).wait_for()
    relay.push("coral-otter-512", json.dumps({"first": width}))
    page.locator("#arrived > li").first.wait_for()
    assert shifted(page) < 0.01, page.evaluate("watched.shifts")
    scenes.status_in(page, relay)
    assert shifted(page) < 0.01, page.evaluate("watched.shifts")
    page.goto(f"{relay.url}/docs/operations")
    assert page.evaluate(PICTURES)
    assert shifted(page) < 0.01, page.evaluate("watched.shifts")
    page.close()


def shifted(page):
    """Return the sum of the shifts, once two frames have been drawn."""
    page.evaluate(TWO_FRAMES)
    return sum(value for value, _ in page.evaluate("watched.shifts"))
