"""Tokens: rights to register ids and to push from a page, until a time."""

import base64
import hashlib
import hmac
import json
import shutil
import subprocess
import time

import pytest
from conftest import ROOT, need

from pushrelay.access.tokens import Patterns, Tokens, sign
from pushrelay.errors import Refused
from pushrelay.settings import Settings

SECRET = "the-first-secret-of-this-relay-0123456789"
OTHER = "another-secret-0123456789-0123456789-0123"
LATER = 4_000_000_000


def b64(data):
    return (
        base64.urlsafe_b64encode(data if isinstance(data, bytes) else json.dumps(data).encode()).rstrip(b"=").decode()
    )


def forge(header, claims, secret=SECRET, digest=hashlib.sha256):
    """Return a token made by hand, with contents that PyJWT would not write."""
    signed = f"{b64(header)}.{b64(claims)}"
    return f"{signed}.{b64(hmac.new(secret.encode(), signed.encode(), digest).digest())}"


def read(token, *secrets):
    return Tokens(Settings(secret=secrets or (SECRET,))).read(token)


def refusal(token, *secrets):
    with pytest.raises(Refused) as refused:
        read(token, *secrets)
    assert refused.value.status == 403 and len(refused.value.message) > 15
    if isinstance(token, str) and len(token) > 3:
        assert token not in refused.value.message
    return refused.value.error


HS256 = {"alg": "HS256", "typ": "JWT"}
GOOD = {"ids": ["42"], "exp": LATER}


def test_a_valid_token_gives_rights_to_register_and_to_push_until_a_time():
    rights = read(sign({"ids": ["42", 7, 8.0, "room-*"], "push": ["chat"], "exp": LATER, "sub": 42}, SECRET))
    assert all(rights.ids.allows(each) for each in ("42", "7", "8", "room-", "room-1"))
    assert not any(rights.ids.allows(each) for each in ("4", "420", "room", "chat", "Room-1", ""))
    assert rights.push.allows("chat") and not rights.push.allows("42")
    assert rights.expires == LATER
    assert read(forge(HS256, GOOD)).ids.allows("42"), "what is forged below fails for its own reason"


@pytest.mark.parametrize(
    ("pattern", "allowed", "refused"),
    [
        ("*", ["", "x", "*", "ü👍", "__proto__"], []),
        ("a*", ["a", "ab", "a*"], ["", "b", "A"]),
        ("**", ["*", "*a"], ["a", ""]),
        ("*a", ["*a"], ["a", "ba", "*ab"]),
        ("a*b", ["a*b"], ["ab", "axb", "a*"]),
        ("a.*", ["a.b"], ["ab"]),
        ("[ab]", ["[ab]"], ["a"]),
        ("a?", ["a?"], ["ab"]),
        ("ü👍*", ["ü👍", "ü👍1"], ["u\u0308👍", "ü"]),  # composed and decomposed are two names
    ],
)
def test_a_star_is_a_wildcard_at_the_very_end_and_a_character_elsewhere(pattern, allowed, refused):
    patterns = Patterns([pattern])
    assert all(patterns.allows(each) for each in allowed)
    assert not any(patterns.allows(each) for each in refused)


FORGED = {
    "another secret": sign(GOOD, OTHER),
    "no signature": forge(HS256, GOOD).rpartition(".")[0] + ".",
    "a changed claim": ".".join([b64(HS256), b64({**GOOD, "ids": ["*"]}), forge(HS256, GOOD).rpartition(".")[2]]),
    "alg none": f"{b64({'alg': 'none'})}.{b64(GOOD)}.",
    "alg None, signed": forge({"alg": "None"}, GOOD),
    "alg RS256, signed with the secret": forge({"alg": "RS256"}, GOOD),
    "alg HS384": forge({"alg": "HS384"}, GOOD, digest=hashlib.sha384),
    "alg HS512": forge({"alg": "HS512"}, GOOD, digest=hashlib.sha512),
    "alg hs256": forge({"alg": "hs256"}, GOOD),
    "alg a list": forge({"alg": ["HS256"]}, GOOD),
    "no alg": forge({"typ": "JWT"}, GOOD),
    "crit": forge({**HS256, "crit": ["exp"]}, GOOD),
    "b64": forge({**HS256, "b64": False, "crit": ["b64"]}, GOOD),
    "a header that is a list": forge(["HS256"], GOOD),
    "claims that are a list": forge(HS256, [GOOD]),
    "claims that are not JSON": forge(HS256, b"{ids:"),
    "deep claims": forge(HS256, b"[" * 5500),
    "a deep header": forge(b"[" * 5500, GOOD),
    "aud": sign({**GOOD, "aud": "somebody"}, SECRET),
    "nothing allowed": sign({"exp": LATER}, SECRET),
    "empty lists": sign({"ids": [], "push": []}, SECRET),
    "ids a string": sign({"ids": "42"}, SECRET),
    "ids an object": sign({"ids": {"1": "42"}}, SECRET),
    "ids with null": sign({"ids": [None]}, SECRET),
    "ids with true": sign({"ids": [True]}, SECRET),
    "ids with a fraction": sign({"ids": [1.5]}, SECRET),
    "ids with a list": sign({"ids": [["42"]]}, SECRET),
    "ids with an empty one": sign({"ids": [""]}, SECRET),
    "ids with a control character": sign({"ids": ["a\nb"]}, SECRET),
    "ids with a long one": sign({"ids": ["a" * 257]}, SECRET),
    "push a number": sign({"ids": ["42"], "push": 42}, SECRET),
    "exp a string": sign({"ids": ["42"], "exp": str(LATER)}, SECRET),
    "exp true": sign({"ids": ["42"], "exp": True}, SECRET),
    "exp null": sign({"ids": ["42"], "exp": None}, SECRET),
    "exp in milliseconds": sign({"ids": ["42"], "exp": LATER * 1000}, SECRET),
    "exp without end": forge(HS256, b'{"ids":["42"],"exp":1e999}'),
    "exp not a number": forge(HS256, b'{"ids":["42"],"exp":NaN}'),
    "exp of 5,000 digits": forge(HS256, b'{"ids":["42"],"exp":' + b"9" * 5000 + b"}"),
    "exp of 400 digits": forge(HS256, b'{"ids":["42"],"exp":' + b"9" * 400 + b"}"),
    "nbf of 400 digits": forge(HS256, b'{"ids":["42"],"nbf":-' + b"9" * 400 + b"}"),
    "nbf to come": sign({**GOOD, "nbf": LATER}, SECRET),
    "nbf a string": sign({**GOOD, "nbf": "0"}, SECRET),
    "oversized": sign({"ids": [f"id-{n}" for n in range(1000)]}, SECRET),
    "empty": "",
    "text": "a.b.c",
    "dots": "." * 8000,
    "half a surrogate pair": "\ud800",
    "a number": 42,
    "a list": [sign(GOOD, SECRET)],
    "an object": {"token": 1},
    "true": True,
}


@pytest.mark.parametrize("name", FORGED)
def test_an_invalid_token_is_refused(name):
    assert refusal(FORGED[name]) == "invalid_token"


@pytest.mark.parametrize("expires", [0, -1, 1, 1.5])
def test_an_expired_token_is_refused_as_expired(expires):
    assert refusal(sign({"ids": ["42"], "exp": expires}, SECRET)) == "token_expired"
    assert refusal(sign({"ids": ["42"], "exp": expires}, OTHER)) == "invalid_token", "the signature comes first"


@pytest.mark.parametrize(("ago", "words"), [(5, "5 seconds"), (200, "3 minutes"), (7200, "2 hours"), (2e6, "23 days")])
def test_the_refusal_of_an_expired_token_has_the_time_and_the_relays_clock(ago, words, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.25)
    with pytest.raises(Refused) as refused:
        read(sign({"ids": ["42"], "exp": 2_000_000_000 - ago}, SECRET))
    said = refused.value.message
    assert "(2033-05-18 03:33:20" in said and "by the relay's clock" in said
    assert words in said, said


def test_a_token_is_valid_from_a_minute_before_nbf_until_exp(monkeypatch):
    """The clock of the machine that signs may be ahead (RFC 7519, 4.1.5). An expired right is not extended."""
    begins, ends = 2_000_000_000, 2_000_000_060
    token = sign({"ids": ["42"], "nbf": begins, "exp": ends}, SECRET)
    monkeypatch.setattr(time, "time", lambda: now)
    for now in (begins - 60, begins - 2, begins, begins + 0.1, ends - 0.1):
        assert read(token).ids.allows("42"), now
    for now, error in (
        (begins - 61, "invalid_token"),
        (begins - 3600, "invalid_token"),
        (ends, "token_expired"),
        (ends + 1, "token_expired"),
    ):
        assert refusal(token) == error, now


def test_while_secrets_are_rotated_the_old_and_the_new_are_valid():
    assert read(sign(GOOD, OTHER), SECRET, OTHER) and read(sign(GOOD, SECRET), SECRET, OTHER)
    assert refusal(sign(GOOD, "a third secret " * 3), SECRET, OTHER) == "invalid_token"
    assert refusal(sign(GOOD, SECRET), OTHER) == "invalid_token"


# On a relay.


@pytest.fixture(scope="module")
def guarded(clocked_relay):
    return clocked_relay(secret=f"{SECRET},{OTHER}")


def register(client, ids, token=None, **more):
    return client.call("register", {"id": ids, "token": token, **more})


def test_with_a_secret_an_id_needs_a_token_that_allows_it(guarded, connect):
    client = connect(guarded.url)
    assert register(client, "42")["error"] == "missing_token"
    assert register(client, "42", sign({"ids": ["43"]}, SECRET))["error"] == "not_allowed"
    answer = register(client, ["42", "43"], sign({"ids": ["43"]}, SECRET))
    assert answer["error"] == "not_allowed" and "'42'" in answer["message"]
    assert guarded.push("43", "x")["connections"] == 0, "of several ids none is registered"
    assert register(client, ["42", "ü👍"], sign({"ids": ["42", "ü👍"]}, OTHER))["ok"]
    assert guarded.push("ü👍", "hello")["connections"] == 1
    assert client.data(1) == ["hello"]


def test_a_forged_token_is_refused_over_the_socket_as_well(guarded, connect):
    client = connect(guarded.url)
    for name in ("alg none", "a changed claim", "a number", "a list", "an object", "oversized"):
        assert register(client, "42", FORGED[name])["error"] == "invalid_token", name
    client.socket.emit("register", {"id": "42", "token": "x.y.z"})
    name, message = client.wait(1)[0]
    assert (name, message["error"]) == ("relay_error", "invalid_token")


def test_a_token_made_by_hand_in_php_is_accepted(guarded, connect, tmp_path):
    need(shutil.which("php"), "PHP (apt-get install php-cli)")
    text = (ROOT / "docs/socket-api.md").read_text()
    start = text.index("    function relay_token(")
    code = "\n".join(line[4:] for line in text[start : text.index("\n\n", start)].splitlines())
    script = tmp_path / "token.php"
    script.write_text(
        f"<?php\n{code}\necho relay_token(['ids' => ['42', 'room-*'], 'exp' => time() + 86400], '{SECRET}');"
    )
    token = subprocess.run(["php", script], capture_output=True, text=True, check=True).stdout
    assert register(connect(guarded.url), ["42", "room-ü"], token)["ok"]


def test_ids_are_left_when_the_token_expires_and_the_client_gets_relay_error(guarded, connect):
    client, other = connect(guarded.url), connect(guarded.url)
    soon = guarded.now() + 60
    assert register(client, ["brief", "short"], sign({"ids": ["*"], "push": ["*"], "exp": soon}, SECRET))["ok"]
    assert register(client, "lasting", sign({"ids": ["lasting"], "exp": LATER}, SECRET))["ok"]
    assert register(other, "brief", sign({"ids": ["brief"]}, SECRET))["ok"]
    assert guarded.push("brief", "1")["connections"] == 2
    guarded.advance(61)
    name, message = client.wait(2)[1]
    assert (name, message["ok"], message["error"]) == ("relay_error", False, "token_expired")
    assert sorted(message["ids"]) == ["brief", "short"] and "register" in message["message"]
    assert [guarded.push(each, "2")["connections"] for each in ("brief", "short", "lasting")] == [1, 0, 1]
    assert other.data(2) == ["1", "2"]


def test_a_fresh_token_extends_the_registration_and_nothing_is_missed(guarded, connect):
    client = connect(guarded.url)
    token = sign({"ids": ["extended"], "push": ["extended"], "exp": guarded.now() + 60}, SECRET)
    assert register(client, "extended", token)["ok"]
    assert register(client, "extended", sign({"ids": ["extended"], "exp": LATER}, SECRET))["ok"]
    assert register(client, "shortened", sign({"ids": ["shortened"], "exp": LATER}, SECRET))["ok"]
    assert register(client, "shortened", sign({"ids": ["shortened"], "exp": guarded.now() + 60}, SECRET))["ok"]
    guarded.advance(61)
    assert client.wait(1)[0][1]["ids"] == ["shortened"]
    assert guarded.push("extended", "x")["connections"] == 1
    position = guarded.push("shortened", "missed")["id"].split(":")[0] + ":0"
    fresh = sign({"ids": ["shortened"], "exp": LATER}, SECRET)
    answer = register(client, "shortened", fresh, since=position)
    assert answer["ids"]["shortened"]["recovered"] and answer["ids"]["shortened"]["replayed"] == 1


def test_the_answer_has_the_seconds_until_the_token_expires(guarded, connect):
    client = connect(guarded.url)
    answer = register(client, "timed", sign({"ids": ["*"], "exp": guarded.now() + 600}, SECRET))
    assert 500 < answer["expires_in"] <= 600 and isinstance(answer["expires_in"], int)
    assert "expires_in" not in register(client, "timeless", sign({"ids": ["*"]}, SECRET))


def test_a_refused_register_leaves_the_earlier_registration(guarded, connect):
    client = connect(guarded.url)
    assert register(client, "kept", sign({"ids": ["kept"], "exp": LATER}, SECRET))["ok"]
    assert register(client, "kept")["error"] == "missing_token"
    assert register(client, "kept", sign({"ids": ["kept"], "exp": 1}, SECRET))["error"] == "token_expired"
    assert guarded.push("kept", "x")["connections"] == 1


def test_a_page_pushes_to_what_its_token_allows_until_it_expires(guarded, connect):
    sender, receiver = connect(guarded.url), connect(guarded.url)
    register(receiver, "room-1", sign({"ids": ["room-1"]}, SECRET))
    push = {"destination": "room-1", "data": "hi"}
    assert sender.call("push", push)["error"] == "not_allowed"
    expires = guarded.now() + 60
    assert register(sender, "s", sign({"ids": ["s"], "push": ["room-*"], "exp": expires}, SECRET))["ok"]
    assert sender.call("push", push)["connections"] == 1
    for destination in ("s", ["room-1", "other"]):
        assert sender.call("push", {"destination": destination, "data": 1})["error"] == "not_allowed"
    assert receiver.data(1) == ["hi"]
    guarded.advance(61)
    assert sender.call("push", push)["error"] in ("token_expired", "not_allowed")
    assert sender.wait(1)[0][1]["error"] == "token_expired"
    assert sender.call("push", push)["error"] == "not_allowed"


def test_many_tokens_that_expire_at_once_are_each_reported(guarded, connect):
    expires = guarded.now() + 60
    clients = [connect(guarded.url) for _ in range(20)]
    for number, client in enumerate(clients):
        assert register(client, f"many-{number}", sign({"ids": [f"many-{number}"], "exp": expires}, SECRET))["ok"]
    guarded.advance(61)
    for number, client in enumerate(clients):
        assert client.wait(1)[0][1]["ids"] == [f"many-{number}"]


def test_without_a_secret_a_token_is_ignored(relay, connect):
    assert register(connect(relay.url), "42", "no token at all")["ok"]


def test_no_token_is_written_to_the_log(guarded):
    assert SECRET not in guarded.log.read_text() and "eyJ" not in guarded.log.read_text()
