"""The proxies through which clients came are counted by their addresses."""

from pushrelay.access.callers import A_SOCKET, Access
from pushrelay.access.proxies_seen import MOST, ProxiesSeen
from pushrelay.settings import Settings
from pushrelay.settings.values import networks


def test_the_number_of_proxies_is_bounded():
    seen = ProxiesSeen()
    for each in range(3 * MOST):
        seen.add(f"192.0.2.{each}")
    seen.add("192.0.2.1")
    assert len(seen.counts()) == MOST and seen.counts()[0] == ("192.0.2.1", 2)


def test_only_clients_that_a_proxy_forwards_count():
    access = Access(Settings(trusted_proxies=networks("127.0.0.1")))
    forwarded = {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "198.51.100.7"}
    assert access.newcomer_address(forwarded) == "198.51.100.7"
    assert access.newcomer_address({"REMOTE_ADDR": "198.51.100.8"}) == "198.51.100.8"
    access.newcomer_address({"REMOTE_ADDR": "203.0.113.9", "HTTP_VIA": "1.1 proxy"})
    access.newcomer_address({"REMOTE_ADDR": "", "HTTP_X_REAL_IP": "198.51.100.7"})
    counts = dict(access.proxies_seen.counts())
    assert counts == {"127.0.0.1": 1, "203.0.113.9": 1, A_SOCKET: 1}
    assert [access.trusts(each) for each in counts] == [True, False, False]
