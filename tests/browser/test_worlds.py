"""The browser client wherever JavaScript runs: modules, workers, frames, pages with strict policies, and Node.

The site is on another port than the relay, so all of its files come from another origin.
"""
# ruff: noqa: F811 (fixtures)

import json
import shutil
import subprocess

import pytest
from conftest import DEADLINE, ROOT, need, own_only, wait_for
from lab import find
from pages import Files, Server

# Each place gets `listen`, which connects, registers WORLD, and passes on what arrives.
LISTEN = """
function listen(relay, say) {
  relay.on("push", (data) => say(data)).on("error", ({ message }) => say(message));
  return relay.register("WORLD");
}
"""
IN_PAGE = "window.seen = []; const say = (text) => seen.push(text);"
# A worker's side; `self.say` differs between kinds of workers.
IMPORTS = 'import { Relay } from "RELAY/static/relay.mjs";'
SCRIPTS = 'importScripts("RELAY/static/relay.js");'
CONNECT = 'listen(Relay.connect("RELAY"), say);'
WORKER = f"{LISTEN} const say = (text) => postMessage(text); {CONNECT}"
SHARED = f"{LISTEN} onconnect = ({{ ports: [port] }}) => {{ const say = (text) => port.postMessage(text); {CONNECT} }};"
SERVICE = f"{LISTEN} onmessage = ({{ source }}) => {{ const say = (text) => source.postMessage(text); {CONNECT} }};"
SERVICE_PAGE = """
navigator.serviceWorker.onmessage = ({ data }) => say(data);
navigator.serviceWorker.register("/worker.js", OPTIONS).then(({ installing, active }) => {
  const worker = installing || active;
  const start = () => worker.state === "activated" && worker.postMessage("start");
  worker.onstatechange = start;
  start();
});
"""
FRAME = f"""<script src="RELAY/static/relay.js"></script>
<script>{LISTEN} listen(Relay.connect(), (text) => parent.postMessage(text, "*"));</script>"""
FRAME_PAGE = "addEventListener('message', ({ data }) => say(data));"
SRCDOC = f"""{FRAME_PAGE}
const srcdoc = {json.dumps(FRAME)}.replaceAll("/script>", "<" + "/script>");
document.body.append(Object.assign(document.createElement("iframe"), {{ srcdoc }}));""".replace("</script>", "/script>")
ISOLATED = {"Cross-Origin-Embedder-Policy": "require-corp", "Cross-Origin-Opener-Policy": "same-origin"}
STRICT = (
    "default-src 'none'; script-src 'self' RELAY; connect-src RELAY SOCKET; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)


def html(script, module=False, tag=""):
    return f"<!doctype html><body></body>{tag}<script{' type=module' * module}>{IN_PAGE} {script}</script>"


def with_worker(kind, page, worker):
    """A page that starts a worker: as a script, or as a module."""
    return {"/": (html(page.replace("OPTIONS", kind)), {}), "/worker.js": (worker, {})}


TAG = '<script src="RELAY/static/relay.js"></script>'
DEDICATED = "new Worker('/worker.js', OPTIONS).onmessage = ({ data }) => say(data);"
SHARED_PAGE = "new SharedWorker('/worker.js', OPTIONS).port.onmessage = ({ data }) => say(data);"
WORLDS = {
    "module": {"/": (html(f"{IMPORTS} {LISTEN} {CONNECT}", module=True), {})},
    "import()": {"/": (html(f"{LISTEN} import('RELAY/static/relay.mjs').then(({{ Relay }}) => {{ {CONNECT} }});"), {})},
    "minified": {"/": (html(f"{LISTEN} listen(Relay.connect(), say);", tag=TAG.replace(".js", ".min.js")), {})},
    "worker": with_worker("{}", DEDICATED, SCRIPTS + WORKER),
    "module worker": with_worker("{ type: 'module' }", DEDICATED, IMPORTS + WORKER),
    "worker from a blob": {
        "/": (
            html(
                f"const text = {json.dumps(SCRIPTS + WORKER)};"
                "new Worker(URL.createObjectURL(new Blob([text]))).onmessage = ({ data }) => say(data);"
            ),
            {},
        )
    },
    "shared worker": with_worker("{}", SHARED_PAGE, SCRIPTS + SHARED),
    "shared module worker": with_worker("{ type: 'module' }", SHARED_PAGE, IMPORTS + SHARED),
    "service worker": with_worker("{}", SERVICE_PAGE, SCRIPTS + SERVICE),
    "service module worker": with_worker("{ type: 'module' }", SERVICE_PAGE, IMPORTS + SERVICE),
    "srcdoc": {"/": (html(SRCDOC), {})},
    "frame": {"/": (html(FRAME_PAGE, tag='<iframe src="/frame/"></iframe>'), {}), "/frame/": (FRAME, {})},
    "isolated page": {"/": (html(f"{LISTEN} listen(Relay.connect(), say);", tag=TAG), ISOLATED)},
    "trusted types": {
        "/": (f'<!doctype html>{TAG}<script src="/page.js"></script>', {"Content-Security-Policy": STRICT}),
        "/page.js": (
            f"{IN_PAGE} {LISTEN} addEventListener('securitypolicyviolation', (e) => say(e.violatedDirective));"
            "listen(Relay.connect(), say);",
            {},
        ),
    },
}


@pytest.fixture
def site():
    with Server(("127.0.0.1", 0), Files) as site:
        yield site


def serve(site, files, relay, id_):
    """Put a world's files on the site, with the relay's address and the id in place of their names."""

    def filled(text):
        socket = relay.url.replace("http", "ws")
        return text.replace("RELAY", relay.url).replace("SOCKET", socket).replace("WORLD", id_)

    site.files = {
        path: (filled(text), {name: filled(value) for name, value in headers.items()})
        for path, (text, headers) in files.items()
    }


@own_only
@pytest.mark.parametrize("world", WORLDS)
def test_the_client_receives_in(relay, own_or_shared, site, world):
    id_ = f"world-{world}"
    serve(site, WORLDS[world], relay, id_)
    page = own_or_shared(world)
    page.goto(site.url)
    wait_for(lambda: page.evaluate("1") and relay.push(id_, "are you there?")["connections"], f"a client in {world}")
    wait_for(lambda: page.evaluate("window.seen?.length"), "the push")  # wait_for_function() needs eval() in the page
    assert page.evaluate("seen[0]") == "are you there?"
    if world == "isolated page":
        assert page.evaluate("crossOriginIsolated")


@pytest.fixture
def own_or_shared(context, request):
    """Return a function that opens a page. Service workers get a profile of their own, because they outlive pages."""

    def open_page(world):
        return (request.getfixturevalue("own_context") if "service" in world else context).new_page()

    return open_page


@own_only
@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_the_client_receives_in_a_sandboxed_frame_if_the_relay_allows_it(relay_with, context, site, transport):
    relay = relay_with(origins="same-host, null")
    frame = FRAME.replace("Relay.connect()", f"Relay.connect(undefined, {{ transports: ['{transport}'] }})")
    files = {
        "/": (html(FRAME_PAGE, tag='<iframe sandbox="allow-scripts" src="/frame/"></iframe>'), {}),
        "/frame/": (frame, {}),
    }
    serve(site, files, relay, f"sandboxed-{transport}")
    page = context.new_page()
    page.goto(site.url)
    wait_for(lambda: page.evaluate("1") and relay.push(f"sandboxed-{transport}", "hello")["connections"], "the frame")
    page.wait_for_function("window.seen?.length")
    assert page.evaluate("seen[0]") == "hello"


@own_only
@pytest.mark.parametrize("name", ["relay.js", "relay.min.js", "relay.mjs"])
def test_the_documented_command_prints_the_hash_that_lets_a_page_load_the_file(relay, context, site, name):
    need(shutil.which("openssl"), "OpenSSL")
    command = find("docs/javascript.md", "openssl dgst").replace("relay.min.js", name)
    printed = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    kind = 'type="module" ' if name.endswith(".mjs") else ""
    for wrong in ("", "x"):
        tag = f'<script {kind}src="RELAY/static/{name}" integrity="sha384-{wrong}{printed}" crossorigin></script>'
        then = f"<script {kind}>{IN_PAGE} say(performance.getEntriesByType('resource').length)</script>"
        loads = "onload='window.loaded = true' onerror='window.loaded = false'"
        serve(site, {"/": (f"<!doctype html>{tag.replace('src=', loads + ' src=')}{then}", {})}, relay, "")
        page = context.new_page()
        page.goto(site.url)
        page.wait_for_function("window.loaded !== undefined")
        assert page.evaluate("loaded") is (not wrong)


@own_only
@pytest.mark.parametrize("source", ["module", "worker"])
def test_without_a_url_a_module_and_a_worker_get_an_error_that_names_the_call(relay, context, site, source):
    attempt = "try { Relay.connect(); } catch (error) { say(error.message); }"
    files = {
        "module": {"/": (html(f"{IMPORTS} {attempt}", module=True), {})},
        "worker": with_worker("{}", DEDICATED, f"{SCRIPTS} const say = (text) => postMessage(text); {attempt}"),
    }
    serve(site, files[source], relay, "")
    page = context.new_page()
    page.goto(site.url)
    page.wait_for_function("window.seen?.length")
    assert "Relay.connect(URL)" in page.evaluate("seen[0]")


@own_only
def test_different_files_of_the_client_in_one_page_keep_their_positions_apart(relay, context, site):
    """A plugin of the page may bring another one than the page itself."""
    both = f"{IMPORTS} {LISTEN} {CONNECT} listen(globalThis.Relay.connect(), say);"
    tag = TAG.replace(".js", ".min.js")
    serve(site, {"/": (html(both, module=True, tag=tag), {})}, relay, "copies")
    page = context.new_page()
    page.goto(site.url)
    wait_for(lambda: page.evaluate("1") and relay.push("copies", "hello")["connections"] == 2, "both")
    address = f"{relay.url}/socket.io/"
    page.wait_for_function("(address) => sessionStorage[address] && sessionStorage[`${address}#`]", arg=address)


def node(program, *flags):
    need(shutil.which("node"), "Node")
    command = ["node", *flags, "--input-type=module", "-e", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=3 * DEADLINE, cwd=ROOT)


def test_importing_the_client_on_a_server_does_nothing():
    """It defines no globals and starts nothing that would keep the process from ending."""
    program = """
        const names = () => JSON.stringify(Object.getOwnPropertyNames(globalThis).sort());
        const before = names();
        const { Relay, io } = await import("./static/relay.mjs");
        console.log(before === names(), typeof Relay.connect, typeof io);
        try { Relay.connect("/relay/"); } catch (error) { console.log(error.message); }
    """
    ran = node(program)
    first, second = ran.stdout.splitlines()
    assert first == "true function function" and "URL" in second and ran.stderr == "", ran


@own_only
@pytest.mark.parametrize("flag", ["--experimental-websocket", "--no-experimental-websocket"])
def test_a_program_in_node_receives_and_ends_after_close(start_relay, flag):
    """By WebSocket if this Node has it, otherwise by long polling."""
    relay = start_relay(socket_push="yes")
    program = f"""
        import {{ Relay }} from "./static/relay.mjs";
        const relay = Relay.connect("{relay.url}");
        relay.on("push", (data) => {{ console.log(data, relay.transport, typeof WebSocket); relay.close(); }});
        await relay.register("node");
        await relay.push("node", "hello");
    """
    ran = node(program, flag)
    data, transport, kind = ran.stdout.split()
    assert data == "hello" and transport == ("websocket" if kind == "function" else "polling"), ran
