"""Values of settings: the texts that are accepted, and the sentence for each other text."""

import os
import re

import pytest
from refused_settings import KEY, SECRET, refusal

from pushrelay.settings import load
from pushrelay.settings.values import hooks


@pytest.mark.parametrize("name", ["secret", "push_keys", "host", "auth_url", "id_cookie", "broker"])
@pytest.mark.parametrize("quotes", ['""', "''", "“”", "‘’", "„“", "``", '"', "'"])
def test_a_value_in_quotes_is_refused_and_the_quotes_are_named(ini, name, quotes):
    value = {"host": "0.0.0.0", "id_cookie": "PHPSESSID", "broker": "sqlite:relay.db"}.get(name, SECRET)
    for text in dict.fromkeys((f"{quotes[0]}{value}{quotes[1:]}", f"{quotes[:-1]}{value}{quotes[-1]}")):
        for read, *given in (
            (ini, f"[relay]\n{name} = {text}\n"),
            (load, {"RELAY_CONFIG": os.devnull, f"RELAY_{name.upper()}": text}),
        ):
            assert "quotes" in refusal(read, *given), text


def test_quotes_around_one_of_several_are_refused(ini):
    assert "quotes" in refusal(ini, f'[relay]\nsecret = {SECRET}, "{SECRET[::-1]}"\n')
    assert "quotes" in refusal(ini, f'[relay]\npush_keys = web:"{KEY}"\n')


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (f"{SECRET}\\", "backslash"),
        (f"{SECRET};", "semicolon"),
        ("${RELAY_SECRET_OF_THE_SITE}", "variable"),
        ("$RELAY_SECRET_OF_THE_SITE", "variable"),
        ("$(cat /etc/relay.secret)", "variable"),
        ("%(secret_of_the_site)s", "variable"),
        ("{{ relay_secret_of_site }}", "variable"),
        (f"={SECRET}", "single ="),
        (f"> {SECRET}", "single ="),
        (f"{SECRET} {SECRET[::-1]}", "commas"),
        (f"{SECRET}\u00a0", "no-break space"),
        (f"{SECRET}\u200b", "zero width space"),
        (f"\ufeff{SECRET}", "invisible"),
        (f"{SECRET[:9]}\u00ad{SECRET[9:]}", "soft hyphen"),
        (f"{SECRET[:9]}\x07{SECRET[9:]}", "invisible"),
        (f"{SECRET[:9]}\u2028{SECRET[9:]}", "line separator"),
    ],
)
def test_a_secret_that_other_programs_would_read_differently_is_refused(ini, text, word):
    assert word in refusal(ini, f"[relay]\nsecret = {text}\n")


@pytest.mark.parametrize("text", [f"{SECRET}\n{SECRET[::-1]}", f"{SECRET} {SECRET[::-1]}", f"{SECRET}\t{SECRET[::-1]}"])
def test_secrets_and_keys_are_separated_by_commas_only(text):
    for name in ("secret", "push_keys"):
        said = refusal(load, {"RELAY_CONFIG": os.devnull, f"RELAY_{name.upper()}": text})
        assert "commas" in said and "without spaces" in said
    both = f"{SECRET} ,{SECRET[::-1]},\n"
    assert load({"RELAY_CONFIG": os.devnull, "RELAY_SECRET": both}).secret == (SECRET, SECRET[::-1])


def test_percent_and_dollar_inside_a_value_have_no_meaning(ini):
    assert ini("[relay]\nsecret = a%%b$c%d$e%(f-g)h\n").secret == ("a%%b$c%d$e%(f-g)h",)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("history_ttl", "1h", 3600.0),
        ("history_ttl", "7d", 604800.0),
        ("history_ttl", "1h 30m", 5400.0),
        ("ping_interval", "500ms", 0.5),
        ("ping_interval", "1.5s", 1.5),
        ("ping_timeout", "2min", 120.0),
        ("max_body", "10M", 10 << 20),
        ("max_body", "10MB", 10 << 20),
        ("max_body", "512k", 512 << 10),
        ("history_bytes", "2 GiB", 2 << 30),
        ("max_header", "4096", 4096),
        ("base_path", "relay", "/relay"),
        ("base_path", "relay/", "/relay"),
        ("base_path", "a/b", "/a/b"),
    ],
)
def test_values_may_be_written_as_people_write_them(name, text, value):
    assert getattr(load({"RELAY_CONFIG": os.devnull}, {name: text}), name) == value


@pytest.mark.parametrize(
    "name, text",
    [
        *[
            ("host", each)
            for each in ("0.0.0.0,127.0.0.1", "0.0.0.0,::", "*", "localhost;x", "a..b", "-x", "::g", "$HOST")
        ],
        *[("host", each) for each in ("unix:/run/relay.sock?mode=660", "unix: /run/relay.sock")],
        *[
            ("broker", f"sqlite:{each}")
            for each in (" relay.db", "~/relay.db", "$HOME/x.db", ":memory:", "file:x?mode=ro")
        ],
        *[
            (name, each)
            for name in ("secret", "push_keys")
            for each in (
                "<your-secret-here>",
                "env(RELAY_SECRET)",
                "file:/run/secrets/relay",
                "/run/secrets/relay_secret",
            )
        ],
    ],
)
def test_a_value_that_other_programs_read_differently_is_refused(ini, name, text):
    refusal(ini, f"[relay]\n{name} = {text}\n")


@pytest.mark.parametrize(
    "text", ["localhost", "my_host", "a.example.", "bücher.example", "::", "fe80::1%lo", "127.1", "0"]
)
def test_host_names_and_addresses_are_accepted(ini, text):
    assert ini(f"[relay]\nhost = {text}\n").host == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("history_ttl", "1y"),
        ("history_ttl", "h"),
        ("history_ttl", "400d"),
        ("history_ttl", "1H"),
        ("history_ttl", "-1h"),
        ("max_body", "10X"),
        ("max_body", "1.5M"),
        ("max_body", "10T"),
        ("max_connections", "20k"),
        ("max_connections", "20,000"),
    ],
)
def test_the_bounds_of_a_number_are_printed_as_plain_numbers(name, text):
    said = refusal(load, {"RELAY_CONFIG": os.devnull}, {name: text})
    assert re.search(r"from [\d.]+ to \d+", said) and repr(text) in said


def test_a_password_in_a_url_is_not_repeated():
    said = refusal(load, {"RELAY_CONFIG": os.devnull}, {"auth_url": f"ftp://staging:{SECRET}@example.com/"})
    assert "…@example.com" in said


HOOK = "https://example.com/hook.php"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", []),
        (HOOK, [(HOOK, (), ())]),
        (f"{HOOK},", [(HOOK, (), ())]),
        (f"{HOOK}?a=1,2 ,http://127.0.0.1/b", [(f"{HOOK}?a=1,2", (), ()), ("http://127.0.0.1/b", (), ())]),
        (f"{HOOK} events=join|leave|join ids=room-*|user-7", [(HOOK, ("join", "leave"), ("room-*", "user-7"))]),
        (f"{HOOK} ids=a, http://b.example/ events=lost", [(HOOK, (), ("a",)), ("http://b.example/", ("lost",), ())]),
    ],
)
def test_urls_of_webhooks_may_have_filters(text, wanted):
    assert list(hooks(text)) == wanted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("example.com/hook.php", "with filters or without: https://"),
        (f"{HOOK} event=join", "events=join|leave ids=room-*"),
        (f"{HOOK} events=", "events=join|leave ids=room-*"),
        (f"{HOOK} ids=a||b", "events=join|leave ids=room-*"),
        (f"{HOOK} ids=a ids=b", "events=join|leave ids=room-*"),
        (f"{HOOK} events=push", "the events are online, offline, join, leave, expired, lost"),
        (f"{HOOK}, {HOOK} events=join", "URLs that all differ"),
        (f"{HOOK} ids=a,b", "a vertical bar separates"),
    ],
)
def test_a_wrong_webhook_url_is_refused_with_what_to_write(text, said):
    assert said in refusal(load, {"RELAY_CONFIG": os.devnull}, {"webhook_url": text, "webhook_secret": SECRET})


def test_a_webhook_url_needs_a_secret():
    assert "webhook_secret" in refusal(load, {"RELAY_CONFIG": os.devnull}, {"webhook_url": HOOK})
