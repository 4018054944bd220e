"""The examples for React, Vue and Svelte, bundled with Vite and the packed client, in Chromium with a real relay."""

import json
import shutil

import pytest
from conftest import ROOT, need, own_only, wait_for
from npm import install, link_others, run
from pages import Files, Server

FRAMEWORKS = ["react", "vue", "svelte"]


@pytest.fixture(scope="session")  # not "module": tests with other servers may run in between
def bundled(tmp_path_factory):
    """(A folder with the bundle of all three, the HTML of each as rendered on a server)."""
    need((ROOT / "tests" / "node_modules" / "vite").exists(), "Vite (npm install --prefix tests)")
    folder = tmp_path_factory.mktemp("examples")
    install(folder)
    link_others(folder)
    shutil.copytree(ROOT / "examples", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
    shutil.copy(ROOT / "tests" / "client_js" / "frameworks.mjs", folder)
    return folder / "dist", json.loads(run("node", "frameworks.mjs", "dist", cwd=folder))


@pytest.fixture
def site(bundled):
    """The bundle on a web server of its own."""
    with Server(("127.0.0.1", 0), Files) as site:
        site.files = {}
        yield site


def serve(site, bundled, relay):
    """Put the bundle on the site, with the address of this relay in place of that of the examples."""
    for file in bundled[0].rglob("*.*"):
        path = f"/{file.relative_to(bundled[0])}".removesuffix("index.html")
        site.files[path] = (file.read_text().replace('url = "/relay/"', f'url = "{relay.url}"'), {})


def held(relay):
    """Return the number of connections that have registered the destination of the examples."""
    return json.loads(relay.request("GET", "/presence?destination=demo")[2])["demo"]["connections"]


@own_only
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_component_receives_each_push_once_and_unregisters_when_it_is_unmounted(
    relay, context, site, bundled, framework
):
    """In StrictMode, React mounts each component twice."""
    serve(site, bundled, relay)
    page = context.new_page()
    asked = []
    page.on("websocket", lambda socket: asked.append(socket.url))
    page.goto(f"{site.url}/{framework}/")
    page.get_by_text("online").wait_for()
    wait_for(lambda: page.evaluate("1") and held(relay) == 1, "the registration")
    relay.push("demo", "first")
    page.locator("li").get_by_text("first").wait_for()
    page.get_by_text("Add").click()
    page.locator("section").nth(1).get_by_text("online").wait_for()
    relay.push("demo", "second")
    page.locator("section").nth(1).get_by_text("second").wait_for()
    assert page.locator("section").nth(0).locator("li").all_inner_texts() == ["first", "second"]
    assert page.locator("section").nth(1).locator("li").all_inner_texts() == ["second"]
    page.get_by_text("Remove").click()
    relay.push("demo", "third")
    page.locator("li").get_by_text("third").wait_for()
    assert page.locator("li").all_inner_texts() == ["first", "second", "third"] and held(relay) == 1
    page.get_by_text("Remove").click()
    wait_for(lambda: page.evaluate("1") and held(relay) == 0, "the end of the registration")
    page.get_by_text("Add").click()
    wait_for(lambda: page.evaluate("1") and held(relay) == 1, "the next registration")
    assert len(asked) == 1, "the components share one connection, which stays open"


@own_only
def test_a_component_is_told_if_pushes_were_lost(start_relay, context, site, bundled):
    relay = start_relay(broker="memory:")
    serve(site, bundled, relay)
    pages = [context.new_page() for _ in FRAMEWORKS]
    for page, framework in zip(pages, FRAMEWORKS, strict=True):
        page.goto(f"{site.url}/{framework}/")
    wait_for(lambda: pages[0].evaluate("1") and held(relay) == 3, "the registrations")
    relay.push("demo", "first")
    for page in pages:
        page.locator("li").get_by_text("first").wait_for()
    relay.kill()
    relay.start()  # with an empty store
    for page in pages:
        page.locator("li").wait_for(state="detached")
        page.get_by_text("online").wait_for()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_component_is_rendered_on_a_server_without_a_connection(bundled, framework):
    assert "<p>connecting</p>" in bundled[1][framework]


def test_the_examples_and_the_tests_use_the_same_versions():
    def dependencies(folder):
        return json.loads((ROOT / folder / "package.json").read_text())["dependencies"]

    example = dependencies("examples")
    assert example.pop("pushrelay") == "file:../static"
    assert example.items() <= dependencies("tests").items()


@pytest.mark.parametrize("file", ["react/useRelay.js", "vue/useRelay.js", "svelte/useRelay.svelte.js"])
def test_each_function_is_short_enough_to_be_copied(file):
    assert len((ROOT / "examples" / file).read_text().splitlines()) <= 50
