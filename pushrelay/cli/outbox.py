"""`python relay.py outbox`: the table in the site's database. Print or run its SQL, and look at what waits there."""

import argparse
from collections.abc import Mapping

from pushrelay.errors import StoreError
from pushrelay.outbox import table
from pushrelay.outbox.packages import check_outbox_packages
from pushrelay.settings import SettingsError, load
from pushrelay.settings.mysql_url import MySQLURL, mysql_url

from .flags import warn_of_secrets
from .output import fail, print_data

ACTIONS = ("create", "check")
_RIGHTS = """\
-- The relay and PHP need these rights. Their users may be the same:
-- GRANT SELECT, UPDATE, DELETE ON {table} TO 'relay'@'localhost';
-- GRANT INSERT ON {table} TO 'php'@'localhost';"""


def outbox(given: argparse.Namespace, flags: Mapping[str, str]) -> int:
    """Do what `given.action` names, and return the exit code. Raises SettingsError."""
    address = given.url or load(flags=flags).outbox
    try:
        url = mysql_url(address) if address else None
    except ValueError as error:
        raise SettingsError(f"URL must be {error}") from None
    if given.action == "create" and not given.run:
        return _print_sql(url)
    if url is None:
        return fail("the setting outbox is empty: set it in [relay], or write the URL of the database here", 2)
    warn_of_secrets(given)
    try:
        check_outbox_packages()
    except StoreError as error:
        return fail(str(error), 2)
    from pushrelay.outbox.explanations import DatabaseError

    try:
        return _create(url) if given.action == "create" else _check(url)
    except DatabaseError as error:
        return fail(str(error))


def _print_sql(url: MySQLURL | None) -> int:
    print_data(f"{table.CREATE};")
    name = f"`{url.database.replace('`', '``')}`.{table.NAME}" if url else table.NAME
    print_data(_RIGHTS.format(table=name))
    return 0


def _create(url: MySQLURL) -> int:
    from pushrelay.outbox.examination import create

    create(url)
    print_data(f"The table {table.NAME} is ready in {url}.")
    return 0


def _check(url: MySQLURL) -> int:
    from pushrelay.outbox.examination import examine

    found = examine(url)
    print_data(f"{found.server} at {url}: the relay can use the table {table.NAME}.")
    for each in found.lines():
        print_data(f"{each}.")
    print_data("A relay takes the rows." if found.is_served else "No relay takes the rows now.")
    return 0
