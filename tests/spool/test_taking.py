"""Files of the spool are published once and in order, whatever fails between the store and the folder."""

import json
import math
import os
import time

import pytest

from pushrelay.errors import NotKnown, StoreError
from pushrelay.push.counts import PushCounts
from pushrelay.settings import Settings
from pushrelay.spool import taking as spool_taking
from pushrelay.spool.folder import Folder, FolderTrouble
from pushrelay.spool.taking import Taking
from pushrelay.store import open_broker
from pushrelay.store.publication import Mark
from pushrelay.store.stripe import Pending


class Site:
    """A folder, a broker, and what was delivered. `now` is the clock of the broker."""

    def __init__(self, url, path):
        path.mkdir(mode=0o700)
        self.url, self.path = url, path
        self.now = time.time()
        self.delivered = []
        self.warnings = []
        self.broker = None
        self.is_over = False
        self.start()

    def start(self):
        """Start the relay's part of it, as after a kill: what was in memory is gone."""
        if self.broker is None or not self.url.startswith("memory"):
            if self.broker is not None:
                self.broker.close()
            self.broker = open_broker(self.url, self.deliver, clock=lambda: self.now)
            self.broker.start()
        self.folder = Folder(str(self.path))
        self.folder.hold(0)
        self.counts = PushCounts()
        self.taking = Taking(self.folder, self.broker, self.counts, self.warnings.append, lambda: self.is_over)

    def deliver(self, publication, skip_sid):
        self.delivered.append((publication.destination, json.loads(publication.text)))
        return 1

    def put(self, name, body):
        (self.path / f"{name}.json").write_text(body if isinstance(body, str) else json.dumps(body))

    def push(self, number, destination="a", **fields):
        self.put(f"{number:06}", {"destination": destination, "data": number, **fields})

    def take(self):
        return self.taking.take(Settings())

    def close(self):
        self.folder.release()
        self.broker.close()

    @property
    def numbers(self):
        return [data for _, data in self.delivered]

    @property
    def waiting(self):
        return sorted(name for name in os.listdir(self.path) if name.endswith(".json"))


@pytest.fixture(params=["memory:", "sqlite"])
def site(request, tmp_path):
    site = Site("memory:" if request.param == "memory:" else f"sqlite:{tmp_path}/relay.db", tmp_path / "spool")
    yield site
    site.close()


def test_files_are_published_in_the_order_of_their_names_and_removed(site):
    for number in (3, 1, 2):
        site.push(number)
    site.put("000004", [{"destination": "b", "data": 4}, {"destination": ["a", "b"], "data": 5}])
    assert site.take() == 4 and site.take() == 0
    assert [data for name, data in site.delivered if name == "a"] == [1, 2, 3, 5]
    assert [data for name, data in site.delivered if name == "b"] == [4, 5]
    assert not site.waiting and site.taking.files.counts() == {"taken": 4, "refused": 0}


def test_large_numbers_of_files_are_published_in_several_transactions(site, monkeypatch):
    batches = []
    publish = site.broker.publish_pending_marked
    monkeypatch.setattr(
        site.broker, "publish_pending_marked", lambda items, mark: (batches.append(len(items)), publish(items, mark))
    )
    for number in range(300):
        site.push(number)
    site.put("000300", [{"destination": "a", "data": 300 + n} for n in range(300)])
    site.push(600)
    assert site.take() == 302
    assert site.numbers == list(range(601))
    assert batches == [256, 44, 300, 1]


@pytest.mark.parametrize("survives", [True, False])
def test_files_that_were_published_and_not_removed_are_not_published_again(site, monkeypatch, survives):
    """`survives`: the files cannot be removed, and the relay goes on; otherwise it is killed before it removes them."""
    for number in range(3):
        site.push(number)

    def remove(names):
        if survives:
            return list(names)
        raise KeyboardInterrupt

    monkeypatch.setattr(site.folder, "remove", remove)
    if survives:
        assert site.take() == 3 and site.take() == 0
        site.push(3)
        assert site.take() == 1
        site.push(4)
        monkeypatch.undo()
    else:
        with pytest.raises(KeyboardInterrupt):
            site.take()
        site.push(3)
        site.push(4)
    site.folder.release()
    site.start()
    site.take()
    assert site.numbers == [0, 1, 2, 3, 4] and not site.waiting


def test_files_that_can_never_be_removed_become_trouble_and_not_an_endless_mark(site, monkeypatch):
    monkeypatch.setattr(spool_taking, "MOST_LEFT", 2)
    monkeypatch.setattr(site.folder, "remove", lambda names: list(names))
    for number in range(3):
        site.push(number)
    assert site.take() == 3
    site.push(3)
    with pytest.raises(FolderTrouble, match="files in .* cannot be removed, such as 000000.json"):
        site.take()


def test_while_the_store_fails_files_wait_and_keep_their_order(site, monkeypatch):
    def fail(items, mark):
        raise StoreError("the disk is full")

    for number in range(3):
        site.push(number)
    monkeypatch.setattr(site.broker, "publish_pending_marked", fail)
    monkeypatch.setattr(site.broker, "trouble", "the disk is full")
    for _ in range(20):
        with pytest.raises(StoreError):
            site.take()
    assert len(site.waiting) == 3 and site.taking.oldest is not None
    monkeypatch.undo()
    site.push(3)
    assert site.take() == 4
    assert site.numbers == [0, 1, 2, 3] and site.taking.oldest is None


def test_a_batch_of_which_it_is_not_known_whether_it_was_stored_is_published_once(site, monkeypatch):
    publish = site.broker.publish_pending_marked

    def lose_answer(items, mark):
        publish(items, mark)
        raise NotKnown("the connection broke")

    site.push(0)
    site.push(1)
    monkeypatch.setattr(site.broker, "publish_pending_marked", lose_answer)
    with pytest.raises(NotKnown):
        site.take()
    monkeypatch.undo()
    site.push(2)
    site.take()
    assert site.numbers == [0, 1, 2] and not site.waiting


def test_a_mark_that_somebody_moved_is_read_again(site):
    site.push(0)
    site.take()
    name = f"spool:{site.folder.id}"
    site.broker.publish_marked([], Mark(name, site.broker.mark(name), "x.json"))
    site.push(1)
    with pytest.raises(StoreError):
        site.take()
    site.take()
    assert site.numbers == [0, 1]


def test_a_file_that_the_store_rejects_alone_is_refused_in_the_end_and_then_the_others_follow(site, monkeypatch):
    publish = site.broker.publish_pending_marked

    def reject(items, mark):
        if any(item.text == "1" for item in items):
            raise StoreError("this one is too much")
        publish(items, mark)

    monkeypatch.setattr(site.broker, "publish_pending_marked", reject)
    for number in range(3):
        site.push(number)
    for _ in range(spool_taking.MOST_ATTEMPTS + 2):
        with pytest.raises(StoreError):
            site.take()
    site.take()
    assert site.numbers == [0, 2]
    assert "the store rejects it: this one is too much" in (site.path / "refused/000001.json.reason").read_text()


def test_a_bad_file_is_refused_with_its_reason_and_the_others_are_published(site):
    site.push(0)
    site.put("000001", '{"destination":')
    site.push(2)
    assert site.take() == 3
    assert site.numbers == [0, 2] and not site.waiting
    assert "invalid_json: " in (site.path / "refused/000001.json.reason").read_text()
    assert len(site.warnings) == 1 and "refused/000001.json: invalid_json" in site.warnings[0]
    assert site.taking.files.counts() == {"taken": 2, "refused": 1}


def test_of_a_batch_only_the_bad_pushes_go_to_the_refused_files(site):
    bad = {"destination": "b", "data": 2, "ttl": -1}
    site.put("000001", [{"destination": "a", "data": 1}, bad])
    site.take()
    assert site.numbers == [1] and not site.waiting
    assert json.loads((site.path / "refused/000001.json").read_text()) == [bad]
    assert "push 1: invalid_ttl" in (site.path / "refused/000001.json.reason").read_text()


def test_a_refused_part_of_a_batch_that_was_corrected_and_moved_back_is_published_also_after_a_kill(site):
    """The store still knows that a file of this name was published."""
    site.put("000001", [{"destination": "a", "data": 1}, {"destination": "a", "data": 2, "ttl": -1}])
    site.take()
    site.folder.release()
    (site.path / "refused/000001.json").write_text('[{"destination": "a", "data": 2}]')
    (site.path / "refused/000001.json").rename(site.path / "000001.json")
    site.start()
    site.take()
    assert site.numbers == [1, 2] and not site.waiting


def test_a_refused_file_that_cannot_be_moved_away_is_trouble_and_does_not_hold_up_others(site, monkeypatch):
    """Nothing of a batch is published without putting away what is refused of it, which would be lost."""
    site.put("000000", [{"destination": "a", "data": 1}, *[{}] * 3])
    site.put("000001", "no push")
    in_the_way = site.path / "refused"
    in_the_way.touch()
    for number in (2, 3):
        site.push(number)
        site.take()
    assert site.numbers == [2, 3] and site.waiting == ["000000.json", "000001.json"]
    trouble = "000000.json' was refused and cannot be moved away: remove it, or what is in the way (push 1: missing_"
    assert trouble in site.taking.trouble
    assert f"(and 2 more); {in_the_way}: Not a directory)" in site.taking.trouble
    in_the_way.unlink()
    monkeypatch.setattr(spool_taking, "monotonic", lambda: math.inf)
    site.take()
    assert site.numbers == [2, 3, 1] and not site.waiting and site.taking.trouble is None


def test_a_push_that_http_had_stored_already_is_not_published_again(site):
    """PHP got no answer in time, and put the push into the spool too, with the same key."""
    site.broker.publish_pending([Pending("a", 7, key="k")])
    site.put("000001", {"destination": "a", "data": 7, "id": "k"})
    site.take()
    assert site.numbers == [7] and not site.waiting


def test_a_key_that_was_used_for_another_push_is_refused(site):
    site.broker.publish_pending([Pending("a", 7, key="k")])
    site.put("000001", {"destination": "a", "data": 8, "id": "k"})
    site.take()
    assert site.numbers == [7] and not site.waiting
    assert "id_reused: " in (site.path / "refused/000001.json.reason").read_text()


def test_the_time_for_which_a_relay_was_down_does_not_count_for_keys(site):
    """PHP got no answer because the relay was killed, and the relay is started an hour later."""
    if site.url.startswith("memory"):
        return  # it forgets the pushes too
    site.broker.publish_pending([Pending("a", 7, key="k"), Pending("a", 8, key="daily")])
    site.put("000001", {"destination": "a", "data": 7, "id": "k"})
    site.put("000002", {"destination": "a", "data": 9, "id": "daily"})
    os.utime(site.path / "000001.json", (0, site.now + 0.3))
    os.utime(site.path / "000002.json", (0, site.now + 301))
    site.folder.release()
    site.now += 3600
    site.start()
    site.broker.sweep()
    site.take()
    assert site.numbers == [7, 8, 9] and not site.waiting
    site.now += 301
    while site.broker.sweep():
        pass
    assert site.broker._group_commit.run(lambda: site.broker._store.find_key("1:ak", site.now - 3900)) is None


def test_a_relay_that_ends_leaves_the_rest_to_the_next_one(site):
    for number in range(3):
        site.push(number)
    site.is_over = True
    assert site.take() == 0
    site.is_over = False
    assert site.take() == 3


def test_an_unexpected_failure_concerns_one_file(site, monkeypatch):
    real = spool_taking.content_of

    def fail(file, settings):
        if file.name == "000000.json":
            raise RuntimeError("a bug")
        return real(file, settings)

    monkeypatch.setattr(spool_taking, "content_of", fail)
    site.push(0)
    site.push(1)
    assert site.take() == 2
    assert site.numbers == [1] and "RuntimeError('a bug')" in site.warnings[0]
