"""The command and the doctor find what waits in the database."""

import pytest

from pushrelay.outbox.examination import create, examine
from pushrelay.outbox.explanations import DatabaseError
from pushrelay.settings.mysql_url import mysql_url


def test_an_examination_finds_what_waits_and_what_cannot_be_pushed(site, run_outbox):
    url = mysql_url(site.url)
    site.insert(("42", "x"), ("", "y"))
    found = examine(url)
    assert (found.waiting, found.refused, found.is_served) == (2, 0, False) and 0 <= found.oldest < 60
    run_outbox(site.url).wait_for(1)
    found = examine(url)
    assert (found.refused, found.is_served) == (1, True)
    assert "1 rows cannot be pushed: the first is 2: missing_destination" in found.lines()[1]


def test_a_table_is_created_once(mariadb, site):
    url = mysql_url(site.url)
    site.ask("DROP TABLE relay_outbox")
    with pytest.raises(DatabaseError, match="does not let this user"):
        create(url)
    mariadb.ask(f"GRANT CREATE ON {site.name}.* TO relay@'%'")
    create(url)
    create(url)
    assert examine(url).waiting == 0
