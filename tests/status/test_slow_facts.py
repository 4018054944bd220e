"""Facts that take time are asked for in the background, and not too often."""

from pushrelay.errors import StoreError
from pushrelay.status import slow_facts
from pushrelay.status.slow_facts import SlowFacts
from pushrelay.store.publication import Survey


def test_a_store_is_asked_only_while_it_is_well(tmp_path, monkeypatch):
    asked, now = [], [100.0]
    monkeypatch.setattr(slow_facts.time, "monotonic", lambda: now[0])

    def survey(seconds):
        asked.append(seconds)
        if len(asked) == 2:
            raise StoreError("it is being opened again")
        return Survey(len(asked), 1.0)

    facts = SlowFacts(survey, str(tmp_path / "relay.db"))
    facts.refresh(is_store_well=False)
    assert facts.open_files and facts.disk_free and not asked
    facts.refresh(is_store_well=True)
    assert not asked, "everything is still new"
    now[0] += slow_facts.EVERY
    facts.refresh(is_store_well=True)
    assert (facts.survey, len(asked)) == (Survey(1, 1.0), 1)
    for _ in range(2):  # the last answer stays while there is no other
        now[0] += slow_facts.EVERY
        facts.refresh(is_store_well=True)
    assert (facts.survey, len(asked)) == (Survey(3, 1.0), 3)
