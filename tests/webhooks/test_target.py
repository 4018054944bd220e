"""A URL gets the events that its filters let through."""

import pytest

from pushrelay.settings.values import hooks
from pushrelay.store.events import new_event
from pushrelay.webhooks.target import Target


def target(text):
    return Target(*hooks(text), "webhook_url", "")


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ("", {"online 42", "join room-1", "leave room-2", "lost room"}),
        ("events=join|leave", {"join room-1", "leave room-2"}),
        ("ids=room-*", {"join room-1", "leave room-2"}),
        ("ids=room|42", {"online 42", "lost room"}),
        ("ids=room-1|4* events=online|leave", {"online 42"}),
    ],
)
def test_filters_choose_by_kind_and_by_destination(filters, wanted):
    events = [("online", "42"), ("join", "room-1"), ("leave", "room-2"), ("lost", "room")]
    hook = target(f"http://127.0.0.1/ {filters}")
    assert {f"{kind} {name}" for kind, name in events if hook.wants(new_event(kind, name, "{}"))} == wanted


def test_the_store_and_the_log_have_no_password_of_a_url():
    hook = target("http://name:password@127.0.0.1/hook.php?key=abc")
    assert hook.shown == "http://127.0.0.1/hook.php" and "password" not in hook.reader and "abc" not in hook.reader


def test_what_pages_send_outlives_a_change_of_request_url():
    first, second = (Target(*hooks(url), "request_url", "") for url in ("http://a.example/", "http://b.example/"))
    assert first.reader == second.reader and first.topic == "sends"
