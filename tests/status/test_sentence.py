"""The one sentence on /status: the most important thing comes first, in plain English with exact figures."""

import re
import time

import pytest
from conftest import ROOT

from pushrelay.status.recorder import Restart
from pushrelay.status.sentence import State, verdict

NOON = time.mktime((2026, 3, 1, 20, 15, 2, 0, 0, -1))
BUSY = State(
    clients=1284,
    websocket=1246,
    lately_clients=7700,
    lately_websocket=7480,
    clients_limit=20_000,
    open_files=1310,
    files_limit=19_712,
    store_bytes=12 << 20,
    store_limit=256 << 20,
    disk_free=41 << 30,
    outbox_bytes=0,
    outbox_limit=256 << 20,
    pushes=138_240,
    pushes_ever=9_821_330,
    publications=145_152,
    nobody=4_147,
)
BACK_AT = time.strftime("20:15 %Z", time.localtime(NOON))
BACK = Restart(NOON, 1.2, True, 1284, 1284, 1284, 0)
LOCKED = "/srv/relay.db: another program holds a lock on the store: stop it (a backup, a database browser)"


def said(**changes):
    found = verdict(BUSY._replace(**changes))
    return found.level, found.code, found.sentence


FINE = [
    ({}, "Ready. 1,284 browsers, 97 % by WebSocket. Every push in the last hour was accepted."),
    ({"websocket": 1284}, "Ready. 1,284 browsers, all by WebSocket. Every push in the last hour was accepted."),
    ({"websocket": 1283}, "Ready. 1,284 browsers, 99 % by WebSocket. Every push in the last hour was accepted."),
    ({"clients": 1, "websocket": 1}, "Ready. 1 browser, by WebSocket. Every push in the last hour was accepted."),
    ({"clients": 1, "websocket": 0}, "Ready. 1 browser, by long polling. Every push in the last hour was accepted."),
    (
        {"clients": 2, "websocket": 0},
        "Ready. 2 browsers, all by long polling. Every push in the last hour was accepted.",
    ),
    ({"clients": 0, "websocket": 0}, "Ready. No browser is connected. Every push in the last hour was accepted."),
    (
        {"nodes": 3},
        "Ready. 1,284 browsers at this node, one of 3, 97 % by WebSocket. Every push in the last hour was accepted.",
    ),
    (
        {"clients": 0, "websocket": 0, "nodes": 2},
        "Ready. No browser is connected at this node, one of 2. Every push in the last hour was accepted.",
    ),
    ({"pushes": 1}, "Ready. 1,284 browsers, 97 % by WebSocket. The only push in the last hour was accepted."),
    ({"pushes": 0}, "Ready. 1,284 browsers, 97 % by WebSocket. No pushes in the last hour."),
    ({"covers": 721}, "Ready. 1,284 browsers, 97 % by WebSocket. Every push in the last 12 minutes was accepted."),
    ({"covers": 42}, "Ready. 1,284 browsers, 97 % by WebSocket. Every push in the last 42 s was accepted."),
    (
        {"pushes": 1199, "refused": 1},
        "Ready. 1,284 browsers, 97 % by WebSocket. 1 of 1,200 pushes in the last hour was refused.",
    ),
    (
        {"pushes": 1198, "refused": 2},
        "Ready. 1,284 browsers, 97 % by WebSocket. 2 of 1,200 pushes in the last hour were refused.",
    ),
    (
        {"pushes": 0, "refused": 1},
        "Ready. 1,284 browsers, 97 % by WebSocket. The only push in the last hour was refused.",
    ),
    (
        {"pushes": 0, "refused": 3},
        "Ready. 1,284 browsers, 97 % by WebSocket. All 3 pushes in the last hour were refused.",
    ),
]


@pytest.mark.parametrize(("changes", "sentence"), FINE)
def test_a_relay_that_is_well_is_described_by_its_browsers_and_pushes(changes, sentence):
    assert said(**changes) == ("ok", "fine", sentence)


TROUBLE = [
    ({"is_draining": True, "reason": "draining"}, "bad", "draining", "The relay is stopping. Its browsers reconnect"),
    ({"reason": LOCKED}, "bad", "store", "Pushes are refused: /srv/relay.db: another program holds a lock on the sto"),
    ({"reason": "Redis is away: start it", "kind": "redis"}, "bad", "redis", "Pushes are refused: Redis is away."),
    ({"failed": 1}, "warn", "failed", "Ready again. The store did not accept 1 push in the last hour."),
    ({"failed": 1732}, "warn", "failed", "Ready again. The store did not accept 1,732 pushes in the last hour."),
    (
        {"backend": (("outbox", "no connection to db:3306: check whether MariaDB is running"), ("webhooks", "x"))},
        "warn",
        "backend",
        "The outbox does not work: no connection to db:3306.",
    ),
    ({"lost": 1}, "warn", "lost", "Once in the last hour, a browser came back and something it had missed"),
    ({"lost": 1200}, "warn", "lost", "1,200 times in the last hour, a browser came back"),
    ({"clients": 16_000, "websocket": 16_000}, "warn", "near_clients", "16,000 of at most 20,000 browsers are con"),
    ({"open_files": 15_770}, "warn", "near_files", "15,770 of at most 19,712 files and connections are open."),
    ({"outbox_bytes": 230 << 20}, "warn", "near_outbox", "230 MiB of at most 256 MiB are waiting for slow browsers"),
    ({"disk_free": 80 << 20}, "warn", "near_disk", "Only 80 MiB is free on the disk of the store."),
    ({"store_bytes": 210 << 20}, "warn", "near_store", "The store uses 210 MiB of 256 MiB (history_bytes)."),
    (
        {"clients": 420, "websocket": 108, "lately_clients": 2500, "lately_websocket": 600},
        "warn",
        "polling",
        "312 of 420 browsers use long polling instead of WebSocket.",
    ),
    ({"nobody": 140_797}, "warn", "nobody", "97 % of the pushes in the last hour reached no browser."),
    ({"nobody": 145_152}, "warn", "nobody", "No push in the last hour reached a browser."),
    (
        {"pushes": 95, "refused": 6},
        "warn",
        "refused",
        "6 pushes in the last hour were refused.",
    ),
]


@pytest.mark.parametrize(("changes", "level", "code", "sentence"), TROUBLE, ids=[each[2] for each in TROUBLE])
def test_trouble_is_named_with_what_to_do(changes, level, code, sentence):
    found = verdict(BUSY._replace(**changes))
    assert (found.level, found.code, found.sentence[: len(sentence)]) == (level, code, sentence)
    assert found.todo.endswith((".", ":")) and found.todo.endswith(":") == bool(found.command)


def test_what_matters_more_comes_first():
    cases = [each for each in TROUBLE if each[2] != "redis"]  # a store is one or the other
    for at, (_, _, code, _) in enumerate(cases):
        together = {}
        for changes, *_ in reversed(cases[at:]):
            together.update(changes)
        assert verdict(BUSY._replace(**together)).code == code


CALM = [
    {"clients": 4, "websocket": 0, "lately_clients": 24},  # too few to tell anything
    {"clients": 420, "websocket": 20, "lately_clients": 420, "lately_websocket": 420},  # they have just come back
    {"publications": 19, "nobody": 19},
    {"publications": 100, "nobody": 89},
    {"pushes": 96, "refused": 4},
    {"clients_limit": None, "open_files": None, "files_limit": None, "store_bytes": None, "disk_free": None},
    {"clients": 15_999, "websocket": 15_999},
]


@pytest.mark.parametrize("changes", CALM, ids=str)
def test_usual_figures_are_not_trouble(changes):
    assert said(**changes)[:2] == ("ok", "fine")


BACKS = [
    (BACK, f"Back after 1.2 s at {BACK_AT}: 1,284 came back, 1,284 recovered, 0 lost."),
    (
        BACK._replace(came_back=1200, recovered=1190),
        f"Back after 1.2 s at {BACK_AT}: 1,200 of 1,284 browsers came back, 1,190 recovered, 0 lost.",
    ),
    (
        BACK._replace(clients_before=1, came_back=0, recovered=0),
        f"Back after 1.2 s at {BACK_AT}: 0 of 1 browser came back, 0 recovered, 0 lost.",
    ),
    (BACK._replace(clients_before=0, came_back=0), f"Back after 1.2 s at {BACK_AT}. Nobody had been connected."),
    (
        BACK._replace(away=0.3, was_stopped=False, clients_before=0),
        f"Back after 1 s at {BACK_AT}. Nobody had been connected.",
    ),
    (BACK._replace(away=1260, clients_before=0), f"Back after 21 minutes at {BACK_AT}. Nobody had been connected."),
]


@pytest.mark.parametrize(("restart", "sentence"), BACKS)
def test_a_restart_is_told_beside_the_sentence(restart, sentence):
    found = verdict(BUSY._replace(restart=restart))
    assert (found.level, found.code, found.more) == ("ok", "restart", sentence)
    assert found.sentence == FINE[0][1]


def test_what_was_lost_in_a_restart_is_a_warning_and_the_restart_is_told():
    found = verdict(BUSY._replace(restart=BACK._replace(recovered=1280, lost=4), lost=4))
    assert (found.level, found.code) == ("warn", "lost")
    assert found.more == f"Back after 1.2 s at {BACK_AT}: 1,284 came back, 1,280 recovered, 4 lost."


def test_before_the_first_push_there_is_a_command_to_try():
    found = verdict(State(curl="curl -d data=hello http://127.0.0.1:8080/push"))
    assert (found.level, found.code) == ("ok", "empty")
    assert found.sentence == "Ready. No browser is connected. No pushes yet."
    assert (found.todo, found.command) == ("Push something:", "curl -d data=hello http://127.0.0.1:8080/push")
    assert verdict(State()).todo == "", "whoever cannot push from where they are gets no command"


def test_a_lock_of_another_program_comes_with_the_command_that_finds_it():
    found = verdict(BUSY._replace(reason=LOCKED, store_path="/srv/relay.db"))
    assert (found.todo, found.command) == (
        "Stop the program that has the file open. This command shows it:",
        "fuser -v /srv/relay.db",
    )
    assert "fuser" not in str(verdict(BUSY._replace(reason=LOCKED))), "strangers do not get the path"


def test_a_path_is_quoted_for_the_shell_and_is_no_lock():
    found = verdict(BUSY._replace(reason=LOCKED, store_path="/srv/my site/relay.db"))
    assert found.command == "fuser -v '/srv/my site/relay.db'"
    full = "/srv/clock/relay.db: the disk is full: free some space, and the relay continues by itself"
    found = verdict(BUSY._replace(reason=full, store_path="/srv/clock/relay.db"))
    assert (found.todo, found.command) == ("Free some space, and the relay continues by itself.", "")


def test_every_part_that_does_not_work_is_named():
    found = verdict(BUSY._replace(backend=(("webhooks", "the relay's log has the reason"), ("spool", "full"))))
    assert found.sentence == "Webhooks do not work: the relay's log has the reason."
    assert (found.more, found.todo) == ("Nor do these work: spool.", "")
    found = verdict(BUSY._replace(backend=(("spool", "no folder /x: create it for both users:  install -d /x"),)))
    assert (found.todo, found.command) == ("Create it for both users:", "install -d /x")


def test_cards_of_the_page_have_the_names_that_sentences_give_them():
    page = (ROOT / "templates" / "status.html").read_text()
    said = " ".join(verdict(BUSY._replace(**changes)).todo for changes, *_ in TROUBLE)
    names = set(re.findall("“(.+?)”", said))
    assert names and all(f">{name}</h2>" in page for name in names)
