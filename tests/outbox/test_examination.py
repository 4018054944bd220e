"""The command and the doctor find what waits in the database."""

import pytest
from examination import outbox_examined
from mariadb import PASSWORD
from terminal import run

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
    assert "1 row cannot be pushed: the first is 2: missing_destination" in found.lines()[1]
    text, failures, warnings = outbox_examined(site.url)
    assert (failures, warnings) == (0, 1) and "0 rows wait" in text and "the first is 2: missing_destination" in text
    assert PASSWORD not in text


def test_a_table_is_created_once(mariadb, site):
    url = mysql_url(site.url)
    site.ask("DROP TABLE relay_outbox")
    with pytest.raises(DatabaseError, match="does not let this user"):
        create(url)
    mariadb.ask(f"GRANT CREATE ON {site.name}.* TO relay@'%'")
    create(url)
    create(url)
    assert examine(url).waiting == 0


def test_the_commands_create_the_table_and_print_what_waits(mariadb, site):
    site.ask("DROP TABLE relay_outbox")
    ran = run("outbox", "check", f"--outbox={site.url}")
    assert (
        ran.returncode == 1
        and "has no table relay_outbox: run the SQL that this command prints:  python relay.py outbox create"
        in ran.stderr
    )
    mariadb.ask(f"GRANT ALL ON {site.name}.* TO relay@'%'")
    ran = run("outbox", "create", "--run", env={"RELAY_OUTBOX": site.url})
    assert (ran.returncode, ran.stderr) == (0, "")
    assert f"The table relay_outbox is ready in mysql://127.0.0.1:{mariadb.port}/{site.name}." in ran.stdout
    site.insert(("42", "x"))
    ran = run("outbox", "check", env={"RELAY_OUTBOX": site.url})
    assert ran.returncode == 0 and "MariaDB 1" in ran.stdout and "1 row waits, the oldest for " in ran.stdout
    assert "No relay takes the rows now." in ran.stdout and PASSWORD not in ran.stdout + ran.stderr
