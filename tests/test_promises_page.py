"""What relay.js promises a page: no gap is hidden, and no part of a page harms another."""

# ruff: noqa: F811 (fixtures that are imported)

import json
import re

import pytest
from conftest import wait_for
from test_relay_js import SECRET, fake, page, start  # noqa: F401

from pushrelay.tokens import sign

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


def test_a_page_gets_what_only_a_frame_of_it_was_handed(start_relay, page):
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


def test_each_of_two_connections_in_a_page_gets_what_only_the_other_was_handed(start_relay, page):
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
    """A relay's store is ahead of what it has sent: pushes that are under way still come."""
    page.open(relay.url)
    start(page, fake, {"42": ["e:5", False]})
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
def test_what_is_under_way_does_not_hide_what_a_page_asks_for_again(fake, page, relay, options):
    """A page that holds an id asks for older publications; one that it was sent before that arrives first."""
    page.open(relay.url)
    start(page, fake, {"42": ["e:7", False]})
    fake.positions = None
    page.run(f"() => {{ relay.register('42', {options}); }}")
    fake.waits_for("register", 2)
    for n in (8, 4, 5):
        fake.push(f"e:{n}")
    page.pushed(3)
    fake.replay = [f"e:{n}" for n in range(4, 9)]
    fake.reconnect({"42": ["e:8", True]})
    since = fake.waits_for("register", 4)[-1]["since"]
    assert since == ("acked" if "inbox" in options else {"42": "e:3"}), "the replay was not complete"
    assert page.pushed(8)[3:] == [f"e:{n}" for n in range(4, 9)]
    if "inbox" in options:
        wait_for(lambda: page.run("1") and fake.sent("ack")[-1:] == [{"id": "42", "position": "e:8"}], "the last")


def test_an_inbox_acknowledges_nothing_that_stands_for_older_ones_not_handled_yet(fake, page, relay):
    page.open(relay.url)
    start(page, fake, {"42": ["e:7", False]})
    fake.positions = None
    page.run(
        "() => { window.done = {}; relay.on('push', (data) => new Promise((resolve) => { done[data] = resolve; })); }"
    )
    page.run("() => { relay.register('42', {inbox: true}); }")
    fake.waits_for("register", 2)
    fake.push("e:8")  # was under way
    page.until("'e:8' in done")
    page.run("() => { done['e:8'](); }")
    for n in range(4, 9):
        fake.push(f"e:{n}")
    fake.send('431[{"ok":true,"ids":{"42":{"position":"e:8","recovered":true,"replayed":5}}}]')
    page.until("'e:7' in done")
    page.page.wait_for_timeout(100)  # not waiting for a condition: nothing may be acknowledged
    assert fake.sent("ack") == []
    page.run("() => { for (const resolve of Object.values(done)) resolve(); }")
    assert fake.waits_for("ack", 1)[-1] == {"id": "42", "position": "e:8"}


def test_nothing_comes_after_unregister_and_the_next_register_is_live_from_then(fake, page, relay):
    page.open(relay.url)
    start(page, fake, {"42": ["e:1", False]})
    fake.push("e:2")
    page.pushed(1)
    page.run("() => { relay.unregister('42'); }")
    wait_for(lambda: page.run("1") and "unregister" in fake.got[-1], "the unregister")
    fake.push("e:3")  # was under way
    fake.send('431[{"ok":true}]')
    fake.push("e:4")  # overtaken by the answer
    page.run("() => { relay.on('push', keep('again')); }")
    fake.positions = {"42": ["e:9", False]}
    assert page.run("() => relay.register('42')")["ok"]
    fake.push("e:10")
    page.until("seen.some(([what]) => what === 'again')")
    assert page.pushed(2) == ["e:2", "e:10"] and fake.sent("register")[-1] == {"id": "42"}


def test_what_was_under_way_is_dropped_also_if_the_id_is_registered_again_at_once(fake, page, relay):
    page.open(relay.url)
    start(page, fake, {"42": ["e:1", False]})
    fake.positions = None
    page.run("() => { relay.unregister('42'); relay.register('42').then(keep('answer')); }")
    fake.waits_for("register", 2)
    fake.push("e:2")  # of the registration before
    fake.send('431[{"ok":true}]')
    fake.push("e:6")
    fake.send('432[{"ok":true,"ids":{"42":{"position":"e:5","recovered":false,"replayed":0}}}]')
    page.until("seen.some(([what]) => what === 'answer')")
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


def test_what_was_handled_and_is_replayed_is_acknowledged_again(fake, page, relay):
    """The acknowledgement was on its way as the connection broke."""
    page.open(relay.url)
    start(page, fake, {"42": ["e:0", True]}, "relay.register('42', {inbox: true})")
    fake.push("e:1")
    fake.waits_for("ack", 1)
    fake.replay = ["e:1"]
    fake.reconnect({"42": ["e:1", True]})
    assert fake.waits_for("ack", 2)[1] == {"id": "42", "position": "e:1"} and page.pushed(1) == ["e:1"]


def test_acknowledgements_go_on_while_publications_come(fake, page, relay):
    page.open(relay.url)
    start(page, fake, {"42": ["e:0", True]}, "relay.register('42', {inbox: true})")
    sent = 0
    while len(fake.sent("ack")) < 10 and sent < 2000:  # never 20 ms without one
        fake.push(f"e:{(sent := sent + 1)}")
        page.page.wait_for_timeout(5)
    assert sent < 2000
    wait_for(lambda: page.run("1") and fake.sent("ack")[-1]["position"] == f"e:{sent}", "the last")
    assert len(fake.sent("ack")) < sent


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
    assert "no login" in errors["fails"]["message"] and "2000 ms" in errors["hangs"]["message"]
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


def test_a_new_token_goes_out_although_the_registration_before_has_no_answer(fake, page, relay):
    page.open(relay.url).connect("{reconnectDelay: 10}", ids=None)
    page.run("() => { for (const token of ['old', 'new']) relay.register('a', {token}).then(keep(token)); }")
    fake.waits_for("register", 2)
    fake.send('430[{"ok":false,"error":"token_expired","message":"over"}]')
    fake.send('431[{"ok":true,"ids":{}}]')
    page.until("['old', 'new'].every((token) => seen.some(([what]) => what === token))")
    assert page.seen("error") == [] and [each["token"] for each in fake.sent("register")] == ["old", "new"]


def test_a_registration_that_a_later_one_could_not_replace_stays(fake, page, relay):
    page.open(relay.url).connect("{reconnectDelay: 10}", ids=None)
    page.run("() => { relay.register('a', {token: 'good'}); }")
    fake.waits_for("register", 1)
    fake.send('430[{"ok":true,"ids":{}}]')
    page.run("() => { relay.register('a', {token: 'bad'}).catch(keep('refused')); }")
    fake.waits_for("register", 2)
    fake.send('431[{"ok":false,"error":"invalid_token","message":"no"}]')
    page.until("seen.some(([what]) => what === 'refused')")
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


def test_a_page_that_gives_up_after_some_failures_goes_on_behind_them(fake, page, relay, page_errors):
    page.open(relay.url)
    handler = "(data) => { if (data === 'e:1') throw new Error('poison'); }"
    start(page, fake, {"42": ["e:0", True]}, f"relay.on('push', {handler}).register('42', {{inbox: {{tries: 3}}}})")
    fake.push("e:1")
    fake.push("e:2")
    assert fake.waits_for("ack", 1) == [{"id": "42", "position": "e:2"}]
    errors = [error for [error] in page.seen("error")]
    assert [error["tries"] for error in errors] == [1, 2, 3] and errors[0]["ids"] == ["42"]
    page_errors.clear()


def test_what_a_page_pushes_offline_goes_out_in_order_before_what_its_status_handler_pushes(fake, page, relay):
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


def test_a_page_that_pushes_much_while_offline_is_refused_the_rest_at_once(fake, page, relay):
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
