"""The built files of the browser client equal what static/build.mjs makes of static/src, and are small."""

import gzip
import json
import shutil
import subprocess

import pytest
from conftest import DEADLINE, ROOT, need

STATIC = ROOT / "static"
BUILT = ["relay.js", "relay.mjs", "relay.min.js", "relay.min.js.map"]


def node(*arguments):
    need(shutil.which("node"), "Node")
    result = subprocess.run(["node", *arguments], capture_output=True, text=True, timeout=6 * DEADLINE)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with freshly built files."""
    for package in ("esbuild", "terser"):
        need((ROOT / "tests" / "node_modules" / package).exists(), f"{package} (npm install --prefix tests)")
    folder = tmp_path_factory.mktemp("built")
    node(STATIC / "build.mjs", folder)
    return folder


@pytest.mark.parametrize("name", BUILT)
def test_the_file_is_what_the_build_makes_of_the_source(built, name):
    is_same = (built / name).read_bytes() == (STATIC / name).read_bytes()
    assert is_same, f"static/{name} is not built from static/src. Run  node static/build.mjs  and commit the files."


def test_the_script_fits_in_6_kb():
    """As the relay sends it: minified and gzipped, with the line that names its source map."""
    size = len(gzip.compress((STATIC / "relay.min.js").read_bytes(), 9, mtime=0))
    assert size <= 6 * 1024, "To search private names with which it is smaller, run  node static/tools/shrink.mjs"


def test_the_source_map_has_the_source():
    sources = json.loads((STATIC / "relay.min.js.map").read_text())
    texts = dict(zip(sources["sources"], sources["sourcesContent"], strict=True))
    modules = {str(file.relative_to(STATIC)): file.read_text() for file in (STATIC / "src").rglob("*.js")}
    del modules["src/index.js"]  # it only names what the others export
    assert texts == modules
    assert (STATIC / "relay.min.js").read_text().endswith("//# sourceMappingURL=relay.min.js.map\n")


def test_each_module_has_at_most_250_lines():
    sources = [STATIC / "build.mjs", *(STATIC / "tools").glob("*.mjs"), *(STATIC / "src").rglob("*.js")]
    assert not [file.name for file in sources if len(file.read_text().splitlines()) > 250]


@pytest.mark.parametrize("script", ["relay.js", "relay.min.js"])
def test_node_loads_the_script(script):
    program = f"require({str(STATIC / script)!r}); console.log(typeof Relay.connect, typeof io)"
    assert node("-e", program) == "function function\n"


def test_the_module_exports_relay_and_io_and_defines_no_globals():
    program = (
        f"import({str(STATIC / 'relay.mjs')!r}).then((all) =>"
        " console.log(Object.keys(all).join(), typeof globalThis.Relay, typeof globalThis.io))"
    )
    assert node("-e", program) == "Relay,io undefined undefined\n"
