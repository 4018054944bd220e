"""The statements reach rows by their ids, one after another, however small the table is."""

import re
import textwrap

import pytest
from conftest import ROOT

from pushrelay.outbox import table


@pytest.mark.parametrize("count", [1, 3, 10, 300])
def test_statements_look_up_ids_and_never_scan_the_table(site, count):
    site.insert(*(("42", "x") for _ in range(count)))
    ids = [n + 1 for n in range(count) if n != count // 2 or count == 1]
    for statement in (table.delete(ids), table.refuse(ids, "'x'"), table.lock(ids, 1000)):
        [plan] = [each for each in site.ask(f"EXPLAIN {statement}") if each[2] == "o"]
        assert plan[3] in ("eq_ref", "const") and plan[5] == "PRIMARY", plan


def test_ranges_are_those_of_the_ids_that_wait(site):
    site.insert(*(("42", "x") for _ in range(20)))
    site.ask("DELETE FROM relay_outbox WHERE id IN (4, 10, 11, 20)")
    site.ask("UPDATE relay_outbox SET error = 'x' WHERE id = 1")
    assert list(site.ask(table.RANGES % 1000)) == [(2, 3), (5, 9), (12, 19)]
    assert list(site.ask(table.RANGES % 8)) == [(2, 3), (5, 9), (12, 12)]
    assert [id_ for id_, _ in site.ask(table.FIRST % 3)] == [2, 3, 5]


def test_the_sql_of_the_documentation_is_that_of_the_command_and_works(site):
    page = (ROOT / "docs/outbox.md").read_text()
    snippets = [textwrap.dedent(each) for each in re.findall(r"(?:^    .*\n)+", page, re.MULTILINE)]
    [created] = [each for each in snippets if each.startswith("CREATE TABLE")]
    assert created.strip() == f"{table.CREATE};"
    site.insert(("42", "x"))
    site.ask("UPDATE relay_outbox SET error = 'too_large: x'")
    [found] = [each for each in snippets if each.startswith("SELECT id, destination, error")]
    select, update = found.strip().splitlines()
    assert [row[1:3] for row in site.ask(select)] == [("42", "too_large: x")]
    site.ask(update)
    assert site.waiting() == 1
