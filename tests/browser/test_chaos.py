"""Pages of relay.js receive each push once and in order, or `lost`, while everything around them fails."""

import os

from browser_chaos import INCIDENTS, run
from conftest import own_only

SEED = int(os.environ.get("CHAOS_SEED", "1"))


@own_only
def test_in_random_trouble_pages_receive_each_push_once_in_order_or_learn_of_the_loss(server):
    it = run(SEED, incidents=len(INCIDENTS) // 3, seconds=8)
    print(it.report())
    assert not it.violations, it.report()
