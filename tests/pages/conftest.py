"""Fixtures that open the console."""

import pytest
from conftest import DEADLINE
from consoles import FAR, ONLINE


@pytest.fixture
def demo(context):
    """Return a function that opens a relay's demo page with an id, and waits until it is registered."""

    def open_page(relay, id_, **viewport):
        page = context.new_page()
        if viewport:
            page.set_viewport_size(viewport)
        page.goto(f"{relay.url}/?id={id_}")
        page.locator(ONLINE).wait_for()
        return page

    return open_page


@pytest.fixture
def console(relay, demo):
    """Return a function that opens the page with an id and waits until the id is registered."""

    def open_page(id_, at=relay, **viewport):
        page = demo(at, id_, **viewport)
        page.locator("#note").filter(has_text="Pushes to this id appear here").wait_for()
        return page

    return open_page


@pytest.fixture
def refused(browser):
    """Return a function that opens the page of a relay that refuses its id, and waits until the page shows that."""
    contexts = []

    def open_page(relay, id_="42", headers=FAR):
        contexts.append(browser.new_context(extra_http_headers=headers))
        contexts[-1].set_default_timeout(DEADLINE * 1000)
        page = contexts[-1].new_page()
        page.goto(f"{relay.url}/?id={id_}")
        page.locator("#state[data-status=refused]").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
