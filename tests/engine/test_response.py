"""Pages of other origins that may connect pass the preflight, as with python-engineio."""

import engineio
import pytest
from answering import answer_of
from conftest import own_only
from pages import Server, Site

from pushrelay.engine.engine import Engine

AT = "/socket.io/?EIO=4&transport="


@pytest.fixture(scope="module")
def engines():
    """The relay's engine and python-engineio's own, with the same options."""
    options = {"cors_allowed_origins": lambda origin, environ: origin == "https://shop.example"}
    ours, stock = Engine(**options), engineio.Server(async_mode="threading", **options)
    yield ours.handle_request, stock.handle_request
    ours.shutdown()


@pytest.mark.parametrize(
    "asked",
    [
        "content-type",
        "authorization",
        "baggage,sentry-trace",
        "Authorization, X-Requested-With , content-type",
        "x-a!#$%&'*+.^_`|~-",
        None,
    ],
)
def test_a_page_that_may_connect_may_send_headers_of_its_own(engines, asked):
    environ = {"HTTP_ORIGIN": "https://shop.example", "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "POST"}
    if asked:
        environ["HTTP_ACCESS_CONTROL_REQUEST_HEADERS"] = asked
    (status, ours), (_, stock) = (answer_of(engine, "OPTIONS", **environ) for engine in engines)
    assert status == 204 and ours["access-control-allow-origin"] == "https://shop.example"
    for name, value in stock.items():
        if name.startswith("access-control") and name != "access-control-allow-methods":
            assert ours[name] == value, name
    assert {"GET", "POST"} <= {each.strip() for each in ours["access-control-allow-methods"].split(",")}
    assert "Origin" in ours["vary"] and "Access-Control-Request-Headers" in ours["vary"]
    assert int(ours["access-control-max-age"]) > 0


def test_a_preflight_answer_holds_nothing_but_names_of_headers(engines):
    for asked in ("a\r\nSet-Cookie: x", "a b", "a,,b", "", "x:y", "\xfc"):
        more = {"HTTP_ORIGIN": "https://shop.example", "HTTP_ACCESS_CONTROL_REQUEST_HEADERS": asked}
        assert answer_of(engines[0], "OPTIONS", **more)[1]["access-control-allow-headers"] == "Content-Type"


def test_a_page_of_the_internet_may_reach_a_relay_in_a_private_network_if_it_may_connect(engines):
    asked = {"HTTP_ACCESS_CONTROL_REQUEST_PRIVATE_NETWORK": "true"}
    name = "access-control-allow-private-network"
    assert answer_of(engines[0], "OPTIONS", HTTP_ORIGIN="https://shop.example", **asked)[1][name] == "true"
    assert name not in answer_of(engines[0], "OPTIONS", HTTP_ORIGIN="https://shop.example")[1]
    status, headers = answer_of(engines[0], "OPTIONS", HTTP_ORIGIN="https://evil.example", **asked)
    assert status == 403 and not [each for each in headers if each.startswith("access-control")]


@own_only
def test_a_page_on_another_port_polls_with_headers_of_its_own(relay, context):
    page = context.new_page()
    with Server(("127.0.0.1", 0), Site) as site:
        site.html = b"<!doctype html><title>a shop</title>"
        page.goto(site.url)
        status = page.evaluate(
            """async (url) => {
                const headers = {Authorization: "Bearer x", baggage: "a=b"};
                return (await fetch(url, {headers, credentials: "include"})).status;
            }""",
            relay.url + AT + "polling",
        )
    assert status == 200
