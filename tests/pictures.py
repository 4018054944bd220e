"""Pictures of the console and the status page, in each of their states, of real relays.

    python tests/pictures.py FOLDER     all states, 390, 768 and 1440 pixels wide, light and dark, to look at
    python tests/pictures.py --docs     docs/pictures/: the two that the documentation shows

The pictures of the documentation have fixed ids, data and times, so that a picture changes only if its page does (and
by the measured milliseconds). No relay has an hour behind it here, so the figures of the last hour are made up.
"""

import argparse
import base64
import contextlib
import datetime
import pathlib
import random
import tempfile

from conftest import CHROMIUM, CHROMIUM_FLAGS, ROOT, wait_for
from consoles import ONLINE
from playwright.sync_api import sync_playwright
from scenes import ORDERS, Scenes

WIDTHS = {390: 844, 768: 1024, 1440: 900}
DOCS = ROOT / "docs/pictures"
MOST_BYTES = 120_000
EVENING = datetime.datetime(2026, 3, 12, 20, 15, 3)
STEPS = 360  # of the last hour, ten seconds each
RESTART = 300  # the step in which the relay was killed and started again


def take_all(browser, scenes, folder):
    for place, names in (("console", Scenes.CONSOLE), ("status", Scenes.STATUS)):
        for name in names:
            context = browser.new_context()
            page = getattr(scenes, name)(context)
            for width, height in WIDTHS.items():
                page.set_viewport_size({"width": width, "height": height})
                for scheme in ("light", "dark"):
                    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                    page.screenshot(path=folder / f"{place}-{name}-{width}-{scheme}.png", full_page=True)
            context.close()


# For the documentation.


def take_for_docs(browser, scenes):
    DOCS.mkdir(exist_ok=True)
    context = browser.new_context(timezone_id="UTC", reduced_motion="reduce")
    for name, height, end in (("console", 720, ".console"), ("status", 1000, ".board > .hour")):
        page = {"console": console, "status": status}[name](context, scenes)
        page.set_viewport_size({"width": 1280, "height": height})
        page.evaluate("document.activeElement.blur()")
        page.mouse.move(0, 0)
        bottom = page.locator(end).bounding_box()
        clip = {"x": 0, "y": 0, "width": 1280, "height": bottom["y"] + bottom["height"] + 14, "scale": 1}
        # WebP has a quarter of the bytes of PNG, and Playwright does not offer it.
        how = {"format": "webp", "quality": 90, "clip": clip, "captureBeyondViewport": False}
        answer = context.new_cdp_session(page).send("Page.captureScreenshot", how)
        file = DOCS / f"{name}.webp"
        file.write_bytes(base64.b64decode(answer["data"]))
        size = file.stat().st_size
        print(f"{file.relative_to(ROOT)}: {size:,} bytes")
        assert size < MOST_BYTES, f"{file.name} is larger than {MOST_BYTES} bytes"


def console(context, scenes):
    """The console of a page that was away for a moment, and whose own push has just arrived."""
    relay = scenes.relay()
    page = context.new_page()
    page.clock.set_fixed_time(EVENING)
    page.goto(f"{relay.url}/?id=coral-otter-512")
    page.locator(ONLINE).wait_for()
    for number, (event, data) in enumerate(ORDERS[:4], 1):
        page.clock.set_fixed_time(EVENING + datetime.timedelta(seconds=17.31 * number))
        fields = {"event": event} if event else {}
        relay.push_json(destination="coral-otter-512", data=data, **fields)
        wait_for(lambda number=number: page.locator("#arrived > li").count() >= number, "the row")
    page.clock.set_fixed_time(EVENING + datetime.timedelta(seconds=84.6))
    page.click("#push-button")
    page.locator("#push-answer strong").wait_for()
    return page


def status(context, scenes):
    """The status page of a shop in the evening, after the relay was killed and came back."""
    relay = scenes.relay(max_connections=20_000)
    page = context.new_page()
    page.route("**/status.json", lambda route: route.fulfill(json=evening(route.fetch().json())))
    page.clock.set_fixed_time(EVENING + datetime.timedelta(minutes=10))
    return scenes.status_in(page, relay)


def walk(low, high, seed):
    """Return STEPS figures that go up and down between two bounds, as those of a site do, the same each time."""
    chance, figure, drift, figures = random.Random(seed), (low + high) / 2, 0.0, []
    for _ in range(STEPS):
        drift = 0.92 * drift + chance.uniform(-1, 1) * (high - low) / 90 + ((low + high) / 2 - figure) / 800
        figure = min(max(figure + drift, low), high)
        figures.append(figure + chance.uniform(-1, 1) * (high - low) / 40)
    return figures


def evening(answer):
    """Put the figures of a busy hour into an answer of /status.json."""
    end = (EVENING + datetime.timedelta(minutes=10)).timestamp()
    at = end - (STEPS - RESTART) * 10
    series = {name: [0] * STEPS for name in answer["history"]["series"]}
    for name, low, high in (("clients", 1150, 1380), ("pushes", 190, 560), ("p50_us", 1100, 1500)):
        series[name] = [round(each) for each in walk(low, high, name)]
    series["websocket"] = [round(each * 0.97) for each in series["clients"]]
    series["publications"] = [round(each * 1.05) for each in series["pushes"]]
    series["deliveries"] = [each * 68 for each in series["pushes"]]
    series["p99_us"] = [round(each * 3.6) for each in walk(1100, 1800, "p99_us")]
    series["clients"][RESTART : RESTART + 2] = series["websocket"][RESTART : RESTART + 2] = [None, 822]
    series["clients"][-1], series["websocket"][-1], series["pushes"][-1] = 1284, 1246, 412
    sentence = "Ready. 1,284 browsers, 97 % by WebSocket. Every push in the last hour was accepted."
    more = f"Back after 1.2 s at {clock(at)}: 1,284 came back, 1,284 recovered, 0 lost."
    gigabyte = 1 << 30
    return answer | {
        "now": end,
        "verdict": {"level": "ok", "code": "restart", "sentence": sentence, "more": more, "todo": "", "command": ""},
        "relay": answer["relay"] | {"commit": None, "started": at, "up": end - at},
        "clients": answer["clients"]
        | {"now": 1284, "websocket": 1246, "polling": 38, "websocket_percent": 97.0, "most": 1391, "percent": 6.4}
        | {"registrations": 2410, "destinations": 1190, "connects": 1502, "connects_rate": 0.6},
        "files": {"open": 1310, "limit": 19712, "percent": 6.6},
        "pushes": answer["pushes"]
        | {"rate": 41.2, "hour": sum(series["pushes"]), "total": 9_821_330, "publications": sum(series["publications"])}
        | {"nobody": 4147, "nobody_percent": 2.9, "nobody_to": [{"name": "user-99", "count": 412}]},
        "deliveries": {"rate": 2890.0, "hour": sum(series["deliveries"])},
        "latency": {"p50": 0.0014, "p99": 0.0061, "p50_now": 0.0013, "p99_now": 0.0058},
        "recoveries": {"recovered": 1284, "lost": 0, "replayed": 5120},
        "restart": {"at": at, "away": 1.2, "clean": False, "clients_before": 1284, "came_back": 1284}
        | {"recovered": 1284, "lost": 0},
        "store": answer["store"]
        | {"publications": 18402, "bytes": 12 << 20, "limit": 256 << 20, "percent": 4.7, "oldest": 3540.0}
        | {"commit_p99": 0.0009, "disk_free": 41 * gigabyte},
        "process": answer["process"] | {"memory": 64_000_000, "cpu_percent": 7.1, "threads_busy": 3, "threads": 8},
        "problems": [],
        "busiest": {
            "connections": [{"name": "news", "count": 1284}, {"name": "user-42", "count": 7}],
            "pushes": [{"name": "news", "count": 51200}, {"name": "user-42", "count": 9911}],
        },
        "history": answer["history"]
        | {"end": end, "covers": 3600, "series": series}
        | {"marks": [{"at": at, "kind": "restart", "text": "The relay was killed, and was back after 1.2 s."}]},
    }


def clock(at):
    return f"{datetime.datetime.fromtimestamp(at, datetime.UTC):%H:%M UTC}"


def main():
    reader = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    reader.add_argument("folder", nargs="?", type=pathlib.Path, help="where the pictures go")
    reader.add_argument("--docs", action="store_true", help="take those of the documentation")
    wanted = reader.parse_args()
    if not wanted.folder and not wanted.docs:
        reader.error("name a folder, or use --docs")
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        scenes = Scenes(pathlib.Path(temporary), stack)
        if wanted.docs:
            take_for_docs(browser, scenes)
        if wanted.folder:
            wanted.folder.mkdir(parents=True, exist_ok=True)
            take_all(browser, scenes, wanted.folder.absolute())
        browser.close()


if __name__ == "__main__":
    main()
