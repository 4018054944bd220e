"""A short run of presence_chaos.py: users come and go in every way, and all lists are right at every quiet moment."""

from conftest import own_only
from presence_chaos import options_of, run

pytestmark = own_only


def test_lists_and_events_agree_with_who_is_there(server, tmp_path):
    figures = run(tmp_path, options_of(["--seconds=0.1", "--users=160", "--ping=20", "--no-freezes"]))
    assert figures["events"] > 20 and figures["changes"] > 10 and figures["killed"] and figures["watchers"]
