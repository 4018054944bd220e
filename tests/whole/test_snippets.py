"""Every snippet of README.md and docs/ runs unchanged, on a machine of its own (machine.py).

SNIPPETS has a line for each: the page, how the snippet begins, and what runs it (lab.py). A new snippet needs a line.
"""

import contextlib
import re
import shutil

import pytest
from conftest import ROOT, need, wait_for
from fronts import Certificate
from lab import (
    ANSWER,
    CONNECT,
    SECRET,
    SHOW,
    Lab,
    Reason,
    answers,
    apache,
    apache_site,
    auth_script,
    backup,
    before_and_after,
    chat_behind_apache,
    composer,
    drop_in,
    drop_in_of_service,
    environment,
    find,
    in_worker,
    keyed_push,
    loads_script,
    mpm,
    nginx_main,
    nginx_server,
    nginx_site,
    nodes_behind_apache,
    nodes_behind_haproxy,
    nodes_behind_nginx,
    of_a_file,
    of_an_example,
    page,
    php,
    php_syntax,
    prometheus,
    python_app,
    python_broker,
    python_for_programs,
    python_route,
    python_store,
    request_script,
    script,
    settings,
    shell,
    snippets,
    spool_folder,
    terminal,
    token_function,
    units,
)
from machine import HOSTS
from redis_snippets import redis_conf, redis_memory, redis_report, redis_settings, redis_user

from pushrelay.pages.static_files import CLIENT

TOKEN_PAGE = f"""<?php require 'Relay.php'; $relay = new Relay('http://127.0.0.1:8080', ['secret' => '{SECRET}']); ?>
<script src="/relay/static/relay.js"></script><script>{SHOW}{CONNECT} relay.on("push", show);</script>"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory, browser):
    need(shutil.which("php") and shutil.which("apache2", path="/usr/sbin"), "PHP and Apache")
    folder = tmp_path_factory.mktemp("lab")
    with contextlib.closing(Lab(folder, Certificate(folder, HOSTS), browser)) as lab:
        yield lab


INSTALLS = "it installs packages from the network; tests/run begins with the same, and CI runs it"
LOGGED_IN = "<?php $_SESSION = ['user' => 7]; ?>"
PACKAGE = "it needs the npm package: test_package.py checks its types, and test_worlds.py connects from Node"
FOREIGN = Reason("it is the reader's own old code, for a library that is not here")
DATABASE = """
class Rows { function execute($of) {} }
class Database { function prepare($sql) { return new Rows; } }
$db = new Database; $to = '42'; $text = 'hello';"""
NAMED_USER = f"""
require 'php/Relay.php';
$relay = new Relay('http://127.0.0.1:8080', ['secret' => '{SECRET}']);
$userId = 42; $userName = 'Ann';"""
SNIPPETS = {
    "README.md": {
        "python3 -c 'import ensurepip'": Reason(INSTALLS),
        "ssh -L": lambda lab, text: "localforward 8080" in lab.sh(text.replace("ssh", "ssh -G")),
        "curl -d destination=demo": shell('"connections":'),
        '<script src="http://localhost:8080/static/relay.js">': page(),
        '<script src="http://localhost:8080/socket.io/socket.io.js">': page(),
        "require_once 'php/Relay.php'": php("^$"),
        "$curl = curl_init": php(ANSWER),
        "cp deploy/apache-relay.conf": shell("Syntax OK"),
        'ProxyPass "/relay/socket.io/"': apache,
        ".venv/bin/python relay.py doctor": shell("works", flags="--quick"),
        "tests/run": Reason("it runs this test"),
    },
    "php/example/README.md": {
        "CHAT_RELAY_PUBLIC=": Reason("it serves until it is ended: test_example.py"),
        "cp -r php/example": chat_behind_apache,
        "cp deploy/apache-relay.conf": shell(),
    },
    "docs/apache.md": {
        '<script src="https://example.com:8443': loads_script(nginx=True),
        "cp deploy/apache-relay.conf": shell("Syntax OK"),
        'ProxyPass "/relay/socket.io/"': apache,
        '<script src="/relay/static/relay.js">': loads_script(),
        "[relay]": settings,
        "ServerLimit": Reason("it runs with the change of the MPM below"),
        "apachectl configtest && systemctl": shell("Syntax OK"),
        "grep -rniE": shell(),
        "apt-get install -y php8.2-fpm": mpm,
        "a2disconf php8.2-fpm": Reason("it runs with the change of the MPM above"),
        "RewriteRule ^/relay/": apache,
        "RewriteEngine On": apache,
    },
    "docs/design.md": {"PHP ── POST": Reason("a picture")},
    "docs/docker.md": {
        "docker build": Reason("no container runtime: test_image.py carries out the Dockerfile"),
        "for name in": shell(before="cd $(mktemp -d); "),
        "docker compose up": Reason("no container runtime: test_compose.py runs the services side by side"),
        "docker compose exec relay relay doctor": Reason("the same commands run in test_image.py"),
        "docker compose exec relay relay backup": Reason("the same commands run in test_image.py"),
    },
    "docs/doctor.md": {
        "python relay.py doctor": shell("works", flags="--quick"),
        "FAIL": Reason("output: test_doctor.py"),
        "sudo sh -c": shell("works", before="cp wsgi.ini /etc/relay.ini; : > /etc/relay.env; ", flags="--quick"),
        "python relay.py push 42": terminal,
    },
    "docs/from-long-polling.md": {
        "// poll.php": php_syntax,
        "async function poll": Reason("the reader's own old code: it asks without end"),
        "// send.php": php("^$", DATABASE),
        '<script src="/relay/static/relay.js">': page("7", before=f"<script>{SHOW}</script>{LOGGED_IN}"),
    },
    "docs/from-node.md": {
        "$curl = curl_init": php(ANSWER),
        "// before": before_and_after(FOREIGN, script()),
    },
    "docs/from-centrifugo.md": {
        "<!-- before -->": before_and_after(FOREIGN, page("orders", "push", f"<script>{SHOW}</script>")),
        "// before\n$centrifugo": before_and_after(FOREIGN, php("^$", "require 'php/Relay.php';")),
    },
    "docs/from-pusher.md": {
        "<!-- before -->": before_and_after(FOREIGN, page("orders", "paid", f"<script>{SHOW}</script>")),
        "// before\n$pusher": before_and_after(FOREIGN, php("^$", "require 'php/Relay.php';")),
        "$curl = curl_init": php(r'^\{"destination":"orders"'),
        "// before: /pusher/auth": before_and_after(FOREIGN, auth_script),
    },
    "docs/http-api.md": {
        "push_keys =": settings,
        "curl -H 'Authorization: Bearer": keyed_push,
        '{"destination":"42","id":': answers("curl -sd destination=42 -d data=hello 127.0.0.1:8080/push"),
        "curl -H 'Content-Type: application/x-ndjson'": shell('"connections":'),
        '{"error":"missing_destination"': answers("curl -sd data=hello 127.0.0.1:8080/push"),
        '{"code":4': Reason("it is the answer of a full relay: test_limits.py"),
        '{"sender":""': Reason("it is the answer of a relay whose webhooks fail: test_webhooks.py"),
        '{"42":{"connections":2': Reason("the names in it are destinations: test_presence.py"),
        '{"destinations":{"42"': Reason("the names in it are destinations: test_directory.py"),
        '{"destination":"42","position"': answers(
            "curl -sd destination=7 -d data=hello 127.0.0.1:8080/push >/dev/null; "
            "curl -s '127.0.0.1:8080/history?destination=7'"
        ),
    },
    "docs/javascript.md": {
        '<script src="http://localhost:8080/static/relay.min.js">': page(),
        '<script type="module">': page(),
        "npm pack": Reason("test_package.py packs and installs the package"),
        'import { Relay } from "pushrelay";\n\nconst relay = Relay.connect("/relay/")': Reason(PACKAGE),
        'import { Relay } from "pushrelay";\n\ninterface Order': Reason(PACKAGE),
        'import { Relay } from "pushrelay";\n\nconst relay = Relay.connect("http://127': Reason(PACKAGE),
        "importScripts": in_worker,
        "openssl dgst": Reason("test_worlds.py loads the files with what it prints"),
        '<script src="/js/relay.min.js"': Reason("the hash is left out: test_worlds.py loads a file with its hash"),
        "function News": of_an_example("react/App.jsx"),
        "const texts = ref": of_an_example("vue/News.vue"),
        "let texts = $state": of_an_example("svelte/News.svelte"),
        "cd examples": Reason("it installs packages from the network; test_frameworks.py bundles the examples"),
        "curl -d destination=demo": shell('"destination":"demo"'),
    },
    "docs/load-balancing.md": {
        '{"code":1': Reason("it is the answer of another node: test_load_balancing.py"),
        "[relay]\nnode": settings,
        "cp deploy/nginx-relay-nodes.conf": nodes_behind_nginx,
        "map $arg_sid": of_a_file("nginx-relay-nodes.conf"),
        "haproxy -c": nodes_behind_haproxy,
        "cp deploy/apache-relay-nodes.conf": nodes_behind_apache,
        "$relay = new Relay": php("^$", "require 'php/Relay.php'; $key = '0123456789abcdef0123';"),
        "systemctl restart relay": Reason("it restarts a service: tests/rolling.py"),
    },
    "docs/metrics.md": {
        "scrape_configs:\n  - job_name: relay\n    scrape_interval": prometheus,
        "scrape_configs:\n  - job_name: relay\n    scheme": prometheus,
    },
    "docs/nginx.md": {
        "cp deploy/nginx-relay.conf": shell(),
        "include snippets/relay.conf;": nginx_server,
        "nginx -t && nginx -s reload": lambda lab, text: (lab.need_nginx(), lab.sh(text)),
        '<script src="/relay/static/relay.js">': loads_script(),
        "[relay]": settings,
        "worker_rlimit_nofile": nginx_main,
        "sysctl": shell("10240"),
        "apt-get install -y nginx-light": lambda lab, text: lab.need_nginx(),
        "server {": nginx_server,
        "nginx -t && systemctl restart nginx": lambda lab, text: (lab.need_nginx(), lab.sh(text)),
    },
    "docs/extending.md": {
        "# shop.py": python_app,
        "# stock.py": python_for_programs,
        "@shop.get": python_route,
        "# my_relay.py": python_broker,
        "from pushrelay.store import": python_store,
    },
    "docs/operations.md": {
        "python relay.py backup": backup,
        "python relay.py restore": backup,
        "0 3 * * *": Reason("cron runs it; the command is the one above"),
        "redis-cli --rdb": Reason("test_backup.py runs it"),
        "redis-cli HDEL": Reason("test_backup.py runs it"),
    },
    "docs/php.md": {
        "require_once 'Relay.php'": php("^$", "set_include_path('php');"),
        '{\n    "repositories"': composer,
        "<script>\n  relay.register": page("42", before=TOKEN_PAGE),
        "<?php  // events.php": Reason("test_from_relay.py runs it, with what a relay signs"),
        "foreach ($relay->presenceAll()": php(
            "^$", "require 'php/Relay.php'; $relay = new Relay('http://127.0.0.1:8080');"
        ),
    },
    "docs/webhooks.md": {
        "[relay]\nwebhook_url = https://example.com/hook.php": settings,
        "require_once 'Relay.php'": php_syntax,
        "[relay]\nwebhook_url = https://example.com/rooms.php": settings,
        "python relay.py webhooks": Reason("test_webhooks.py runs it beside a relay with webhooks"),
    },
    "docs/presence.md": {
        "$token = $relay->token": php("^$", NAMED_USER),
        "const room = await relay.presence": Reason("relay.js runs it in test_people.py of tests/browser"),
        'socket.emit("presence"': Reason("socket.io-client runs it in test_watching.py"),
    },
    "docs/outbox.md": {
        ".venv/bin/pip install": Reason(INSTALLS),
        "[relay]": settings,
        "CREATE TABLE": Reason("tests/outbox/test_table.py compares it with what the command prints"),
        "CREATE USER": Reason("tests/cli/test_outbox.py has the rights"),
        "$pdo->beginTransaction": Reason("tests/outbox/test_php.py runs it with a real database"),
        "DB::table": Reason("it needs Laravel"),
        "SELECT id, destination": Reason("tests/outbox/test_table.py runs it"),
    },
    "docs/requests.md": {
        "const answer = await relay.request": Reason("relay.js runs it in test_people.py of tests/browser"),
        "await relay.send": Reason("relay.js runs it in test_people.py of tests/browser"),
        "request_url =": settings,
        "<?php // relay-requests.php": request_script,
        "{ok: false": Reason("an answer, and not code: test_requests.py"),
        "if (!$request)": php_syntax,
        'socket.emit("request"': Reason("python-socketio sends the same events in tests/requests/test_requests.py"),
    },
    "docs/redis.md": {
        "apt-get install -y redis-server": Reason(INSTALLS),
        "[relay]": redis_settings,
        "appendonly yes": redis_conf,
        "stores pushes in": redis_report,
        "user relay": redis_user,
        "min-replicas-to-write": redis_conf,
    },
    "docs/scaling.md": {"redis-cli memory usage": redis_memory},
    "docs/socket-api.md": {
        '<script type="module">': page(),
        "<script>\n  function loadRelay": page(),
        "const relay = Relay.connect();  ": script(f"{SHOW} const token = undefined;", "relay.status === 'offline'"),
        "const seat =": script(CONNECT + "(async () => {", "relay.left", "relay.left = true; })();"),
        'relay.register("42", {token: () =>': script(SHOW + CONNECT, "relay.status === 'online'"),
        'relay.on("status", (status, ids)': script(SHOW + CONNECT),
        'relay.register("42", {inbox': script(SHOW + CONNECT, "relay.status === 'online'"),
        "function relay_token": token_function,
        "relay_error {ok: false": Reason("an event, and not code: test_tokens.py"),
        'relay.register("me")': script(SHOW + CONNECT, "relay.status === 'online'"),
        "<?php // relay-auth.php": auth_script,
        "Listen 127.0.0.1:8081": apache_site,
        "server {\n  listen 127.0.0.1:8081": nginx_site,
    },
    "docs/spool.md": {
        "spool =": settings,
        "$relay = new Relay": php("^$", "require 'php/Relay.php';"),
        "install -d -m 2770": spool_folder,
        "install -d -m 700": spool_folder,
        "[Service]": drop_in_of_service,
        "name=$(date": Reason("test_spool.py runs it, and a relay takes the file"),
    },
    "docs/systemd.md": {
        "python3 -m venv": units,
        "RELAY_PUSH_KEYS=": environment,
        "[Socket]": drop_in,
        "[Service]": drop_in_of_service,
    },
}


def case_of(snippet):
    cases = [run for start, run in SNIPPETS.get(snippet.page, {}).items() if snippet.text.startswith(start)]
    assert len(cases) == 1, (
        f"{snippet.page}, line {snippet.line}: this snippet needs one line in SNIPPETS, not {len(cases)}"
    )
    return cases[0]


def test_each_snippet_has_a_case_and_each_case_a_snippet():
    for snippet in snippets():
        case_of(snippet)
    for name, cases in SNIPPETS.items():
        for start in cases:
            assert any(each.page == name and each.text.startswith(start) for each in snippets()), (name, start)


@pytest.mark.parametrize("snippet", list(snippets()), ids=lambda each: f"{each.page}:{each.line}")
def test_a_snippet_runs_as_it_stands(lab, snippet):
    case_of(snippet)(lab, snippet.text)


def test_every_php_snippet_has_the_same_text_and_a_time_out():
    demo = (ROOT / "static/pages/console/snippets.js").read_text()
    texts = [each.text for each in snippets() if "curl_init(" in each.text] + [demo]
    assert len(texts) >= 5
    for text in texts:
        after = text[text.index("$curl = curl_init(") :]
        assert "curl_setopt($curl, CURLOPT_RETURNTRANSFER, true);\n" in after, text
        assert re.search(r"\ncurl_setopt\(\$curl, CURLOPT_TIMEOUT_MS, 300\);\n(echo )?curl_exec\(\$curl\) ", after), (
            text
        )
        assert "'Content-Type: application/json'" in after or "CURLOPT_POSTFIELDS, http_build_query($fields));" in after


def test_a_page_that_is_opened_while_its_script_cannot_load_keeps_running_and_listens_later(lab):
    snippet = find("docs/socket-api.md", "<script>\n  function loadRelay")
    away = []

    def once(route):
        away.append(route.request.url)
        route.abort() if len(away) == 1 else route.continue_()

    lab.context().route("**/relay.js", once)
    with lab.page(f"<!doctype html><body></body>{snippet}<script>window.ran = true;</script>") as page:
        assert page.evaluate("window.ran")
        page.wait_for_function("Boolean(window.Relay)")
        wait_for(lambda: lab.machine.push("12345", "ready?")["connections"] == 1, "the registration")
        assert len(away) >= 2
    lab.context().unroute("**/relay.js")


@pytest.mark.parametrize("site", ["http://example.com", "https://example.com:8443"])
def test_the_web_server_serves_the_script_while_the_relay_does_not_answer(lab, site):
    """A page that is opened during a restart gets it."""
    lab.need_nginx()
    relay = f"$(cat {lab.folder}/relay8080.pid)"
    lab.sh(f"kill -STOP {relay}")
    try:
        for name in CLIENT:
            headers = lab.sh(f"curl -skfm 10 -D - -o {lab.folder}/{name} {site}/relay/static/{name}").lower()
            assert (lab.folder / name).read_bytes() == (ROOT / "static" / name).read_bytes()
            assert "javascript" in headers or name.endswith(".map")
            assert "access-control-allow-origin: *" in headers
            assert "cross-origin-resource-policy: cross-origin" in headers
    finally:
        lab.sh(f"kill -CONT {relay}")


COMMENTED = re.compile(r"^(\s*)#(?=\S)", re.MULTILINE)  # a setting, not a sentence


@pytest.mark.parametrize("name", ["nginx-relay.conf", "nginx-relay-location.conf", "nginx-relay-port.conf"])
def test_each_line_of_nginxs_files_that_is_commented_out_can_be_used(lab, name):
    lab.need_nginx()
    text = (ROOT / "deploy" / name).read_text()
    place = {"nginx-relay.conf": "conf.d/relay.conf", "nginx-relay-location.conf": "snippets/relay.conf"}
    place = f"/etc/nginx/{place.get(name, 'conf.d/relay-port.conf')}"
    for line in COMMENTED.finditer(text):
        (lab.folder / name).write_text(text[: line.start()] + line[1] + text[line.end() :])
        lab.sh(f"cp {lab.folder / name} {place}; nginx -t; cp deploy/{name} {place}")


def test_each_line_of_apaches_file_that_is_commented_out_can_be_used(lab):
    text = (ROOT / "deploy" / "apache-relay.conf").read_text()
    place = "/etc/apache2/conf-available/relay.conf"
    for line in COMMENTED.finditer(text):
        (lab.folder / "relay.conf").write_text(text[: line.start()] + line[1] + text[line.end() :])
        lab.sh(f"cp {lab.folder}/relay.conf {place}; apachectl configtest; cp deploy/apache-relay.conf {place}")
