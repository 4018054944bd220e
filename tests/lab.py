"""Functions that run the snippets of the docs (see test_snippets.py). Each takes the lab and a snippet's text."""

import contextlib
import json
import re
import shlex
import shutil
import textwrap
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from conftest import CHROMIUM_FLAGS, DEADLINE, ROOT, need, wait_for
from machine import HOSTS, Machine
from phplab import patient

from pushrelay.access.tokens import Tokens
from pushrelay.client.signature import signature
from pushrelay.settings import load

SECRET = "a-secret-that-nobody-finds-by-trying-0123"
PAGES = ["README.md", "php/example/README.md", *(f"docs/{each.name}" for each in sorted((ROOT / "docs").glob("*.md")))]


class Snippet(NamedTuple):
    page: str
    line: int
    text: str


def snippets():
    """Return all blocks of code: lines that are indented by four, with empty lines between them."""
    for page in PAGES:
        text = (ROOT / page).read_text()
        for found in re.finditer(r"^    .*\n(?:(?:[ \t]*\n)*    .*\n)*", text, re.MULTILINE):
            yield Snippet(page, text.count("\n", 0, found.start()) + 1, textwrap.dedent(found[0]).strip("\n"))


def find(page, beginning):
    """Return the snippet of a page that begins with this text."""
    return next(each.text for each in snippets() if each.page == page and each.text.startswith(beginning))


class Lab:
    """A machine with the relay, and Apache with PHP on ports 80 and 443. The browser and nginx start if needed."""

    def __init__(self, folder, certificate, playwright_browser):
        self.folder = folder
        self._playwright_browser = playwright_browser
        self._browser = None
        self._pages = 0
        self._has_nginx = False
        self.machine = Machine(folder, certificate)
        self._trusted = str(certificate.ca)
        self.machine.relay("--host=0.0.0.0", "--socket-push=yes")
        self.sh(f"a2enmod ssl; cp php/Relay.php /var/www/html/; echo '<?php' > /var/www/html/relay-token.php; {TLS}")
        self.sh("apachectl start")
        self.sh(find("docs/apache.md", "cp deploy/apache-relay.conf"))

    def sh(self, text, **options):
        """Run shell commands there, and return their output."""
        return self.machine.run(text, SSL_CERT_FILE=self._trusted, **options)

    def need_nginx(self):
        """Start nginx beside Apache, with the commands of the page."""
        if not self._has_nginx:
            need(shutil.which("nginx", path="/usr/sbin"), "nginx (apt-get install nginx-light)")
            self.sh(find("docs/nginx.md", "apt-get install"))
            self.sh(find("docs/nginx.md", "nginx -t && systemctl restart"))
            self._has_nginx = True

    @contextlib.contextmanager
    def page(self, html):
        """Open a page of Apache, after PHP has run it. Errors in the page fail the test."""
        self._pages += 1
        name = f"page{self._pages}.php"
        script = self.folder / name
        script.write_text(html)
        self.sh(f"cp {script} /var/www/html/")
        page = self.context().new_page()
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        try:
            page.goto(f"http://example.com/{name}")
            yield page
            assert not errors, errors
        finally:
            page.close()

    def context(self):
        if self._browser is None:
            program = self.folder / "chromium"
            there = shlex.join(self.machine.on_network(shutil.which("chromium")))
            program.write_text(f'#!/bin/sh\nexec {there} "$@"\n')
            program.chmod(0o755)
            rules = "--host-resolver-rules=" + ",".join(f"MAP {host} 127.0.0.1" for host in HOSTS)
            launch = self._playwright_browser.browser_type.launch
            self._browser = launch(executable_path=program, args=[*CHROMIUM_FLAGS, rules])
            self._profile = self._browser.new_context(ignore_https_errors=True)
            self._profile.set_default_timeout(DEADLINE * 1000)
        return self._profile

    def close(self):
        if self._browser is not None:
            self._browser.close()
        self.machine.close()


LIVE = "/etc/letsencrypt/live/example.com"
TLS = f"""
cat > /etc/apache2/sites-enabled/001-tls.conf <<END
<VirtualHost *:443>
  DocumentRoot /var/www/html
  SSLEngine on
  SSLCertificateFile {LIVE}/fullchain.pem
  SSLCertificateKeyFile {LIVE}/privkey.pem
</VirtualHost>
END
"""


class Reason(NamedTuple):
    """Why a snippet is not run."""

    why: str

    def __call__(self, lab, text):
        pass


def shell(expect="", before="", flags="", **environ):
    """Run commands in the clone. `flags` are added to `doctor`, which takes half a minute without --quick."""

    def run(lab, text):
        said = lab.sh(before + text.replace(" doctor", f" doctor {flags}"), **environ)
        assert expect in said, said

    return run


def php(expect="", before=""):
    """Run PHP on the command line."""

    def run(lab, text):
        script = lab.folder / "snippet.php"
        script.write_text(patient(f"<?php {before}\n" + text.removeprefix("<?php")))
        said = lab.sh(f"cd /opt/relay; php -d error_reporting=-1 {script}")
        assert re.search(expect, said), said

    return run


ANSWER = r'\{"destination":"\w+","id":"[\w:]+","connections":\d+\}'


def page(id_="12345", event="push", before="", nginx=False):
    """Open a page that listens, and check that it shows a push to the id."""

    def run(lab, text):
        if nginx:
            lab.need_nginx()
        # As the README advises: the host name of the page in place of localhost.
        html = text.replace("http://localhost:8080", "http://example.com:8080")
        with lab.page(f"<!doctype html><body></body>{before}{html}") as page:
            wait_for(lambda: lab.machine.push(id_, "ready?")["connections"] == 1, f"the registration of {id_}")
            push = json.dumps({"destination": id_, "data": "It arrived", "event": event})
            lab.sh(f"curl -s -H 'Content-Type: application/json' -d '{push}' http://127.0.0.1:8080/push")
            page.get_by_text("It arrived").first.wait_for()

    return run


def script(before="", then="true", after=""):
    """Run lines of a page's script between others, and wait until the expression `then` is true."""

    def run(lab, text):
        head = '<script src="/relay/static/relay.js"></script>'
        text = text.replace("http://localhost:8080", "http://example.com:8080")
        with lab.page(f"<!doctype html><body></body>{head}<script>{before}\n{text}{after}</script>") as page:
            page.wait_for_function(then)

    return run


def in_worker(lab, text):
    """Run lines of a worker's script, and check that its page hears of a push to 12345."""
    text = text.replace("http://localhost:8080", "http://example.com:8080")
    start = f"new Worker(URL.createObjectURL(new Blob([{json.dumps(text)}]))).onmessage = (it) => show(it.data);"
    page(before=f"<script>{SHOW}{start}</script>")(lab, "")


SHOW = "const show = (text) => document.body.append(text), loadMessages = show;"
CONNECT = "const relay = Relay.connect();"


def loads_script(nginx=False):
    """Check that the file of a script tag exists."""

    def run(lab, text):
        if nginx:
            lab.need_nginx()
        with lab.page(f"<!doctype html>{text}") as page:
            page.wait_for_function("Boolean(window.Relay)")

    return run


def before_and_after(old, new):
    """Check that the old and the new way to write the same both work."""

    def run(lab, text):
        mark = re.compile(r"^(?://|<!--) (?:before|after).*\n", re.MULTILINE)
        _, first, second = mark.split(text)
        old(lab, first)
        new(lab, second)

    return run


def settings(lab, text):
    """Check lines of the settings file."""
    file = lab.folder / "snippet.ini"
    file.write_text(text if "[relay]" in text else f"[relay]\n{text}\n")
    assert "The settings are sound" in lab.sh(f"python relay.py --check --config {file}")


def spool_folder(lab, text):
    """Create the spool's folder, and check that the relay's check of it finds nothing wrong."""
    folder = lab.folder / "spool"
    lab.sh(text.replace("/var/spool/relay", str(folder)).replace("-g relay", "-g www-data"))
    code = f"from pushrelay.spool.folder import Folder; Folder('{folder}').hold(0); print('held')"
    assert "held" in lab.sh(f'cd /opt/relay; .venv/bin/python -c "{code}" || python3 -c "{code}"')
    lab.sh(f"rm -r {folder}")


def prometheus(lab, text):
    """Check Prometheus's configuration, with the files that it names."""
    need(shutil.which("promtool"), "promtool (apt-get install prometheus)")
    (lab.folder / "prometheus.yml").write_text(text + "\n")
    lab.sh(f"mkdir -p /etc/prometheus; echo key >/etc/prometheus/relay.key; cp deploy/alerts.yml {lab.folder}")
    assert "SUCCESS" in lab.sh(f"promtool check config {lab.folder}/prometheus.yml 2>&1")


def environment(lab, text):
    """Check lines of /etc/relay.env."""
    environ = dict(line.split("=", 1) for line in text.replace("…", "0123456789abcdef0123456789abcdef").splitlines())
    assert "The settings are sound" in lab.sh("python relay.py --check", **environ)


def answers(command, json_of: Callable[[Any], Any] = lambda answer: answer):
    """Check that the command gets an answer with the same fields."""

    def run(lab, text):
        shown = json.loads(text.replace("…", ""))
        real = json_of(json.loads(lab.sh(command)))
        assert shape(real) == shape(shown), real

    return run


def shape(value):
    """Return the names and types in a JSON value."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


def apache(lab, text):
    """Check that a virtual host with these lines has the relay. deploy/ gives the lines that they leave out."""
    rest = "" if "ProxyPass" in text else "Include /etc/apache2/conf-available/relay.conf\nRewriteRule . /none [L]"
    engine = "RewriteEngine On\n" if "RewriteEngine" not in text and "RewriteRule" in text else ""
    site = f"Listen 81\n<VirtualHost *:81>\nDocumentRoot /var/www/html\n{engine}{text}\n{rest}\n</VirtualHost>\n"
    file = lab.folder / "snippet.conf"
    file.write_text(site)
    put = f"cp {file} /etc/apache2/sites-enabled/002-snippet.conf; a2disconf relay; a2enmod rewrite proxy_wstunnel"
    try:
        lab.sh(f"ln -sfn {ROOT} /opt/relay-clone; {put}; apachectl configtest && apachectl graceful")
        wait_for(lambda: reaches_relay(lab, "http://example.com:81"), "the relay behind these lines")
        upgraded = ["-H", "Origin: http://example.com:81", *UPGRADE]
        assert lab.machine.get(f"http://example.com:81{SOCKETS}&transport=websocket", *upgraded, "-m1")[0] == "101"
        assert lab.machine.get("http://example.com:81/push")[0] == "404"
    finally:
        lab.sh("rm -f /etc/apache2/sites-enabled/002-snippet.conf; a2enconf relay; apachectl graceful")
        wait_for(lambda: reaches_relay(lab, "http://example.com"), "Apache as it was")


SOCKETS = "/relay/socket.io/?EIO=4"
UPGRADE = ["-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13"]
UPGRADE += ["-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "--http1.1"]


def reaches_relay(lab, site):
    with contextlib.suppress(AssertionError):
        handshake = lab.sh(f"curl -skm 5 -H 'Origin: {site}' '{site}{SOCKETS}&transport=polling'")
        return handshake.startswith('0{"sid"') and "Relay" in lab.sh(f"curl -skfm 5 {site}/relay/static/relay.js")


def nginx_server(lab, text):
    """Check that nginx serves the relay with these lines of a server, or with this whole server."""
    lab.need_nginx()
    whole = text if text.startswith("server {") else f"server {{ listen 82; {text} }}"
    lab.sh(f"cat > /etc/nginx/conf.d/relay-port.conf <<'END'\n{whole}\nEND\nnginx -t && systemctl restart nginx")
    site = "http://example.com:82" if "82" in whole else "https://example.com:8443"
    assert reaches_relay(lab, site)
    lab.sh("cp deploy/nginx-relay-port.conf /etc/nginx/conf.d/relay-port.conf; systemctl restart nginx")


def nodes_behind_nginx(lab, text):
    """Check that nginx reads the files for several relays; test_load_balancing.py runs them."""
    lab.need_nginx()
    lab.sh(f"{text}\nnginx -t; {find('docs/nginx.md', 'cp deploy/nginx-relay.conf')}")


def nodes_behind_apache(lab, text):
    """Check that Apache reads the file for several relays; test_load_balancing.py runs it."""
    try:
        assert "Syntax OK" in lab.sh(text)
    finally:
        lab.sh(f"a2dismod proxy_hcheck; {find('docs/apache.md', 'cp deploy/apache-relay.conf')}")
    wait_for(lambda: reaches_relay(lab, "http://example.com"), "Apache as it was")


def nodes_behind_haproxy(lab, text):
    """Check that HAProxy reads the file for several relays; test_load_balancing.py runs it."""
    need(shutil.which("haproxy", path="/usr/sbin"), "HAProxy (apt-get install haproxy)")
    certificate = f"cat {LIVE}/fullchain.pem {LIVE}/privkey.pem > /etc/haproxy/site.pem"
    lab.sh(f"{certificate}; cat deploy/haproxy-relay-nodes.cfg >> /etc/haproxy/haproxy.cfg; {text}")


def of_a_file(name):
    """Check that these lines are in a file in deploy/."""

    def run(lab, text):
        lines = [line.strip() for line in (ROOT / "deploy" / name).read_text().splitlines()]
        assert all(line.strip() in lines for line in text.splitlines())

    return run


def of_an_example(name):
    """Check that these lines are in a file in examples/."""

    def run(lab, text):
        lines = [line.strip() for line in (ROOT / "examples" / name).read_text().splitlines()]
        assert all(line.strip() in lines for line in text.splitlines())

    return run


def nginx_main(lab, text):
    """Check lines of nginx.conf itself, outside of http."""
    lab.need_nginx()
    limit, events = text.splitlines()
    lab.sh(f"sed -i 's/^worker_processes.*/&\\n{limit}/; /^events/,/}}/c {events}' /etc/nginx/nginx.conf")
    lab.sh("nginx -t && systemctl restart nginx")
    assert reaches_relay(lab, "https://example.com:8443")


def mpm(lab, text):
    """Check lines of mpm_event.conf before and after the change of the page."""
    text = re.sub(r"8\.\d", php_version(lab), text)
    site = "<?php echo php_sapi_name(), ' ', ini_get('memory_limit');"
    lab.sh(f"cat > /var/www/html/sapi.php <<'END'\n{site}\nEND\n{text}")
    start_php_fpm(lab)
    try:
        wait_for(lambda: lab.machine.get("http://example.com/sapi.php")[1].startswith("fpm-fcgi"), "PHP by php-fpm")
        assert reaches_relay(lab, "http://example.com")
        limits = find("docs/apache.md", "ServerLimit")
        lab.sh(f"printf '%s\\n' '{limits}' > /etc/apache2/mods-available/mpm_event.conf")
        said = lab.sh(find("docs/apache.md", "apachectl configtest && systemctl"))
        assert "AH00" not in said.replace("AH00558", ""), said
        assert reaches_relay(lab, "http://example.com")
    finally:
        back = find("docs/apache.md", "a2disconf php").replace("8.2", php_version(lab))
        lab.sh(f"{back}; apachectl configtest && systemctl restart apache2")
    wait_for(lambda: lab.machine.get("http://example.com/sapi.php")[1].startswith("apache2handler"), "PHP in Apache")


def php_version(lab):
    return lab.sh("php -r 'echo PHP_MAJOR_VERSION, \".\", PHP_MINOR_VERSION;'")


def start_php_fpm(lab):
    """Start PHP-FPM if another snippet has not done so, and return its socket."""
    version = php_version(lab)
    socket = f"/run/php/php{version}-fpm.sock"
    lab.sh(f"[ -S {socket} ] || php-fpm{version} -D")
    return socket


def keyed_push(lab, text):
    """Run the command with a key, at a relay with the settings above it."""
    file = lab.folder / "keys.ini"
    file.write_text(f"[relay]\n{find('docs/http-api.md', 'push_keys =')}\n")
    relay = lab.machine.relay("--host=0.0.0.0", f"--config={file}", port=8090)
    assert re.search(ANSWER, lab.sh(text.replace("https://relay.example", "http://relay.example:8090")))
    relay.kill()


def token_function(lab, text):
    """Check that the relay reads the tokens of this function."""
    script = lab.folder / "token.php"
    script.write_text(f"<?php $user = '42'; $secret = '{SECRET}';\n{text}\necho $token;")
    rights = Tokens(load({}, {"secret": SECRET})).read(lab.sh(f"php {script}"))
    assert rights.ids.allows("room-7") and rights.ids.allows("42") and not rights.ids.allows("43")


def auth_script(lab, text):
    """Check PHP's answer about a browser's ids: none without a session, and the user's after a login."""
    script = lab.folder / "relay-auth.php"
    script.write_text(text if text.startswith("<?php") else f"<?php\n{text}")
    log_in = "<?php session_start(); $_SESSION['user'] = '7'; echo session_id();"
    lab.sh(f"cp {script} /var/www/html/; cat > /var/www/html/login.php <<'END'\n{log_in}\nEND")
    assert lab.machine.get("http://127.0.0.1/relay-auth.php")[0] == "401"
    session = lab.machine.get("http://127.0.0.1/login.php")[1]
    status, body = lab.machine.get("http://127.0.0.1/relay-auth.php", "-b", f"PHPSESSID={session}")
    assert status == "200" and "7" in json.loads(body)["ids"]


def request_script(lab, text):
    """Check PHP's answers to requests of the relay: one that it knows, one that it does not, and a wrong signature."""
    secret = re.search(r"request\('(\w+)'\)", text)[1]
    lab.sh(f"cat > /var/www/html/relay-requests.php <<'END'\n{text}\nEND")

    def ask(name, secret):
        event = {"id": "1", "event": "request", "at": 1.5, "name": name, "data": {"sku": 7}, "sid": "a"}
        body = json.dumps({"events": [event]})
        header = f"Relay-Signature: {signature([secret], body.encode(), time.time())}"
        return lab.machine.get(
            "http://127.0.0.1/relay-requests.php", "-H", header, "-H", "Content-Type: application/json", "-d", body
        )

    status, body = ask("cart/add", secret)
    assert status == "200" and json.loads(body) == {"added": 7, "user": None}, body
    assert ask("cart/remove", secret)[0] == "404" and ask("cart/add", "another-secret")[0] == "403"


def terminal(lab, text):
    """Run the commands for a terminal. `listen` runs until the test ends it."""
    for line in text.splitlines():
        goes_on = " listen " in line
        line = line.replace("python relay.py listen", "timeout 1 python relay.py listen")
        line = line.replace("--wait 5", "--wait 0.1")
        environ = {"RELAY_SECRET": SECRET} if " token " in line else {}
        lab.sh(line, expected=124 if goes_on else 0, **environ)


def apache_site(lab, text):
    """Check that another virtual host runs PHP."""
    place = "/etc/apache2/sites-enabled/003-snippet.conf"
    other_site(lab)
    lab.sh(f"cat > {place} <<'END'\n{text}\nEND\napachectl configtest && apachectl graceful")
    try:
        wait_for(lambda: lab.machine.get("http://127.0.0.1:8081/who.php")[1] == "the other site", "the site")
    finally:
        lab.sh(f"rm {place}; apachectl graceful")
        wait_for(lambda: lab.machine.get("http://127.0.0.1:8081/")[0] == "000", "the end of the site")


def nginx_site(lab, text):
    """Check that another server of nginx runs PHP."""
    lab.need_nginx()
    other_site(lab)
    lab.sh(f"ln -sf {start_php_fpm(lab)} /run/php/php-fpm.sock")
    lab.sh(f"cat > /etc/nginx/conf.d/site.conf <<'END'\n{text}\nEND\nnginx -t && systemctl restart nginx")
    assert lab.machine.get("http://127.0.0.1:8081/who.php")[1] == "the other site"
    lab.sh("rm /etc/nginx/conf.d/site.conf; systemctl restart nginx")


def other_site(lab):
    lab.sh("mkdir -p /var/www/example.com; echo '<?php echo \"the other site\";' > /var/www/example.com/who.php")


def composer(lab, text):
    """Check the name of the package; test_relay_php.py checks Composer's own rules."""
    package = json.loads((ROOT / "php" / "composer.json").read_text())
    assert list(json.loads(text)["require"]) == [package["name"]] and "version" in package


def drop_in(lab, text, unit="relay.socket"):
    """Check that systemd reads these lines for a unit."""
    folder = f"/etc/systemd/system/{unit}.d"
    lab.sh(f"mkdir -p {folder}; cp deploy/relay.s* {folder}/..; cat > {folder}/override.conf <<'END'\n{text}\nEND")
    said = lab.sh(f"systemd-analyze verify {folder}/../{unit} 2>&1 || true")
    assert "override.conf" not in said, said


def drop_in_of_service(lab, text):
    drop_in(lab, text, "relay.service")


def units(lab, text):
    """Check that units are copied to the right folder, and that systemd reads them; test_systemd.py runs them."""
    lines = [line for line in text.splitlines() if line.startswith("cp ")]
    lab.sh("mkdir -p /etc/systemd/system; " + "; ".join(lines))
    assert lab.sh("ls /etc/systemd/system | grep -cE '^relay[.](service|socket)$'").strip() in "12"


def chat_behind_apache(lab, text):
    lab.sh(text)
    status, body = lab.machine.get("http://example.com/chat/")
    assert status == "200" and "Your name" in body


def php_syntax(lab, text):
    script = lab.folder / "syntax.php"
    script.write_text(f"<?php {text}")
    lab.sh(f"php -l {script}")


def python_app(lab, text):
    """Check the route and the handler of a program that extends the relay."""
    (lab.folder / "shop.py").write_text(text)
    environ = "PYTHONPATH=/opt/relay RELAY_PORT=8091 RELAY_BROKER=memory:"
    app = lab.machine.start(f"cd {lab.folder}; {environ} exec python shop.py")
    wait_for(lambda: lab.sh("curl -s 127.0.0.1:8091/shop/ || true") == "open", "the route")
    app.kill()


def python_for_programs(lab, text):
    """Check that this machine may use a route for programs, and a visitor through a proxy may not."""
    serve = "\nfrom relay import socketio\nsocketio.run(app)\n"
    (lab.folder / "stock.py").write_text(text + serve)
    environ = "PYTHONPATH=/opt/relay RELAY_PORT=8092 RELAY_BROKER=memory:"
    app = lab.machine.start(f"cd {lab.folder}; {environ} exec python stock.py")
    curl = "curl -s 127.0.0.1:8092/stock/7"
    wait_for(lambda: '"item":"7"' in lab.sh(f"{curl} || true"), "the route")
    assert "missing_key" in lab.sh(f"{curl} -H 'X-Forwarded-For: 203.0.113.9'")
    app.kill()


def python_broker(lab, text):
    """Check that a copy of relay.py with another broker prints a push."""
    line = "relay = Core(settings)\n"
    program = (ROOT / "relay.py").read_text()
    assert line in program and line.strip() in text.splitlines()[0]
    (lab.folder / "my_relay.py").write_text(program.replace(line, text + "\n"))
    app = lab.machine.start(f"cd {lab.folder}; PYTHONPATH=/opt/relay exec python my_relay.py --port=8093")
    wait_for(lambda: "serves on" in app.log.read_text() or app.poll() is not None, "the start")
    lab.sh("curl -s -d destination=42 -d data=hello 127.0.0.1:8093/push")
    wait_for(lambda: re.search(r"^42 \S+:1$", app.log.read_text(), re.MULTILINE), "the publication")
    app.kill()


def backup(lab, text):
    """Run a command for backups in a folder with a store; one that restores follows one that wrote the file."""
    program = "from pushrelay.store import open_broker as o; b = o('sqlite:relay.db', None); b.start(); b.close()"
    store = f'PYTHONPATH=/opt/relay python -c "{program}"'
    before = text.replace("restore", "backup --overwrite")
    enter = f"mkdir -p /var/backups {lab.folder}/stored; cd {lab.folder}/stored; rm -f relay.db*"
    lab.sh(f"{enter}; ln -sf /opt/relay/relay.py .; {store}; {before}; {text}")


def python_store(lab, text):
    """Check that a program with only the store prints a delivery, the position and the history."""
    (lab.folder / "store.py").write_text(text)
    printed = lab.sh(f"cd {lab.folder}; rm -f relay.db*; PYTHONPATH=/opt/relay python store.py")
    assert printed.startswith("{'text': 'hello'}\n") and ":1 [Publication" in printed, printed


def python_route(lab, text):
    """Check a route of that program."""
    imports = "from flask import Blueprint, abort, session\nshop = Blueprint('shop', __name__)\n"
    (lab.folder / "route.py").write_text(imports + text)
    lab.sh(f"python {lab.folder}/route.py")
