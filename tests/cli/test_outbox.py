"""`python relay.py outbox` prints the SQL of the table. tests/outbox/test_examination.py runs it on a database."""

from terminal import run

from pushrelay.outbox import table

PASSWORD = "w3-Kp7_tQx"


def test_create_prints_the_sql_and_the_rights_that_are_needed():
    ran = run("outbox", "create", f"mysql://root:{PASSWORD}@localhost/my%60shop")
    assert ran.returncode == 0 and ran.stdout.startswith(f"{table.CREATE};\n") and PASSWORD not in ran.stdout
    assert "-- GRANT SELECT, UPDATE, DELETE ON `my``shop`.relay_outbox TO 'relay'@'localhost';" in ran.stdout
    assert "GRANT INSERT ON relay_outbox TO" in run("outbox", "create").stdout


def test_mistakes_have_a_sentence():
    ran = run("outbox", "check")
    assert ran.returncode == 2 and "the setting outbox is empty" in ran.stderr
    ran = run("outbox", "check", "--run", f"postgres://relay:{PASSWORD}@localhost/shop")
    assert ran.returncode == 2 and "it begins with mysql://" in ran.stderr and PASSWORD not in ran.stderr
    ran = run("outbox", "empty")
    assert ran.returncode == 2 and "Traceback" not in ran.stderr
