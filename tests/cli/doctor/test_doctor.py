"""The doctor finds faults in real web servers, and the lines that it prints fix them when they are pasted."""

import contextlib
import os
import re
import signal
import subprocess

import pytest
from conftest import DEADLINE, Relay, clean_environ, fds, free_port, wait_for
from examination import DOCTOR, Examination, settings_of
from fronts import HOST, Apache, Nginx

PATH = "/relay/"


class Bent:
    """A web server whose configuration for the relay comes from the test."""

    def __init__(self, relay, certificate, php, conf):
        self.conf = conf.replace("RELAY", f"127.0.0.1:{relay.port}")
        super().__init__(relay, certificate, *self.MPM, php)

    def shipped(self, name, *changes):
        (self.folder / name).write_text(self.conf if name in self.HOLDS_CONF else "")

    def examine(self, *arguments):
        """Return an examination of the path through this server."""
        url = f"http://{HOST}:{self.port}{PATH}"
        return Examination(url, "--connect=127.0.0.1", *arguments, *settings_of(self.relay))

    def follow(self, advice):
        """Follow the doctor's advice, and start the server again."""
        for sentence, lines in advice:
            self.put(sentence, lines)
        self.process.terminate()
        self.process.wait(DEADLINE)
        self.start()


class BentApache(Bent, Apache):
    MPM = ("event",)
    HOLDS_CONF = ("apache-relay.conf",)

    def put(self, sentence, lines):
        if "Take this out" in sentence:
            self.conf = "\n".join(line for line in self.conf.splitlines() if line not in lines) + "\n"
            return
        assert "Put this into the <VirtualHost>" in sentence
        parts = [*lines, self.conf] if "before every other ProxyPass" in sentence else [self.conf, *lines]
        self.conf = "\n".join(parts) + "\n"


class BentNginx(Bent, Nginx):
    MPM = ()
    HOLDS_CONF = ("nginx-relay-location.conf",)

    def put(self, sentence, lines):
        if "server block, in place of those that name /relay/" in sentence:
            assert "/relay/" not in self.conf
            self.conf += "\n".join(lines) + "\n"
        elif "server block" in sentence:
            self.conf += "\n".join(lines) + "\n"
        elif "each location that begins with /relay/" in sentence:
            self.conf = re.sub(r"(location (?:= )?/relay/.*? \{)", rf"\1 {' '.join(lines)} ", self.conf)
        else:
            assert "Put this into the location that passes /relay/socket.io/ on" in sentence
            self.conf = "\n".join(self.put_into_location(lines))

    def put_into_location(self, lines):
        begin = [re.match(r"proxy_set_header \S+|\S+", line)[0] for line in lines]
        for line in self.conf.splitlines():
            if not any(line.strip().startswith(each + " ") for each in begin):
                yield line
            if line.strip().startswith("proxy_pass "):
                yield from lines


@pytest.fixture
def bent(php_fpm, certificate):
    """Return a function that starts a web server until the end of the test: bent(BentApache, relay, conf)."""
    with contextlib.ExitStack() as stack:

        def start(kind, relay, conf):
            front = kind(relay, certificate, php_fpm, conf)
            stack.callback(front.close)
            return front

        yield start


@pytest.fixture
def start_own(tmp_path):
    """Return a function that starts a relay on its own server until the end of the test: start_own(ping_interval=1)."""
    with contextlib.ExitStack() as started:

        def start(**settings):
            relay = Relay(tmp_path / "log", **{"server": "own", "max_connections": 1000, **settings})
            started.callback(relay.kill)
            return relay

        yield start


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """A relay on its own server, for faults in front of it."""
    relay = Relay(tmp_path_factory.mktemp("relay") / "log", server="own", ping_interval=1.5, max_connections=1000)
    yield relay
    assert relay.stop() == 0
    assert "Traceback" not in relay.log.read_text()


APACHE = """
ProxyPass "/relay/socket.io/" "http://RELAY/socket.io/" upgrade=websocket retry=0
ProxyPass "/relay/static/relay.js" "http://RELAY/static/relay.js" retry=0
ProxyPreserveHost On
"""
NGINX = """
location /relay/socket.io/ {
  proxy_pass http://RELAY/socket.io/;
  proxy_http_version 1.1;
  proxy_set_header Upgrade $http_upgrade;
  proxy_set_header Connection "upgrade";
  proxy_set_header Host $http_host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_read_timeout 60s;
}
location = /relay/static/relay.js { proxy_pass http://RELAY/static/relay.js; }
"""
# name: (replacements in the configuration of Apache; of nginx; words of the doctor's finding)
FAULTS = {
    "missing-upgrade": (
        [(" upgrade=websocket", "")],
        [("  proxy_set_header Upgrade $http_upgrade;\n", ""), ('"upgrade"', '""')],
        ("WebSocket", "in place of 101"),
    ),
    "wrong-path": ([("/relay/", "/push-service/")], [("/relay/", "/push-service/")], ("relay.js", "404")),
    "push-exposed": (
        [('"/relay/socket.io/" "http://RELAY/socket.io/"', '"/relay/" "http://RELAY/"')],
        [("/relay/socket.io/ {", "/relay/ {"), ("RELAY/socket.io/", "RELAY/")],
        ("/push", "refuses"),
    ),
    "push-open": (
        [
            ('"/relay/socket.io/" "http://RELAY/socket.io/"', '"/relay/" "http://RELAY/"'),
            ("ProxyPreserveHost On", "ProxyPreserveHost On\nProxyAddHeaders Off"),
        ],
        [
            ("/relay/socket.io/ {", "/relay/ {"),
            ("RELAY/socket.io/", "RELAY/"),
            ("  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n", ""),
        ],
        ("/push",),
    ),
    "own-origin-refused": (
        [("ProxyPreserveHost On", "")],
        [("  proxy_set_header Host $http_host;\n", "")],
        ("origin", f"pages of http://{HOST}", "refused"),
    ),
    "password": (
        [
            (
                "ProxyPreserveHost On",
                'ProxyPreserveHost On\n<Location "/">\nAuthType Basic\nAuthName "Staging"\nAuthUserFile /dev/null\n'
                "Require valid-user\n</Location>",
            )
        ],
        [
            (
                "\nlocation /relay/socket.io/",
                'auth_basic "Staging"; auth_basic_user_file /dev/null;\nlocation /relay/socket.io/',
            )
        ],
        ("relay.js", "a password is asked for", "“Staging”"),
    ),
    "origin-changed": (
        [("ProxyPreserveHost On", "ProxyPreserveHost On\nRequestHeader set Origin http://backend.internal")],
        [
            (
                "proxy_set_header Host $http_host;",
                "proxy_set_header Host $http_host;\n  proxy_set_header Origin http://b.test;",
            )
        ],
        ("origin", "the header Origin arrives changed"),
    ),
    "short-timeout": (
        [("ProxyPreserveHost On", "ProxyPreserveHost On\nProxyTimeout 1")],
        [("read_timeout 60s", "read_timeout 1s")],
        ("cut after ", "every 1.5 s"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", [BentApache, BentNginx])
def test_a_fault_in_a_web_server_is_found_and_the_advice_fixes_it(quiet, bent, kind, fault):
    for_apache, for_nginx, words = FAULTS[fault]
    conf, changes = (APACHE, for_apache) if kind is BentApache else (NGINX, for_nginx)
    for old, new in changes:
        assert old in conf
        conf = conf.replace(old, new)
    front = bent(kind, quiet, conf)
    how = () if fault == "short-timeout" else ("--quick",)
    advice = front.examine(*how).failed_once(*words)
    if fault == "origin-changed":  # a person has to find a line that should not be there
        assert not advice
        return
    front.follow([each for each in advice if "[relay]" not in each[0] and not each[1][0].startswith("--")])
    front.examine(*how).is_well()


def test_apache_is_known_whatever_server_is_behind_it(relay, bent):
    front = bent(BentApache, relay, APACHE.replace(" upgrade=websocket", ""))
    ((sentence, _),) = front.examine("--quick").failed_once("WebSocket", "in place of 101")
    assert "<VirtualHost>" in sentence


@pytest.fixture(scope="module")
def shipped(quiet, certificate, php_fpm):
    """Apache with deploy/apache-relay.conf as it is."""
    with contextlib.closing(Apache(quiet, certificate, "event", php_fpm)) as apache:
        yield apache


def through(front, *arguments, scheme="https", host=HOST, path=PATH):
    port = front.port if scheme == "http" else front.tls_port
    arguments = ("--connect=127.0.0.1", "--quick", *arguments)
    return Examination(f"{scheme}://{host}:{port}{path}", *arguments, *settings_of(front.relay))


def test_all_is_well_behind_the_shipped_apache_with_tls(shipped, certificate):
    examination = through(shipped, f"--ca={certificate.ca}")
    examination.is_well()
    held = re.findall(r"long polling: a push arrives, ([\d.]+) ms", examination.said)
    assert float(held[0]) < 1000, "it was not seen before the next ping"
    said = examination.said.replace("\n      ", " ")
    assert f"the certificate is good for {HOST} until 20" in said
    assert "ok    Apache: mpm_event with 128 workers" in said and "programs of Python 3.13 do not" not in said


def test_all_is_well_behind_the_shipped_nginx(quiet, certificate, php_fpm):
    with contextlib.closing(Nginx(quiet, certificate, php_fpm)) as nginx:
        through(nginx, scheme="http").is_well()


def test_a_certificate_that_browsers_would_not_take_is_found(shipped, certificate):
    through(shipped).failed_once("TLS", "unable to get local issuer certificate")
    through(shipped, f"--ca={certificate.ca}", host="localhost").failed_once("TLS", "mismatch")
    through(shipped, "--insecure").is_well()


def test_the_wrong_port_or_scheme_is_found(shipped):
    address = f"{HOST}:{shipped.port}"
    Examination(f"https://{address}/relay/", "--connect=127.0.0.1", *settings_of(shipped.relay)).failed_once("TLS")
    address = f"{HOST}:{free_port()}"
    Examination(f"http://{address}/relay/", "--connect=127.0.0.1", *settings_of(shipped.relay)).failed_once("TCP")


def test_a_name_that_dns_does_not_know_is_found(quiet):
    Examination("https://no-such-name.invalid/", *settings_of(quiet)).failed_once("DNS", "no-such-name.invalid")


def test_for_an_unknown_proxy_it_prints_the_lines_for_both(quiet, serve):
    def site(environ, start_response):
        start_response("404 Not Found", [("Content-Type", "text/html")])
        return [b"<html><title>A shop</title></html>"]

    url = f"http://127.0.0.1:{serve(site).port}/relay/"
    advice = Examination(url, *settings_of(quiet)).failed_once("relay.js", "404", "A shop")
    assert [sentence.partition(":")[0] for sentence, _ in advice] == ["If it is Apache", "If it is nginx"]


def test_responses_of_strangers_reach_neither_the_terminal_nor_the_shell(quiet, serve):
    def site(environ, start_response):
        if environ["PATH_INFO"].startswith("/moved"):
            start_response("302 Found", [("Location", "https://example.com/;reboot/static/relay.js")])
            return []
        start_response("404 Not Found", [("Content-Type", "text/html")])
        return ["<title>\x1b]0;owned\x07\u202e</title>".encode()]

    port = serve(site).port
    examination = Examination(f"http://127.0.0.1:{port}/", *settings_of(quiet))
    examination.failed_once("404", "?]0;owned??")
    ((_, (line,)),) = Examination(f"http://127.0.0.1:{port}/moved/", *settings_of(quiet)).failed_once("leads on")
    assert line == "python relay.py doctor 'https://example.com/;reboot/'"


def test_an_impossible_date_is_ignored(quiet, serve):
    def site(environ, start_response):
        start_response("200 OK", [("Date", "Mon, 01 Jan 99999999 00:00:00 GMT")])
        return [b"// The relay's browser client"]

    url = f"http://127.0.0.1:{serve(site).port}/relay/"
    secret = "--secret=k7fG2-pQ9_rT4wXz8LmN6vBc3hJd5sYa"
    examination = Examination(url, *settings_of(quiet), secret)
    assert examination.failures and "relay.js" in examination.said


def test_a_terminal_that_lacks_letters_gets_question_marks(quiet, serve):
    def site(environ, start_response):
        start_response("404 Not Found", [("Content-Type", "text/html")])
        return ["<title>Café</title>".encode()]

    url = f"http://127.0.0.1:{serve(site).port}/"
    environ = {**clean_environ(), "PYTHONIOENCODING": "ascii"}
    Examination(url, *settings_of(quiet), env=environ).failed_once("the page ?Caf??")


def test_a_page_elsewhere_that_is_refused_may_connect_once_the_advice_is_followed(start_own, tmp_path):
    file = tmp_path / "my.ini"
    file.write_text("[relay]\n")
    relay = start_own(config=file)
    ask = (f"{relay.url}/", "--quick", "--origin=https://shop.example.com", *settings_of(relay))
    ((sentence, lines),) = Examination(*ask).failed_once("origin", "https://shop.example.com", "refused")
    assert f"in [relay] of {file}" in sentence
    file.write_text("\n".join(["[relay]", *lines]))
    relay.stop()
    relay.start()
    Examination(*ask).is_well()


def test_all_is_well_directly_on_both_servers_and_nothing_is_left_behind(relay):
    Examination(*settings_of(relay)).is_well()
    before = fds(relay)  # the relay opens some files of its own for its first clients
    Examination(*settings_of(relay)).is_well()
    wait_for(lambda: fds(relay) <= before, "its connections to be gone")


def test_without_a_proxy_in_front_it_looks_at_the_relay_itself(relay):
    examination = Examination(f"{relay.url}/static/relay.js", "--quick", *settings_of(relay))
    examination.is_well()
    assert "no proxy" in examination.said and "/push" not in examination.said


def test_with_a_secret_it_signs_itself_a_token_and_it_pushes_with_the_key(start_own):
    told = {"secret": "k7" * 10 + "5tgb6yhn7ujm8ik9", "push_keys": "web:Zk4-bq9_wL2xT7vR1mN8"}
    relay = start_own(**told)
    examination = Examination(f"{relay.url}/", "--quick", *settings_of(relay))
    examination.is_well()
    assert examination.said.count("a push arrives") == 4
    assert not any(value in examination.said for value in (told["secret"], "Zk4-bq9_wL2xT7vR1mN8"))


def test_if_only_visitors_can_register_it_reports_what_it_cannot_check(start_own):
    relay = start_own(id_cookie="PHPSESSID")
    examination = Examination(f"{relay.url}/", "--quick", *settings_of(relay))
    examination.is_well()
    assert "only your visitors can" in examination.said and "a push is taken" in examination.said


def test_it_finds_the_relay_on_a_unix_socket_below_a_path(start_own, tmp_path):
    relay = start_own(host=f"unix:{tmp_path}/relay.sock", base_path="/below")
    examination = Examination(*settings_of(relay))
    examination.is_well()
    assert examination.said.count("a push arrives") == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["example.com/relay"], ["example.com/relay", "https://example.com/relay/"]),
        (["ftp://example.com/"], ["ftp://example.com/"]),
        (["https://example.com/", "--ca=/no/such/file"], ["--ca", "No such file"]),
        (["https://example.com/", "--origin=shop"], ["shop"]),
        (["--origin=https://shop.example.com"], ["--origin", "PUBLIC_URL"]),
        (["https://a.example/", "https://b.example/"], ["b.example"]),
        (["--prot=80"], ["did you mean port"]),
    ],
)
def test_a_wrong_command_line_of_the_doctor_is_a_sentence_and_exit_code_2(arguments, words):
    examination = Examination(*arguments)
    assert (examination.code, examination.said) == (2, "")
    assert len(examination.complaint.splitlines()) == 1
    assert all(word in examination.complaint for word in words), examination.complaint


def test_ctrl_c_ends_it_at_once_also_while_it_waits_for_the_ping(start_own):
    relay = start_own(ping_interval=60)
    command = [*DOCTOR, relay.url, *settings_of(relay)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=clean_environ()) as doctor:
        wait_for(lambda: len(os.listdir(f"/proc/{doctor.pid}/task")) == 3, "it to wait on both transports")
        doctor.send_signal(signal.SIGINT)
        try:
            assert doctor.wait(DEADLINE) == 130 and doctor.stderr.read() == b""
        finally:
            doctor.kill()
