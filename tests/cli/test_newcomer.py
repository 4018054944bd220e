"""The first sentence that a newcomer sees names their mistake."""

import base64
import contextlib
import io
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import DEADLINE, ROOT, own_only
from examination import doctor
from misfront import Misfront, page

from pushrelay.access.auth_site import AuthSite
from pushrelay.access.visitor import Visitor
from pushrelay.cli.commands import run
from pushrelay.cli.doctor import public
from pushrelay.engine.errors import origin_message
from pushrelay.errors import Refused
from pushrelay.names import destinations_of
from pushrelay.register.subscription import subscriptions_of
from pushrelay.rooms.packet import unknown_event
from pushrelay.settings import load


def settings_of(**flags):
    return load(environ={}, flags=flags)


# Messages to pages.


def refusal_of_me(cookies, name="PHPSESSID"):
    with pytest.raises(Refused) as refused:
        subscriptions_of("me", {"HTTP_COOKIE": cookies}, settings_of(id_cookie=name))
    assert refused.value.error == "missing_cookie"
    return refused.value.message


@pytest.mark.parametrize("name", ["phpsessid", "PHPSESSIONID", "PHPSESSID_"])
def test_a_wrong_name_of_the_cookie_is_shown_with_those_that_arrived(name):
    message = refusal_of_me("lang=de; PHPSESSID=5be1c07d2f3a5be1c07d2f3a", name)
    assert f"no cookie {name} " in message and ", but lang, PHPSESSID (the setting id_cookie" in message


@pytest.mark.parametrize("cookies", ["", "PHPSESSID=", "5be1c07d2f3a5be1c07d2f3a", "a\x1bb=1", f"{'a' * 41}=1"])
def test_of_received_cookies_no_value_and_no_invalid_name_is_shown(cookies):
    assert "when it connected: have PHP set it" in refusal_of_me(cookies)


def test_of_many_cookies_a_few_are_shown():
    message = refusal_of_me("; ".join(f"c{n}=1" for n in range(100)))
    assert ", but c0, c1, c2, c3, c4 (" in message and "c5" not in message


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "relay", "10.0.0.5:8080"])
def test_a_page_behind_a_proxy_that_changes_the_host_is_advised_to_look_there_first(host):
    message = origin_message("http://shop.test", host)
    assert "have it pass the Host header on" in message and "setting origins" in message


@pytest.mark.parametrize("host", ["relay.shop.test", "shop.test:8443", ""])
def test_a_page_that_asked_for_a_sites_name_is_advised_to_list_its_origin(host):
    message = origin_message("http://www.shop.test", host)
    assert "connect: add this origin to the relay's setting origins" in message and "proxy" not in message


@pytest.mark.parametrize("ids", ["", ["42", ""]])
def test_an_empty_id_is_explained_to_pages_and_to_publishers(ids):
    with pytest.raises(Refused) as refused:
        destinations_of(ids, settings_of())
    assert refused.value.error == "missing_destination"
    assert "the id (destination) is empty" in refused.value.message and "pages register" in refused.value.message


def test_an_event_that_nothing_handles_is_named_before_those_of_the_relay():
    assert unknown_event("helo")[1].startswith("nothing handles the event 'helo': the relay's own are register,")


# https to the relay's own port.


@own_only
@pytest.mark.parametrize("version", [b"\x00", b"\x01", b"\x03"])
def test_https_to_the_relays_own_port_is_called_so(relay, version):
    with contextlib.closing(socket.create_connection(("127.0.0.1", relay.port), DEADLINE)) as client:
        client.sendall(b"\x16\x03" + version + b"\x02\x00\x01\x00\x01\xfc\x03\x03")
        answer = client.recv(4096)
    assert answer.startswith(b"HTTP/1.1 400 ") and b"this is https, and the relay's own port takes http" in answer


# The doctor.


@own_only
def test_the_relays_own_port_that_other_machines_do_not_reach_leads_to_the_setting_host(relay):
    said = doctor("--port", str(relay.port), "--quick", f"http://127.0.0.2:{relay.port}/")
    assert "it listens on this machine only (127.0.0.1)" in said and "host = 0.0.0.0" in said, said


# PHP.


def test_a_wrong_address_is_shown_by_relay_php_and_nothing_secret_of_it(php):
    addresses = [
        "127.0.0.1:8080",
        " http://127.0.0.1:8080",
        "http://me:not-for-logs@x",
        "http://x/?key=not-for-logs",
        "",
    ]
    shown = ["'127.0.0.1:8080'", "' http://127.0.0.1:8080'", "'http://...@x'", "'http://x/?...'", "''"]
    given = base64.b64encode(json.dumps([*addresses, "b\u00fc'\u0001"]).encode()).decode()
    got = php.run(f"""
        foreach (json_decode(base64_decode('{given}')) as $address) {{
            $relay = new Relay($address);
            $relay->push('42', 1);
            $all[] = $relay->lastError();
        }}
        echo json_encode($all);""")
    assert [error.rpartition(", not ")[2] for error in got[:-1]] == shown
    assert "b\\303\\274\\'\\001" in got[-1] and "not-for-logs" not in str(got)


@own_only
def test_https_to_the_relays_own_port_is_called_so_by_relay_php(php, relay):
    got = php.run(f"""
        $relay = new Relay('https://127.0.0.1:{relay.port}', ['budget' => 20]);
        $relay->push('42', 1);
        echo json_encode([$relay->lastError()]);""")
    assert got[0].startswith("unreachable") and got[0].endswith("The relay's own port takes http:// only")


# Denials by auth_url.


@pytest.fixture(scope="module")
def denying():
    class Deny(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(401 if "auth" in self.path else 403)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Deny) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize(
    ("cookies", "words"),
    [
        ("", "the browser sent no cookie, so log in, or load the page from the relay's own host name"),
        ("SHOP=5be1c07d2f3a; lang=de", "it was sent SHOP, lang, so log in, and register again"),
        ("5be1c07d2f3a", "(401): log in, and register again"),
    ],
)
def test_a_page_that_auth_url_denies_learns_which_cookies_it_judged_by(denying, cookies, words):
    site = AuthSite(settings_of(auth_url=f"http://127.0.0.1:{denying}/relay-auth.php"))
    outcome = site.fetch(Visitor(cookies)).outcome
    assert outcome.error == "not_allowed" and words in outcome.message and "5be1" not in outcome.message


@own_only
def test_https_at_the_relays_own_port_leads_the_doctor_to_an_address_of_the_site(relay):
    said = doctor("--port", str(relay.port), "--quick", "--insecure", f"https://127.0.0.1:{relay.port}/")
    assert f"Port {relay.port} is the relay's own, which takes http. For https" in said, said


@own_only
@pytest.mark.parametrize("is_closed", [False, True])
def test_a_script_that_a_web_server_may_not_read_leads_the_doctor_to_the_folder(relay, monkeypatch, is_closed):
    forbidden = page("403 Forbidden", "403 Forbidden")
    monkeypatch.setattr(public, "closed_to_others", lambda file: file.parent if is_closed else None)
    with contextlib.closing(Misfront(relay.port)) as front, contextlib.redirect_stdout(io.StringIO()) as said:
        front.fault = lambda request: forbidden if request.target.endswith("relay.js") else None
        run(["doctor", "--port", str(relay.port), "--quick", f"http://127.0.0.1:{front.port}/relay/"])
    found = f"its user may not enter or read {ROOT / 'static'}." if is_closed else "check the path in its Alias"
    assert f"If the web server serves the file itself: {found}" in " ".join(said.getvalue().split()), said.getvalue()
