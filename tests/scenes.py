"""The states in which people see the relay's pages, made with real relays: for accessibility and for pictures.

A scene is a page that is open and shows its state. It is made in a context of Chromium, and ends with the stack.
"""

from conftest import Relay, wait_for
from consoles import ONLINE, come_back, go_away

STRANGER = {"X_Forwarded_For": "192.0.2.7"}  # a visitor through a web server
SECRET = "k7fG2-pQ9_rT4wXz8LmN6vBc3hJd5sYa"
ORDERS = [
    ("", "Hello from PHP"),
    ("order", {"order": 1834, "state": "paid", "total": "49.90", "items": ["tea", "two cups"]}),
    ("", {"user": "Zoë", "text": "Is the table by the window still free tonight?"}),
    ("stock", {"article": "A-1120", "left": 3}),
    ("", "A long line: " + "it is cut in the list and whole when the row is open. " * 4),
]


class Scenes:
    """The scenes of one relay after another; each name of a method in CONSOLE and STATUS is one."""

    CONSOLE = ("empty", "arrivals", "opened", "refused", "offline", "trouble")
    STATUS = ("fresh", "busy", "restarted", "failing", "gone")

    def __init__(self, folder, stack, server="own"):
        self.folder, self.server = folder, server
        self.stack = stack
        self._count = 0

    def relay(self, **settings):
        """Return a new relay, which ends with the stack."""
        self._count += 1
        folder = self.folder / f"relay{self._count}"
        folder.mkdir()
        relay = Relay(folder / "log", server=self.server, **settings)
        self.stack.callback(relay.kill)
        return relay

    def open(self, context, url, ready, **headers):
        """Open a page, and wait until it shows the element `ready`. `headers` go with each of its requests."""
        page = context.new_page()
        page.set_extra_http_headers({name.replace("_", "-"): value for name, value in headers.items()})
        page.goto(url)
        page.locator(ready).first.wait_for()
        return page

    def push_orders(self, relay, id_):
        for event, data in ORDERS:
            fields = {"event": event} if event else {}
            assert relay.push_json(destination=id_, data=data, **fields)[0] == 200

    # The console.

    def empty(self, context, relay=None):
        relay = relay or self.relay()
        return self.open(context, f"{relay.url}/?id=coral-otter-512", ONLINE)

    def arrivals(self, context, relay=None):
        relay = relay or self.relay()
        page = self.open(context, f"{relay.url}/?id=coral-otter-512", ONLINE)
        self.push_orders(relay, "coral-otter-512")
        wait_for(lambda: page.locator("#arrived > li").count() >= len(ORDERS), "the rows")
        return page

    def opened(self, context):
        """All that opens is open, and the page has been away and caught up."""
        relay = self.relay()
        page = self.arrivals(context, relay)
        page.locator(".arrival summary").nth(1).click()
        for button in ("#change", "#phone", "#tab-php"):
            page.click(button)
        go_away(page)
        relay.push("coral-otter-512", "missed")
        come_back(page)
        page.locator(".caught-up").wait_for()
        return page

    def refused(self, context):
        """A page that needs a token, seen by a visitor who has none."""
        relay = self.relay(secret=SECRET, demo="yes", trusted_proxies="127.0.0.1")
        return self.open(context, f"{relay.url}/?id=user-42", "#token-form:not([hidden])", **STRANGER)

    # Pages without states.

    def docs(self, context, relay=None):
        relay = relay or self.relay()
        return self.open(context, f"{relay.url}/docs/logging", "main h1")

    def not_shown(self, context, relay=None):
        relay = relay or self.relay()
        return self.open(context, f"{relay.url}/", "ol.ways", **STRANGER)

    def offline(self, context):
        relay = self.relay()
        page = self.arrivals(context, relay)
        relay.kill()
        page.locator("#state[data-status=offline]").wait_for()
        return page

    def trouble(self, context):
        """The store is away, and a push from the page is refused."""
        relay = self.relay()
        page = self.arrivals(context, relay)
        self.lose_store(relay)
        page.click("#push-button")
        wait_for(lambda: page.locator("#push-answer").text_content().strip(), "the answer")
        return page

    # The status page.

    def status(self, context, relay):
        return self.status_in(context.new_page(), relay)

    def status_in(self, page, relay):
        page.goto(f"{relay.url}/status")
        page.locator("body.status:not([data-loading])").wait_for()
        return page

    def fresh(self, context):
        return self.status(context, self.relay())

    def busy(self, context, relay=None):
        relay = relay or self.relay()
        for number in range(40):
            self.push_orders(relay, f"user-{number % 7}")
        return self.status(context, relay)

    def restarted(self, context):
        relay = self.relay()
        self.push_orders(relay, "user-1")
        relay.kill()
        relay.start()
        return self.busy(context, relay)

    def failing(self, context):
        relay = self.relay()
        page = self.busy(context, relay)
        self.lose_store(relay)
        page.locator("#verdict[data-level=bad]").wait_for()
        return page

    def gone(self, context):
        """The relay ended while the page was open."""
        relay = self.relay()
        page = self.busy(context, relay)
        relay.kill()
        page.locator("body[data-old]").wait_for()
        return page

    @staticmethod
    def lose_store(relay):
        """Move the store's folder away, as when a disk is unmounted."""
        folder = relay.log.parent
        folder.rename(folder.with_name(f"{folder.name}-away"))
        relay.log = folder.with_name(f"{folder.name}-away") / "log"
        wait_for(lambda: relay.push_json(destination="user-1", data="x")[0] == 503, "the loss")
