"""`python relay.py outbox` prints the SQL of the table, runs it, and looks at what waits."""

import contextlib

import pytest
from mariadb import PASSWORD, MariaDB
from terminal import run

from pushrelay.outbox import table


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory):
    with MariaDB(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


def test_create_prints_sql_that_creates_the_table(mariadb):
    site = mariadb.site()
    site.ask("DROP TABLE relay_outbox")
    ran = run("outbox", "create", site.url)
    assert ran.returncode == 0 and f"ON `{site.name}`.relay_outbox TO 'relay'@'localhost'" in ran.stdout
    with contextlib.closing(site.server.connect(site.name)) as connection, connection.cursor() as cursor:
        cursor.execute(ran.stdout.partition(";")[0])
    site.insert(("42", "x"))
    assert site.waiting() == 1
    assert run("outbox", "create").stdout.startswith(f"{table.CREATE};\n")


def test_create_runs_the_sql_and_check_tells_what_waits(mariadb):
    site = mariadb.site()
    site.ask("DROP TABLE relay_outbox")
    ran = run("outbox", "check", f"--outbox={site.url}")
    assert ran.returncode == 1 and "has no table relay_outbox: run  python relay.py outbox create" in ran.stderr
    mariadb.ask(f"GRANT ALL ON {site.name}.* TO relay@'%'")
    ran = run("outbox", "create", "--run", env={"RELAY_OUTBOX": site.url})
    assert (ran.returncode, ran.stderr) == (
        0,
        "",
    ) and f"is ready in mysql://127.0.0.1:{mariadb.port}/{site.name}" in ran.stdout
    site.insert(("42", "x"))
    ran = run("outbox", "check", env={"RELAY_OUTBOX": site.url})
    assert ran.returncode == 0 and "MariaDB 1" in ran.stdout and "1 rows wait, the oldest for " in ran.stdout
    assert "No relay takes the rows now." in ran.stdout and PASSWORD not in ran.stdout + ran.stderr


def test_mistakes_have_a_sentence():
    ran = run("outbox", "check")
    assert ran.returncode == 2 and "the setting outbox is empty" in ran.stderr
    ran = run("outbox", "check", f"postgres://relay:{PASSWORD}@localhost/shop")
    assert ran.returncode == 2 and "it begins with mysql://" in ran.stderr and PASSWORD not in ran.stderr
    ran = run("outbox", "empty")
    assert ran.returncode == 2 and "Traceback" not in ran.stderr
