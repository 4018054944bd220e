"""relay.js hides no gap from a page, and no part of a page harms another."""

import http.server
import json
import re
import urllib.parse

import pytest
from conftest import ROOT, own_only, wait_for
from pages import Server

from pushrelay.access.tokens import sign
from tests.browser.test_relay_js import SCRIPT, SECRET, start

pytestmark = own_only  # it depends on the script only

HOLD = """<script>
function hold(ids) {
  const relay = Relay.connect(undefined, {reconnectDelay: 10, reconnectDelayMax: 10});
  relay.handed = [];
  relay.told = [];
  relay.on("push", (data) => relay.handed.push(data)).on("status", (status) => relay.told.push(status));
  relay.ready = relay.register(ids);
  return relay;
}
/** From now on this window's connections are lost, and none can be made. */
function cut(relay) {
  window.WebSocket = window.fetch = () => { throw new Error("no network"); };
  relay._wire.end("cut");
}
</script>"""


def site(page, relay, script):
    """A page of a site on another port, and below /frame another one of the same origin."""
    page.site.html = f'<!doctype html><script src="{relay.url}/static/relay.js"></script>{HOLD}{script}'.encode()
    page.page.goto(page.site.url)


def open_registered(page, relay, fake, positions, register="relay.register('42')"):
    """Open a page that reconnects at once and registers with `fake`, which answers with these positions."""
    page.open(relay.url)
    start(page, fake, positions, register)


def test_a_page_receives_what_only_its_frame_has_received(start_relay, page):
    relay = start_relay()
    framed = """<script>
      window.mine = hold("x");
      if (top === self) mine.ready.then(() => { document.body.innerHTML = "<iframe src=/frame></iframe>"; });
    </script><body>"""
    site(page, relay, framed)
    page.until("frames.length === 1 && frames[0].mine && frames[0].mine.status === 'online'")
    page.run("() => frames[0].mine.ready")
    relay.push("x", 1)
    page.until("mine.handed.length === 1 && frames[0].mine.handed.length === 1")
    page.run("() => cut(mine)")
    relay.push("x", 2)
    page.until("frames[0].mine.handed.length === 2")
    page.page.wait_for_timeout(100)  # a frame that stored its position would have done so by now
    page.page.reload()
    page.until("mine.told.includes('recovered') || mine.told.includes('lost')")
    assert page.run("mine.handed") == ["2"]


def test_each_of_two_connections_in_a_page_receives_what_only_the_other_has_received(start_relay, page):
    relay = start_relay()
    site(page, relay, "<script>var a = hold('x'), b; a.ready.then(() => { b = hold(['x', 'y']); });</script>")
    page.until("!!b && b.status === 'online'")
    page.run("() => b.ready")
    relay.push("x", 1)
    page.until("a.handed.length === 1 && b.handed.length === 1")
    page.run("() => cut(a)")
    relay.push("x", 2)
    page.until("b.handed.length === 2")
    page.page.wait_for_timeout(100)  # what is kept for the next page has been stored by now
    page.page.reload()
    page.until("a.told.includes('recovered') && !!b && b.told.includes('recovered')")
    assert page.run("[a.handed, b.handed]") == [["2"], []]
    relay.push("x", 3)
    page.until("a.handed.length === 2 && b.handed.length === 1")


def test_a_connection_that_unregistered_an_id_leaves_it_to_another_one_of_the_page(start_relay, page):
    relay = start_relay()
    site(page, relay, "<script>var a, b; if (!sessionStorage.length) a = hold('x'); else b = hold('x');</script>")
    page.run("() => a.ready")
    page.run("() => a.unregister('x')")
    page.run("() => { b = hold('x'); return b.ready; }")
    relay.push("x", 1)
    page.until("b.handed.length === 1")
    page.run("() => cut(b)")
    relay.push("x", 2)
    page.page.wait_for_timeout(100)  # what is kept for the next page has been stored by now
    page.page.reload()
    page.until("b.handed.length === 1 && b.told.includes('recovered')")
    assert page.run("b.handed") == ["2"]


def test_a_connection_that_is_closed_leaves_its_position_to_the_next_one(start_relay, page):
    relay = start_relay()
    site(page, relay, "<script>var a = hold('x');</script>")
    page.run("() => a.ready")
    relay.push("x", 1)
    page.until("a.handed.length === 1")
    page.run("() => { a.close(); }")
    relay.push("x", 2)
    page.run("() => { window.b = hold('x'); return b.ready; }")
    page.until("b.handed.length === 1 && b.told.includes('recovered')")
    assert page.run("b.handed") == ["2"]


def test_an_answer_never_moves_an_id_past_what_was_handed_over(fake, page, relay):
    """A relay's store is ahead of what it has sent: pushes in transit still arrive."""
    open_registered(page, relay, fake, {"42": ["e:5", False]})
    fake.push("e:6")
    page.pushed(1)
    fake.positions = {"42": ["e:9", True]}
    for register in ("relay.register('42')", "relay.register('42', {since: null})"):
        assert page.run(f"() => {register}")["ok"]
    for n in (7, 8, 9, 9):
        fake.push(f"e:{n}")
    assert page.pushed(4) == ["e:6", "e:7", "e:8", "e:9"]
    fake.reconnect({"42": ["e:20", True]})
    assert fake.waits_for("register", 4)[-1]["since"] == {"42": "e:9"}
    fake.push("e:20")
    assert page.pushed(5)[4:] == ["e:20"]


@pytest.mark.parametrize("options", ["{inbox: true}", "{since: 'e:3'}"])
def test_publications_in_transit_do_not_hide_what_a_page_asks_for_again(fake, page, relay, options):
    """A page that holds an id asks for older publications; one that it was sent before that is still to arrive."""
    open_registered(page, relay, fake, {"42": ["e:7", False]})
    fake.positions = None
    page.run(f"() => {{ relay.register('42', {options}); }}")
    since = fake.waits_for("register", 2)[1]["since"]
    assert since == {"42": "acked" if "inbox" in options else "e:3"}
    fake.push("e:8")  # was under way: the replay has it once more
    fake.respond(1)  # the id is left first
    for n in (4, 5):
        fake.push(f"e:{n}")
    page.pushed(2)
    fake.replay = [f"e:{n}" for n in range(4 if "inbox" in options else 6, 9)]
    fake.reconnect({"42": ["e:8", True]})
    since = fake.waits_for("register", 3)[2]["since"]
    assert since == {"42": "acked" if "inbox" in options else "e:5"}, "the replay was not complete"
    assert page.pushed(5) == [f"e:{n}" for n in range(4, 9)]
    if "inbox" in options:
        wait_for(lambda: page.run("1") and fake.sent("ack")[-1:] == [{"id": "42", "position": "e:8"}], "the last")


def test_the_answer_to_an_earlier_registration_does_not_hide_what_a_later_one_asks_for(fake, page, relay):
    page.open(relay.url).connect(ids=None)
    page.run("() => { relay.register('42'); }")
    fake.waits_for("register", 1)
    page.run("() => { relay.register('42', {since: 'e:3'}); }")
    fake.waits_for("register", 2)
    fake.respond(0, {"42": ["e:9", False]})
    fake.respond(1)  # the id is left before the second registration
    fake.push("e:4")
    fake.respond(2, {"42": ["e:9", True]})
    assert page.pushed(1) == ["e:4"] and not any("lost" in status for status in page.seen("status"))


def test_a_refused_registration_does_not_take_an_id_away_that_the_page_holds(fake, page, relay):
    open_registered(page, relay, fake, {"42": ["e:7", False]}, "relay.register('42', {token: 'good'})")
    fake.positions = None
    page.run("() => { relay.register('42', {token: 'bad', since: 'e:3'}).catch(keep('refused')); }")
    fake.waits_for("register", 2)
    fake.respond(1)
    fake.respond(2, error="invalid_token")
    assert fake.waits_for("register", 3)[2]["token"] == "good"
    fake.push("e:8")
    assert page.pushed(1) == ["e:8"] and len(page.seen("refused")) == 1


def test_nothing_comes_after_unregister_and_the_next_register_is_live_from_then(fake, page, relay):
    open_registered(page, relay, fake, {"42": ["e:1", False]})
    fake.push("e:2")
    page.pushed(1)
    page.run("() => { relay.unregister('42'); }")
    wait_for(lambda: page.run("1") and "unregister" in fake.got[-1], "the unregister")
    fake.push("e:3")  # was under way
    fake.respond(1)
    fake.push("e:4")  # overtaken by the answer
    page.run("() => { relay.on('push', keep('again')); }")
    fake.positions = {"42": ["e:9", False]}
    assert page.run("() => relay.register('42')")["ok"]
    fake.push("e:10")
    page.hears("again")
    assert page.pushed(2) == ["e:2", "e:10"] and fake.sent("register")[-1] == {"id": "42"}


def test_publications_in_transit_are_dropped_even_if_the_id_is_registered_again_at_once(fake, page, relay):
    open_registered(page, relay, fake, {"42": ["e:1", False]})
    fake.positions = None
    page.run("() => { relay.unregister('42'); relay.register('42').then(keep('answer')); }")
    fake.waits_for("register", 2)
    fake.push("e:2")  # it belongs to the registration before
    fake.respond(1)
    fake.push("e:6")
    fake.respond(2, {"42": ["e:5", False]})
    page.hears("answer")
    assert page.pushed(1) == ["e:6"]


def test_unregister_while_offline_does_not_undo_a_register_after_it(start_relay, page):
    relay = start_relay()
    page.open(relay.url).connect("{reconnectDelay: 10, reconnectDelayMax: 100}")
    relay.kill()
    page.until("relay.status !== 'online'")
    assert page.run("() => relay.unregister('42')") == {"ok": True}
    page.run("() => { window.again = relay.register('42'); }")
    relay.start()
    assert page.run("() => again")["ok"]
    assert relay.push("42", "x")["connections"] == 1 and page.pushed(1) == ["x"]


@pytest.mark.parametrize("name", ["__proto__", "constructor", "toString"])
def test_ids_that_javascript_knows_recover_like_any_other(start_relay, page, name):
    relay = start_relay()
    page.open(relay.url).connect("{reconnectDelay: 10, reconnectDelayMax: 100}", json.dumps([name, "42"]))
    relay.push(name, 1)
    page.pushed(1)
    relay.kill()
    page.until("relay.status !== 'online'")
    page.run("() => { window.WebSocket = undefined; window.connects = fetch; }")
    page.run("() => { window.fetch = () => Promise.reject(new Error('not yet')); }")
    relay.start()
    relay.push(name, 2)
    page.run("() => { window.fetch = connects; }")
    page.until("seen.some(([what, status]) => status === 'recovered' || status === 'lost')")
    assert page.pushed(2) == ["1", "2"] and not any("lost" in status for status in page.seen("status"))
    assert page.run(f"() => relay.register({json.dumps([name])}, {{since: {{}}}})")["ok"]


def test_an_acknowledgement_waits_for_its_registration_and_is_not_lost(fake, page, relay):
    page.open(relay.url)
    page.run("() => { window.done = []; window.give = []; window.tokens = 0; }")
    token = "() => tokens++ ? new Promise((resolve) => give.push(resolve)) : 't'"
    handler = "() => new Promise((resolve) => done.push(resolve))"
    register = f"relay.on('push', {handler}).register('42', {{inbox: true, token: {token}}})"
    start(page, fake, {"42": ["e:0", True]}, register)
    fake.push("e:1")
    page.until("done.length === 1")
    fake.send("41")
    page.until("give.length === 1")
    page.run("() => { done[0](); }")
    page.page.wait_for_timeout(100)  # not waiting for a condition: nothing may be sent
    assert fake.sent("ack") == []
    fake.replay = ["e:1"]
    page.run("() => { give[0]('t'); }")
    assert fake.waits_for("ack", 1)[0] == {"id": "42", "position": "e:1"}
    assert page.pushed(1) == ["e:1"] and page.seen("error") == []


def test_a_handled_publication_that_is_replayed_is_acknowledged_again(fake, page, relay):
    """The acknowledgement was in transit when the connection broke."""
    open_registered(page, relay, fake, {"42": ["e:0", True]}, "relay.register('42', {inbox: true})")
    fake.push("e:1")
    fake.waits_for("ack", 1)
    fake.replay = ["e:1"]
    fake.reconnect({"42": ["e:1", True]})
    assert fake.waits_for("ack", 2)[1] == {"id": "42", "position": "e:1"} and page.pushed(1) == ["e:1"]


def test_registering_an_inbox_again_does_not_stop_its_acknowledgements(fake, page, relay):
    page.open(relay.url)
    page.run("() => { window.done = []; }")
    handler = "() => new Promise((resolve) => done.push(resolve))"
    start(page, fake, {"42": ["e:0", True]}, f"relay.on('push', {handler}).register('42', {{inbox: true}})")
    fake.push("e:1")
    page.until("done.length === 1")
    assert page.run("() => relay.register('42', {inbox: {tries: 5}})")["ok"]
    page.run("() => { done[0](); }")
    assert fake.waits_for("ack", 1) == [{"id": "42", "position": "e:1"}]


def test_a_connection_that_was_closed_and_registers_again_keeps_its_position_for_the_next_page(start_relay, page):
    relay = start_relay()
    site(page, relay, "<script>var a = hold('x');</script>")
    page.run("() => a.ready")
    page.run("() => { a.close(); a.connect(); return a.register('x'); }")
    relay.push("x", 1)
    page.until("a.handed.length === 1")
    page.page.goto("about:blank")
    relay.push("x", 2)
    page.page.goto(page.site.url)
    page.until("a.handed.length === 1")
    assert page.run("a.handed") == ["2"]


def test_acknowledgements_continue_while_publications_arrive(fake, page, relay):
    open_registered(page, relay, fake, {"42": ["e:0", True]}, "relay.register('42', {inbox: true})")
    page.run(
        """async () => {
          const acks = [], send = relay._wire.send;
          relay._wire.send = (packet) => {
            if (packet.includes('"ack"')) acks.push(packet);
            send(packet);
          };
          for (let n = 1; n <= 5000 && acks.length < 10; n++) { // never 20 ms without one
            relay._wire._receive(`42["push",{"id":"e:${n}","destination":"42"}]`);
            await new Promise((done) => setTimeout(done, 2));
          }
          window.during = acks.length;
          for (let n = 5001; n <= 6000; n++) relay._wire._receive(`42["push",{"id":"e:${n}","destination":"42"}]`);
        }"""
    )
    wait_for(lambda: page.run("1") and fake.sent("ack")[-1]["position"] == "e:6000", "the last")
    assert page.run("during") == 10 and len(fake.sent("ack")) < 20, "each on its own"


def test_a_token_function_that_fails_harms_no_other_id(start_relay, page):
    relay = start_relay(secret=SECRET)
    page.open(relay.url)
    good = json.dumps(sign({"ids": ["*"]}, SECRET))
    page.run("() => { listen(window.relay = Relay.connect(undefined, {reconnectDelay: 10, timeout: 2000})); }")
    page.run("() => { window.asked = 0; window.bad = true; window.hang = () => new Promise(() => {}); }")
    page.run(f"() => {{ relay.register('hangs', {{token: () => bad ? hang() : {good}}}).then(keep('hangs')); }}")
    failing = f"async () => {{ asked++; if (bad) throw new Error('no login'); return {good}; }}"
    page.run(f"() => {{ relay.register('fails', {{token: {failing}}}).then(keep('fails')); }}")
    assert page.run(f"() => relay.register('works', {{token: {good}}})")["ok"]
    page.until("asked > 3 && seen.filter(([what]) => what === 'error').length === 2")
    assert relay.push("works", 1)["connections"] == 1 and page.pushed(1) == ["1"]
    errors = {error["ids"][0]: error for [error] in page.seen("error")}
    assert {error["error"] for error in errors.values()} == {"token_failed"}
    assert "no login" in errors["fails"]["message"] and "timeout" in errors["hangs"]["message"]
    page.run("() => { bad = false; }")
    page.until("['hangs', 'fails'].every((id) => seen.some(([what]) => what === id))")
    assert page.seen("status") == [["connecting"], ["online"]]


def test_many_calls_to_register_an_id_are_one_registration(fake, page, relay):
    page.open(relay.url)
    fake.positions = {"42": ["e:1", False]}
    page.run("() => { window.relay = Relay.connect(undefined, {reconnectDelay: 10}); window.answers = 0; }")
    many = "() => { for (let i = 0; i < 1500; i++) relay.register('42', {token: %s}).then(() => answers++); }"
    page.run(many % "'t'")
    page.until("answers === 1500")
    assert len(fake.sent("register")) == 1
    page.run(many % "() => 't'")
    page.until("answers === 3000")
    assert len(fake.sent("register")) == 2
    fake.reconnect(fake.positions)
    fake.waits_for("register", 3)
    assert page.run("relay.register('7').then(() => 1)") == 1 and len(fake.sent("register")) == 4


def test_a_new_token_is_sent_although_the_earlier_registration_has_no_answer(fake, page, relay):
    page.open(relay.url).connect("{reconnectDelay: 10}", ids=None)
    page.run("() => { for (const token of ['old', 'new']) relay.register('a', {token}).then(keep(token)); }")
    fake.waits_for("register", 2)
    fake.respond(0)
    fake.respond(1)
    page.until("['old', 'new'].every((token) => seen.some(([what]) => what === token))")
    fake.send("41")
    assert [each["token"] for each in fake.waits_for("register", 3)] == ["old", "new", "new"]


def test_a_registration_that_a_later_one_could_not_replace_stays(fake, page, relay):
    page.open(relay.url).connect("{reconnectDelay: 10}", ids=None)
    page.run("() => { relay.register('a', {token: 'good'}); }")
    fake.waits_for("register", 1)
    fake.respond(0)
    page.run("() => { relay.register('a', {token: 'bad'}).catch(keep('refused')); }")
    fake.waits_for("register", 2)
    fake.respond(1, error="invalid_token")
    page.hears("refused")
    fake.send("41")
    assert fake.waits_for("register", 3)[2]["token"] == "good"


def test_parts_of_a_page_leave_an_id_without_taking_it_from_another(relay, page):
    page.open(relay.url).connect(ids=None)
    page.run(
        "() => { window.first = relay.register('shared'); window.second = relay.register('shared'); return second; }"
    )
    assert page.run("() => first.leave()") == page.run("() => first.leave()") == {"ok": True}
    assert relay.push("shared", 1)["connections"] == 1 and page.pushed(1) == ["1"]
    assert page.run("() => second.leave()") == {"ok": True}
    assert relay.push("shared", 2)["connections"] == 0
    assert page.run("() => relay.register('shared')")["ok"]
    assert page.run("() => second.leave()") == {"ok": True}
    assert relay.push("shared", 3)["connections"] == 1
    page.run("() => { const z = relay.register('z'); z.leave(); z.catch(() => 0); }")  # as an effect that runs twice
    assert page.run("() => relay.register('z')")["ok"] and relay.push("z", 1)["connections"] == 1


def test_a_page_that_gives_up_after_some_failures_continues_after_them(fake, page, relay, page_errors):
    handler = "(data) => { if (data === 'e:1') throw new Error('poison'); }"
    register = f"relay.on('push', {handler}).register('42', {{inbox: {{tries: 3}}}})"
    open_registered(page, relay, fake, {"42": ["e:0", True]}, register)
    fake.push("e:1")
    fake.push("e:2")
    wait_for(lambda: page.run("1") and fake.sent("ack")[-1:] == [{"id": "42", "position": "e:2"}], "the second")
    errors = [error for [error] in page.seen("error")]
    assert [error["tries"] for error in errors] == [1, 2, 3] and errors[0]["ids"] == ["42"]
    page_errors.clear()


def test_pushes_made_offline_are_sent_in_order_before_those_of_the_status_handler(fake, page, relay):
    page.open(relay.url)
    page.run(
        """() => {
          window.relay = Relay.connect(undefined, {reconnectDelay: 10});
          relay.register("42");
          for (const n of [1, 2]) relay.push("a", n);
          relay.on("status", (status) => status === "online" && relay.push("a", 3));
        }"""
    )
    assert [message["data"] for message in fake.waits_for("push", 3)] == [1, 2, 3]
    sent = [re.search(r'\["(\w+)"', message)[1] for message in fake.got if message.startswith("42")]
    assert sent == ["register", "push", "push", "push"]


def test_a_page_that_pushes_more_than_100_times_offline_is_refused_the_rest_at_once(fake, page, relay):
    page.open(relay.url)
    codes = page.run(
        """() => {
          window.relay = Relay.connect();
          const code = (promise) => promise.then(() => "ok", (error) => error.code);
          const pushes = [...Array(3000).keys()].map((n) => code(relay.push("a", n)));
          return Promise.all(pushes.slice(100));
        }"""
    )
    assert codes == ["offline"] * 2900
    assert [message["data"] for message in fake.waits_for("push", 100)] == list(range(100))


def test_a_push_that_gets_no_answer_is_rejected_after_the_timeout(fake, page, relay):
    page.open(relay.url).connect(ids=None)
    page.run("() => { relay._options.timeout = 300; }")
    assert page.run("() => relay.push('a', 1).catch(({code}) => code)") == "timeout"
    assert len(fake.sockets) == 1 and page.run("relay.status") == "online"


# The network, the page's life cycle, and what a page learns about them.

HIDE = """
let isHidden = false;
Object.defineProperty(document, "hidden", {get: () => isHidden});
function hide(value) {
  isHidden = value;
  document.dispatchEvent(new Event("visibilitychange"));
}
"""
POLLING = '{transports: ["polling"], rest: 0.1, reconnectDelay: 10}'


def test_a_hidden_page_that_polls_rests_and_misses_nothing(start_relay, page):
    relay = start_relay()
    page.open(relay.url, before=HIDE).connect(POLLING)
    page.run("() => hide(true)")
    page.until("relay.status === 'resting'")
    wait_for(lambda: relay.push("42", 1)["connections"] == 0, "the server to know")
    page.run("() => { dispatchEvent(new Event('online')); }")
    assert page.run("relay.status") == "resting"
    page.run("() => hide(false)")
    page.hears("status", "recovered")
    relay.push("42", 2)
    page.until("seen.some(([what, data]) => what === 'push' && data === '2')")
    assert page.pushed(2)[-2:] == ["1", "2"]
    page.run("() => { relay.register('mail', {inbox: true}); hide(true); }")
    page.page.wait_for_timeout(500)  # not waiting for a condition: a page with an inbox goes on
    assert page.run("relay.status") == "online"


def test_a_hidden_page_with_websocket_rests_only_if_it_asks_to(relay, page):
    page.open(relay.url, before=HIDE).connect("{rest: 0.1}")
    page.run("() => { window.kept = Relay.connect(); return kept.register('kept'); }")
    page.run("() => hide(true)")
    page.until("relay.status === 'resting'")
    assert page.run("kept.status") == "online"
    page.run("() => { relay.register('later').then(keep('answer')); }")  # needs the connection
    page.hears("answer")


def test_any_number_of_polling_pages_load_and_three_poll_at_a_time(start_relay, page, context):
    relay = start_relay()
    page.open(relay.url, before=HIDE)
    pages = []
    for n in range(8):  # a browser has six connections to a host
        for each in pages[-1:]:
            each.evaluate("hide(true)")
        pages.append(page.page if n == 0 else context.new_page())
        if n:
            pages[-1].goto(page.site.url)
        pages[-1].evaluate("window.relay = listen(Relay.connect(undefined, {transports: ['polling']}))")
        pages[-1].evaluate("() => relay.register('tab')")
    assert relay.push("tab", 1)["connections"] <= 3
    for each in (pages[-1], pages[0], pages[3]):
        pages[-1].evaluate("hide(true)")
        each.evaluate("hide(false)")
        each.wait_for_function("seen.some(([what, data]) => what === 'push' && data === '1')")
        each.evaluate("hide(true)")
    assert all(each.evaluate("!seen.some(([what]) => what === 'error')") for each in pages)


def test_a_page_that_polls_returns_to_websocket_and_misses_nothing(start_relay, page):
    relay = start_relay(history_size=10_000)
    page.open(relay.url, before="window.Real = WebSocket; window.WebSocket = undefined;")
    page.connect("{probeDelay: 200, reconnectDelay: 1e8, reconnectDelayMax: 1e8}")
    assert page.run("relay.transport") == "polling"
    count = 0

    def push():
        nonlocal count
        relay.push("42", count)
        count += 1
        return page.run("relay.transport") == "websocket"

    for _ in range(10):
        push()
    page.run("() => { window.WebSocket = Real; }")
    wait_for(push, "WebSocket")
    push()
    assert page.pushed(count) == [str(n) for n in range(count)]
    assert not any("offline" in status or "lost" in status for status in page.seen("status"))


def test_a_page_whose_browser_goes_offline_is_offline_at_once(start_relay, page):
    relay = start_relay()
    page.open(relay.url).connect("{reconnectDelay: 1e8, reconnectDelayMax: 1e8}")
    page.run("() => { dispatchEvent(new Event('offline')); }")
    assert page.run("relay.status") == "offline"
    assert page.seen("status")[-1][1]["reason"] == "offline"
    page.run("() => { dispatchEvent(new Event('online')); }")
    page.until("relay.status === 'online'")


def test_switching_tabs_during_an_outage_causes_no_storm_of_requests(start_relay, page):
    relay = start_relay()
    page.open(relay.url, before=HIDE).connect("{reconnectDelay: 1e8, reconnectDelayMax: 1e8}")
    relay.kill()
    page.until("relay.status === 'offline'")
    page.run(
        """async () => {
          for (let n = 0; n < 20; n++) {
            hide(n % 2 === 0);
            await new Promise((done) => setTimeout(done, 20));
          }
        }"""
    )
    page.page.wait_for_timeout(500)
    assert sum(status == ["connecting"] for status in page.seen("status")) <= 4


def test_a_policy_without_websocket_means_polling_at_once_and_a_line_on_the_console(relay, page):
    lines = []
    page.page.on("console", lambda message: lines.append(message.text))
    policy = f'<meta http-equiv="Content-Security-Policy" content="connect-src {relay.url}">'
    page.site.html = f'<!doctype html>{policy}<script src="{relay.url}/static/relay.js"></script>'.encode()
    page.page.goto(page.site.url)
    assert page.run("() => { window.relay = Relay.connect(undefined, {timeout: 1e8}); return relay.register('42'); }")[
        "ok"
    ]
    assert page.run("relay.transport") == "polling"
    ours = [line for line in lines if line.startswith("relay:")]
    assert len(ours) == 1 and "connect-src" in ours[0] and relay.url.replace("http", "ws") in ours[0]


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """Servers that are not a relay, and a relay that is full."""

    def do_GET(self):
        status, headers, body = self.server.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Access-Control-Allow-Origin", self.headers.get("Origin") or "*")
        self.send_header("Access-Control-Allow-Credentials", "true")
        self.send_header("Access-Control-Expose-Headers", "Retry-After")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_a_page_gets_the_reason_once_why_it_cannot_connect(relay, page):
    lines = []
    page.page.on("console", lambda message: lines.append(message.text))
    page.open(relay.url)
    full = {"error": "too_many_connections", "message": "the relay is full: see max_connections"}
    answers = {
        "nothing": ("no_relay", None, ""),
        "a website": ("no_relay", 404, ""),
        "a full relay": (full["error"], 503, full["message"]),
    }
    with Server(("127.0.0.1", 0), Elsewhere) as server:
        for kind, (error, status, message) in answers.items():
            url = server.url if status else "http://127.0.0.1:1"
            body = json.dumps(full).encode() if message else b"<h1>not here</h1>"
            server.answer = (status, {"Retry-After": "100"} if message else {}, body)
            page.run(f"() => {{ seen = []; window.relay = listen(Relay.connect('{url}', {{reconnectDelay: 1}})); }}")
            page.until(f"seen.filter(([what, status]) => status === 'offline').length >= {1 if message else 4}")
            page.run("() => { relay.close(); }")
            [[event]] = page.seen("error")
            assert event["error"] == error and event.get("status") == status, kind
            assert event["url"].startswith(url) and message in event["message"]
            assert message or event["message"].endswith(f": python relay.py doctor {url.rstrip('/')}/")
            why = page.seen("status")[1][1]
            assert why["reason"] and (why["retryIn"] >= 100_000) == bool(message)
    assert sum(line.startswith("relay:") for line in lines) == 3


def test_a_refused_page_gets_the_reason(fake, page, relay):
    data = {"error": "origin_not_allowed", "message": "see the setting origins"}
    fake.answer = "44" + json.dumps({"message": data["message"], "data": data})
    page.open(relay.url).run("() => { window.relay = listen(Relay.connect(undefined, {reconnectDelay: 10})); }")
    fake.connected(3)
    [[event]] = page.seen("error")
    assert event["error"] == data["error"] and event["message"] == data["message"] and event["url"]


def test_polling_sends_many_packets_in_few_posts_one_after_the_other(relay, page):
    page.open(relay.url)
    page.run(
        """() => {
          const real = fetch;
          window.posts = window.active = window.most = 0;
          window.fetch = async (url, options) => {
            if (options.method !== "POST") return real(url, options);
            posts++;
            most = Math.max(most, ++active);
            await new Promise((done) => setTimeout(done, 50));
            return real(url, options).finally(() => active--);
          };
        }"""
    )
    page.connect(POLLING, ids=None)
    answers = page.run("() => Promise.all([...Array(40).keys()].map((n) => relay.register(`many-${n}`)))")
    assert len(answers) == 40 and page.run("posts") < 8 and page.run("most") == 1


def test_a_polling_batch_is_not_larger_than_the_server_accepts(start_relay, page):
    relay = start_relay(socket_push="yes")
    page.open(relay.url).connect(POLLING)
    page.run("() => { window.text = 'ä'.repeat(20000); }")
    answers = page.run("() => Promise.all([...Array(20).keys()].map(() => relay.push('other', text)))")
    assert [answer["ok"] for answer in answers] == [True] * 20


def test_a_bundle_or_module_without_a_url_is_a_clear_error(relay, page):
    page.open(relay.url)
    page.page.add_script_tag(content=SCRIPT.read_text(), type="module")
    for attempt in ("Relay.connect()", "io.connect()"):
        page.page.add_script_tag(content=SCRIPT.read_text().replace("scope.io ||=", "scope.io ="))
        message = page.run(f"() => {{ try {{ {attempt}; }} catch (error) {{ return error.message; }} }}")
        assert "Use Relay.connect(" in message
    assert page.run(f"() => Relay.connect('{relay.url}').register('42')")["ok"]


def test_a_path_belongs_to_the_site_even_in_a_frame_without_an_address(relay, page):
    page.open(relay.url)
    inner = f"<script src='{relay.url}/static/relay.js'></script><script>var r = Relay.connect('/relay');</script>"
    page.run("() => { document.body.innerHTML = '<iframe></iframe>'; }")
    page.run(f"() => {{ frames[0].frameElement.srcdoc = {json.dumps(inner)}; }}")
    page.until("!!frames[0].r")
    assert page.run("frames[0].r._url") == page.site.url + "/relay/socket.io/"


def test_a_burst_is_stored_in_a_few_writes(relay, page):
    page.open(relay.url).connect()
    page.run(
        """() => {
          const real = Storage.prototype.setItem;
          window.writes = 0;
          Storage.prototype.setItem = function (...args) { writes++; real.apply(this, args); };
          for (let n = 1; n <= 500; n++) relay._wire._receive(`42["push",{"id":"x:${n}","destination":"42"}]`);
          dispatchEvent(new Event("pagehide"));
        }"""
    )
    assert page.run("writes") <= 2
    assert ["42", "x:500"] in json.loads(page.run("sessionStorage.getItem(relay._url)"))


@pytest.mark.parametrize("random", [0.5, 0.25])
def test_a_server_that_ends_connections_is_asked_again_after_random_and_growing_waits(fake, page, relay, random):
    page.open(relay.url, before=f"Math.random = () => {random};")
    fake.positions = {}

    def throw_out(message, receive=fake.receive):
        receive(message)
        if message == "40":
            fake.send("41")

    fake.receive = throw_out
    page.run("() => { listen(window.relay = Relay.connect(undefined, {reconnectDelay: 8})); }")
    page.until("seen.filter(([what, status]) => status === 'offline').length >= 5")
    waits = [why[1]["retryIn"] for why in page.seen("status") if why[0] == "offline"]
    assert waits[:5] == [random * wait for wait in (8, 16, 32, 64, 128)]


def test_io_has_what_old_pages_use(start_relay, page):
    relay = start_relay()
    page.open(relay.url)
    answer = page.run(
        """async () => {
          window.socket = io({reconnectDelay: 10, autoConnect: false});
          const before = socket.active;
          socket.onAny(keep("any")).on("push", keep("push")).io.on("reconnect", keep("reconnect"));
          socket.connect();
          return [before, socket.active, (await socket.emitWithAck("register", {id: "io"})).ok];
        }"""
    )
    assert answer == [False, True, True]
    relay.push("io", 1)
    assert page.pushed(1)[0]["data"] == "1" and page.seen("any")[0][0] == "push"
    page.run("() => { socket.offAny().removeAllListeners('push').on('push', keep('other')); }")
    relay.kill()
    relay.start()
    page.hears("reconnect")
    wait_for(lambda: relay.push("io", 2)["connections"] == 1, "the registration")
    page.hears("other")
    assert len(page.seen("any")) == len(page.seen("push")) == 1


OLD_PAGE = """async () => {
  const [address] = %s, f = () => {}, g = () => {};
  const first = (subscribe) => new Promise((done) => subscribe((...args) => done(args)));
  const socket = io(address, {transports: ["websocket"], forceNew: true});
  await first((done) => socket.on("connect", done));
  const idle = io(address, {autoConnect: false, forceNew: true});
  const out = {states: [socket, idle].map((it) => [it.connected, it.disconnected, it.active, typeof it.id])};
  out.chain = ["on", "once", "off", "removeListener"].map((it) => socket[it]("a", f) === socket);
  out.chain.push(socket.onAny(f) === socket, socket.offAny(f) === socket, socket.removeAllListeners("a") === socket);
  out.chain.push(socket.open() === socket, socket.connect() === socket, socket.emit("x") === socket);
  const called = [];
  const answer = () => first((done) => socket.emit("nobody", 1, done)).then(([body]) => body.error);
  idle.on("connect", () => called.push("first")).on("connect", g).removeListener("connect", g);
  idle.on("disconnect", () => called.push("removed")).removeAllListeners("disconnect");
  await first((done) => idle.on("connect", done).open());
  out.called = called;
  out.acks = [await answer(), (await socket.emitWithAck("nobody")).error];
  socket.io.on("reconnect", f).once("reconnect", g);
  socket.io.off("reconnect", f).removeListener("reconnect", g).removeAllListeners("reconnect");
  out.ended = [idle.disconnect() === idle, socket.close() === socket, socket.disconnected, socket.active];
  return out;
}"""
OFFICIAL = (ROOT / "tests/node_modules/socket.io-client/dist/socket.io.min.js").read_text()


def test_a_page_for_socketio_client_gets_the_same_from_io_as_from_the_official_one(relay, page):
    url = urllib.parse.urlsplit(relay.url)
    for address in (relay.url, f"{url.hostname}:{url.port}", f":{url.port}", f"//{url.netloc}", f"ws://{url.netloc}"):
        program = OLD_PAGE % json.dumps([address])
        ours = page.open(relay.url).run(program)
        assert ours == page.open(relay.url, before=OFFICIAL).run(program), address
        if address != relay.url:  # once is enough for all but the address
            continue
        assert all(ours["chain"]) and ours["acks"] == ["unknown_event"] * 2 and ours["called"] == ["first"]
