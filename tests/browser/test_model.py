"""Random histories against a simple reference, which knows what the handlers of each page must have received.

Every page that registered an id before a publication, or that comes back, receives the publication once and in order,
or gets `lost`. The histories are the same in each run; `MODEL_HISTORIES=10000 pytest tests/browser/test_model.py` runs
more, and others each time.
"""

import os
import shutil
import subprocess
import time

from conftest import ROOT, need, own_only
from desk import SECRET, Desk
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from pushrelay.access import tokens
from pushrelay.register import registrations
from pushrelay.settings import Settings

IS_SEARCH = "MODEL_HISTORIES" in os.environ
HISTORIES = int(os.environ.get("MODEL_HISTORIES", "200"))
SHRINK = "MODEL_SHRINK" in os.environ  # find the shortest history that fails, which may take minutes
COOKIE = "0123456789abcdef0123456789"
KEPT = 6  # publications that the history of a destination keeps
PAGES = (0, 1)

pages = st.sampled_from(PAGES)


class Clock:
    """Replaces the module `time` in the code that checks when rights expire."""

    def __init__(self):
        self.now = 1_700_000_000.0

    def time(self):
        return self.now


class Page:
    """A page that trusts the relay: it uses the positions that it gets, and ignores what is not later."""

    def __init__(self, number):
        self.number = number
        self.sid = None
        self.lives = 0
        self.read = 0  # how much of its socket's wire it has read
        self.last = {}  # id: the last offset that it got in an answer or a publication
        self.seen = {}  # id: the offsets that its handlers received
        self.since = {}  # id: everything later must arrive
        self.held = set()  # ids whose registration was answered on this connection
        self.pending = []  # requests without an answer, in order: {id: since} for register, a name for unregister

    @property
    def asked(self):
        """Return the registrations without an answer."""
        return [each for each in self.pending if isinstance(each, dict)]

    @property
    def leaving(self):
        """Return the ids that are being unregistered."""
        return [each for each in self.pending if isinstance(each, str)]


class Publication:
    def __init__(self, offset, fleeting, skipped):
        self.offset = offset
        self.fleeting = fleeting
        self.skipped = skipped  # the sid that must not receive it
        self.live = set()  # (page, id) that were registered when it was handed out


class Histories(RuleBasedStateMachine):
    url = "memory:"
    count = 0

    @initialize(guarded=st.booleans())
    def start(self, guarded):
        Histories.count += 1
        self.clock = registrations.time = tokens.time = Clock()
        self.guarded = guarded  # then `me` is an id as well
        rules = {"secret": (SECRET,), "id_cookie": "PHPSESSID"} if guarded else {}
        self.desk = Desk(self.url, Settings(**rules), history_size=KEPT)
        self.names = ["a", "b", "me"] if guarded else ["a", "b"]
        self.pages = [Page(number) for number in PAGES]
        self.published = {COOKIE if name == "me" else name: [] for name in self.names}

    def teardown(self):
        if not hasattr(self, "desk"):
            return
        self.come_to_rest()
        for page in self.pages:
            for id_ in page.since:
                self.check(page, id_)
        assert self.desk.live_queues() == [] and self.desk.registrations._in_progress == {}
        self.desk.close()

    # The events.

    @rule(count=st.integers(1, 4), kinds=st.data())
    def store(self, count, kinds):
        """Store a batch without handing it out."""
        for _ in range(count):
            destination = kinds.draw(st.sampled_from(list(self.published)))
            fleeting, but = kinds.draw(st.sampled_from([(False, None)] * 6 + [(True, None), (False, 0), (False, 1)]))
            self.publish(destination, fleeting, None if but is None else self.pages[but].sid)

    def publish(self, destination, fleeting=False, skip_sid=None):
        [position] = self.desk.store(destination, "x", ttl=0 if fleeting else None, skip_sid=skip_sid)
        self.published[destination].append(Publication(offset_of(position), fleeting, skip_sid))

    @rule()
    def hand_out(self):
        self.note_who_is_live()
        self.desk.hand_out()
        self.listen()

    @rule(which=st.integers(0, 2), count=st.integers(1, 9))
    def push(self, which, count):
        destination = list(self.published)[which % len(self.published)]
        for _ in range(count):
            self.publish(destination)
        self.hand_out()

    @rule(number=pages, names=st.integers(1, 6), forget=st.sampled_from([False, False, False, True]))
    def register(self, number, names, forget):
        """Register one id or two, registered or not, from the page's position, or from now on."""
        page = self.connected(number)
        chosen = [name for bit, name in enumerate(self.names) if names >> bit & 1] or self.names[:1]
        self.send_register(page, chosen, {} if forget else page.last)

    @rule(number=pages, back=st.integers(1, 4))
    def ask_again(self, number, back):
        """Register ids again, from an earlier position."""
        page = self.connected(number)
        for name in page.held - {name for asked in page.asked for name in asked}:
            if page.last[name] - back >= page.since[name]:
                return self.send_register(page, [name], {name: page.last[name] - back})

    @rule(number=pages, room=st.integers(0, 3))
    def become_slow(self, number, room):
        self.desk.sockets.space[self.connected(number).sid] = room

    @rule(number=pages, room=st.sampled_from([None, 1, 2, 5]))
    def take(self, number, room):
        self.note_who_is_live()
        self.desk.sockets.read(self.connected(number).sid, room)
        self.listen()

    @rule(number=pages, bit=st.integers(0, 2), how=st.sampled_from(["unregister", "disconnect", "close", "expire"]))
    def leave(self, number, bit, how):
        page, name = self.pages[number], self.names[bit % len(self.names)]
        self.note_who_is_live()
        if how == "close":
            self.desk.registrations.close([COOKIE if name == "me" else name])
        elif how == "expire" and self.guarded:
            self.clock.now += 100
            self.desk.registrations.each_second()
        elif page.sid is not None and how == "unregister":
            page.pending.append(name)
            self.desk.emit(page.sid, "unregister", id=name)
        elif page.sid is not None and how == "disconnect":
            sid = page.sid
            self.gone(page)
            self.desk.leave(sid)
        self.listen()

    # The page's side.

    def connected(self, number):
        page = self.pages[number]
        if page.sid is None:
            page.lives += 1
            page.sid, page.read = f"sid-{number}-{page.lives}", 0
            self.desk.connect(page.sid, f"PHPSESSID={COOKIE}")
        return page

    def send_register(self, page, names, since):
        self.note_who_is_live()
        page.pending.append({name: since.get(name) for name in names})
        positions = {name: self.shown(name, offset) for name, offset in since.items()}
        token = tokens.sign({"ids": ["a", "b"], "exp": self.clock.now + 300}, SECRET) if self.guarded else None
        self.desk.emit(page.sid, "register", id=list(names), since=positions, **({"token": token} if token else {}))
        self.listen()

    def shown(self, name, offset):
        return registrations.Subscription.shown_position(self.seat(name), self.desk.since(offset))

    def seat(self, name):
        from pushrelay.register.subscription import own_subscription, room_of

        return own_subscription(COOKIE) if name == "me" else registrations.Subscription(name, name, room_of(name))

    def gone(self, page):
        """End the connection. The page registers the same ids on the next one."""
        page.sid = None
        page.held.clear()
        for name in page.leaving:
            self.forget(page, name)
        page.pending.clear()

    def forget(self, page, name):
        page.held.discard(name)
        for of_page in (page.last, page.seen, page.since):
            of_page.pop(name, None)

    def listen(self):
        """Let every page read what arrived for it."""
        for page in self.pages:
            if page.sid is None:
                continue
            wire = self.desk.sockets.wire[page.sid]
            while page.sid is not None and page.read < len(wire):
                event, *message = wire[page.read]
                page.read += 1
                getattr(self, f"hear_{event}")(page, *message)

    def hear_push(self, page, message):
        name, offset = message["destination"], offset_of(message["id"])
        is_asked = any(name in each for each in page.asked)
        assert name in page.held or is_asked, f"{name} is not held, and {offset} came"
        if name not in page.last:
            return  # before the answer to the first register: it is live from the position in that
        assert is_asked or offset > page.last[name], f"{offset} of {name} came twice"
        if offset > page.last[name]:
            page.last[name] = offset
            page.seen[name].append(offset)

    def hear_answer(self, page, answer):
        asked = page.pending.pop(0)
        if isinstance(asked, str):
            self.forget(page, asked)
        elif not answer["ok"]:
            assert answer["error"] == "token_expired", answer
        else:
            for name, told in answer["ids"].items():
                self.hear_registered(page, name, asked[name], told)

    def hear_registered(self, page, name, since, told):
        """Handle the answer to a registration, with the position from which the page receives everything."""
        offset, is_new = offset_of(told["position"]), since is None and name not in page.held
        if since is not None and not told["recovered"]:
            published = self.published[COOKIE if name == "me" else name]
            kept = [each for each in published if each.offset > since and not each.fleeting]
            assert len(kept) > KEPT, f"{name} is reported as lost and is not"
            is_new = True
        if is_new:
            page.since[name], page.seen[name] = offset, []
        page.held.add(name)
        page.last[name] = offset

    def hear_relay_error(self, page, message):
        for name in message["ids"]:
            page.held.discard(name)

    def hear_disconnect(self, page):
        self.gone(page)

    def hear_cut(self, page):
        raise AssertionError("nothing broke off")

    # The reference.

    def note_who_is_live(self):
        """Note what may be handed out now: connected pages must receive it, even if it is not kept, or not for all."""
        waiting = {item.publication for stripe in self.desk.broker._dispatcher.stripes for item in stripe.queue}
        waiting = {(publication.destination, publication.position) for publication in waiting}
        for name in self.names:
            destination = COOKIE if name == "me" else name
            for each in self.published[destination]:
                for page in self.pages if (destination, self.desk.since(each.offset)) in waiting else ():
                    is_busy = name in page.leaving or any(name in asked for asked in page.asked)
                    is_live = name in page.held and not is_busy and page.sid != each.skipped
                    (each.live.add if is_live else each.live.discard)((page.number, name))

    def come_to_rest(self):
        """Hand out everything, and let every page reconnect and register its ids."""
        self.hand_out()
        for page in self.pages:
            if page.sid is not None:
                self.desk.sockets.read(page.sid)
        self.listen()
        for page in self.pages:
            self.connected(page.number)
            away = [name for name in page.since if name not in page.held]
            if away:
                self.send_register(page, away, {name: page.last[name] for name in away})

    def check(self, page, name):
        published = self.published[COOKIE if name == "me" else name]
        later = [each for each in published if each.offset > page.since[name]]
        seen = page.seen[name]
        assert seen == sorted(set(seen)), f"page {page.number} saw {name} out of order or twice: {seen}"
        is_mine = (page.number, name)
        must = {each.offset for each in later if (each.skipped is None and not each.fleeting) or is_mine in each.live}
        assert must <= set(seen), f"page {page.number} missed of {name}: {sorted(must - set(seen))}, saw {seen}"
        assert set(seen) <= {each.offset for each in later}


def offset_of(position):
    return int(position.rpartition(":")[2])


def test_every_page_receives_each_accepted_push_once_in_order_or_gets_lost(monkeypatch):
    for module in (registrations, tokens):
        monkeypatch.setattr(module, "time", module.time)  # is put back
    Histories.count = 0
    try:
        run_histories()
    finally:
        print(f"histories: {Histories.count}")


def run_histories():
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=HISTORIES,
            stateful_step_count=40,
            deadline=None,
            database=None,
            derandomize=not IS_SEARCH,
            report_multiple_bugs=False,
            phases=[Phase.generate, Phase.shrink] if SHRINK else [Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


@own_only
def test_every_handler_of_pages_and_frames_receives_each_accepted_push_once_in_order(start_relay):
    node, url = shutil.which("node"), start_relay(broker="memory:", history_size=1000, max_event_rate=100_000).url
    need(node, "Node.js (apt-get install nodejs)")
    seed = os.environ.get("MODEL_SEED", str(time.time_ns() % 1_000_000) if IS_SEARCH else "1")
    command = [node, "histories.js", url, str(ROOT / "static" / "relay.js"), seed, str(HISTORIES)]
    done = subprocess.run(command, cwd=ROOT / "tests", capture_output=True, text=True, timeout=120 + HISTORIES)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
