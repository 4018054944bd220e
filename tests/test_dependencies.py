"""Python and other packages: what the relay needs of them is checked at the start, and their caches are bounded."""

import ast
import inspect
import pathlib
import re
import resource
import subprocess
import sys

import engineio
import pytest
import socketio
from clients import WebSocketClient
from conftest import ROOT, own_only

from pushrelay import addresses, dependencies, origins
from pushrelay.engine import environ as engine_environ
from pushrelay.push import body as bodies

INTERPRETERS = sorted(pathlib.Path.home().glob(".pyenv/versions/3.*/bin/python"))
OLD = [each for each in INTERPRETERS if (3, 6) <= tuple(map(int, each.parts[-3].split(".")[:2])) < (3, 11)]


# Python.


def test_any_python_from_3_6_on_can_compile_the_files_up_to_the_check_of_its_version():
    for name in ("relay.py", "pushrelay/__init__.py"):
        tree = ast.parse((ROOT / name).read_text(), feature_version=(3, 7))  # the oldest that ast always knows
        assert not {type(node).__name__ for node in ast.walk(tree)} & {"NamedExpr", "Match", "TryStar"}
    imports = [node.module for node in ast.parse((ROOT / "relay.py").read_text()).body if hasattr(node, "module")]
    first = next(module for module in imports if module not in sys.stdlib_module_names | {"collections.abc"})
    assert first.startswith("pushrelay."), "the package checks the version before anything else is imported"


def old_python(python, arguments):
    """Return the command, and the version that runs it. Without an old Python, this one pretends to be 3.10."""
    if python is not None:
        return [python, *arguments], python.parts[-3].rpartition(".")[0]
    pretends = "import runpy, sys; sys.version_info = (3, 10, 4, 'final', 0); "
    if arguments[0] != "-c":
        pretends += f"sys.argv = {arguments!r}; "
        arguments = ["-c", "runpy.run_path('relay.py', run_name='__main__')"]
    return [sys.executable, "-c", pretends + arguments[1]], "3.10"


@pytest.mark.parametrize("python", [None, *OLD], ids=lambda path: path.parts[-3] if path else "pretended")
@pytest.mark.parametrize(
    "arguments", [["relay.py"], ["relay.py", "--check"], ["relay.py", "doctor"], ["-c", "import relay"]]
)
def test_an_old_python_is_named_before_anything_else_fails(python, arguments):
    command, version = old_python(python, arguments)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    *before, last = done.stderr.splitlines()
    assert "needs Python 3.11 or later" in last and f"this is Python {version}: " in last
    if arguments[0] == "-c":
        assert last.startswith("ImportError: ")
    else:
        assert (done.returncode, before, done.stdout) == (2, [], "")


# Packages.


def private_names_in_use(*classes):
    """Return the private names of these classes and their objects that the relay's code uses."""
    own = [base for each in classes for base in each.__mro__ if base is not object]
    theirs = {name for base in own for name in vars(base)}
    theirs |= {name for base in own for name in re.findall(r"self\.(_\w+)", inspect.getsource(base))}
    used = set()
    for file in [*(ROOT / "pushrelay").rglob("*.py"), ROOT / "relay.py"]:
        for node in ast.walk(ast.parse(file.read_text())):
            used.add(getattr(node, "attr", None) if isinstance(node, ast.Attribute) else getattr(node, "name", None))
    return {name for name in theirs & used if name.startswith("_") and not name.startswith("__")}


def test_each_private_name_of_other_packages_that_is_used_is_checked_at_the_start():
    named = {name for names in dependencies.PRIVATE.values() for name in names}
    assert private_names_in_use(socketio.Server, socketio.Manager, engineio.Server) == named
    dependencies.check()


@pytest.mark.parametrize(
    ("module", "name"), [("socketio.Server", "_send_packet"), ("engineio.Server", "_unauthorized")]
)
def test_a_package_that_lacks_what_the_relay_uses_stops_the_start_with_a_sentence(tmp_path, module, name):
    package = module.partition(".")[0]
    holder = f"next(base for base in {module}.__mro__ if {name!r} in vars(base))"
    program = f"import {package}, runpy, sys; delattr({holder}, {name!r}); sys.argv = ['relay.py', '--check']"
    program += "; runpy.run_path('relay.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"relay: python-{package} ") and name in done.stderr and "pip install" in done.stderr


def test_every_package_that_is_imported_is_named_in_the_requirements():
    files = [file.read_text() for file in ROOT.glob("requirements*.txt")]
    required = re.findall(r"^[\w-]+", "\n".join(files), re.MULTILINE)
    names = {
        "flask_socketio": "flask-socketio",
        "jwt": "pyjwt",
        "pymysql": "PyMySQL",
        "markdown_it": "markdown-it-py",
        "prometheus_client": "prometheus-client",
        "engineio": "python-engineio",
        "socketio": "python-socketio",
        "simple_websocket": "simple-websocket",
    }
    imported = set()
    for file in [*(ROOT / "pushrelay").rglob("*.py"), ROOT / "relay.py"]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {each.name.partition(".")[0] for each in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.partition(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - {"pushrelay", "relay"}
    optional = {"uwsgi", "gunicorn", "waitress", "asgiref"}  # of servers that import the relay
    assert {names.get(each, each) for each in foreign} - optional <= set(required)


# Caches of what strangers send.


def test_values_of_handshakes_are_not_kept_beyond_their_session(monkeypatch):
    interned = []
    monkeypatch.setattr(sys, "intern", lambda text: interned.append(text) or text)
    for number in range(3 * engine_environ.MOST_SHARED):
        environ = {
            "HTTP_COOKIE": f"c={number}",
            "HTTP_USER_AGENT": f"u{number}",
            "HTTP_ORIGIN": "o" * 30_000 + str(number),
        }
        kept = engine_environ.trimmed(environ)
        assert kept["HTTP_COOKIE"] is environ["HTTP_COOKIE"]
    assert not interned
    assert len(engine_environ._values) <= engine_environ.MOST_SHARED
    assert max(map(len, engine_environ._values)) <= engine_environ.LONGEST_SHARED
    assert not [value for value in engine_environ._values if value.startswith("c=")]


def test_sessions_share_the_values_that_all_browsers_send():
    first, second = (engine_environ.trimmed({"HTTP_HOST": "".join(["exam", "ple.org"])}) for _ in range(2))
    assert first["HTTP_HOST"] is second["HTTP_HOST"]


def rss(relay):
    pages = int(pathlib.Path(f"/proc/{relay.process.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@own_only
def test_handshakes_with_long_cookies_of_their_own_leave_no_memory_behind(start_relay):
    relay = start_relay()

    def come_and_go(first):
        for number in range(first, first + 500):
            cookie = f"c={number:010}" + "x" * 28_000
            path = "/socket.io/?EIO=4&transport=websocket"
            client = WebSocketClient(relay.port, f"{path} HTTP/1.1\r\nCookie: {cookie}\r\nX-Rest:")
            assert " 101 " in client.status
            client.close()

    come_and_go(0)
    before = rss(relay)
    come_and_go(500)
    come_and_go(1000)
    assert rss(relay) - before < 8 << 20, "1,000 of these cookies are 28 MB"


@pytest.mark.parametrize(
    ("cache", "function", "text"),
    [
        (addresses._ip_of, addresses.ip_of, "1.2.3.4"),
        (origins._parse, origins._parsed, "https://example.org"),
        (bodies._reader_of, lambda text: bodies.read_body({"CONTENT_TYPE": text}, 10), "text/plain"),
    ],
    ids=["addresses", "origins", "types"],
)
def test_long_values_that_strangers_choose_are_not_remembered(cache, function, text):
    def size_after(value):
        cache.cache_clear()
        for number in range(10):
            try:
                function(value.format(number))
            except Exception as error:
                assert getattr(error, "status", 0) == 415
        return cache.cache_info().currsize

    assert size_after("{}" + "x" * 400) == 0


def test_json_from_outside_is_read_by_one_module_whose_bounds_are_its_own():
    readers = set()
    for file in (ROOT / "pushrelay").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("json.loads", "json.JSONDecoder"):
                readers.add(str(file.relative_to(ROOT / "pushrelay")))
    # werkzeug.py reads what the relay wrote; the others are programs that read a relay's answers.
    assert readers <= {
        "json_text.py",
        "wsgi/werkzeug.py",
        "client/socketio_client.py",
        "client/replies.py",
        "cli/doctor/hops.py",
        "cli/push.py",
    }
