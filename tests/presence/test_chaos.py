"""A short run of presence_chaos.py: users come and go in every way, and all lists are right at every quiet moment."""

from concurrent.futures import ThreadPoolExecutor

from conftest import own_only
from presence_chaos import options_of, run

pytestmark = own_only


def test_lists_and_events_agree_with_who_is_there(server, tmp_path):
    options = options_of(["--seconds=0.1", "--users=160", "--ping=20", "--no-freezes"])
    with ThreadPoolExecutor() as pool:  # in this thread the browser's event loop runs already, if a test has opened it
        figures = pool.submit(run, tmp_path, options).result()
    assert figures["events"] > 20 and figures["changes"] > 10 and figures["killed"] and figures["watchers"]
