"""The console in a browser: its list, going offline and back, and the snippets that it shows."""

import subprocess

from phplab import patient

SECRET = "the-first-secret-of-this-relay-0123456789"

# A page that is online and has registered its id. Pushes to it before the registration would never be shown.
ONLINE = "body[data-status=online] #note-text:not(:has-text('Registering this id'))"

# A browser that is not on the relay's machine, or comes through a proxy.
FAR = {"X-Forwarded-For": "203.0.113.9"}

# Adds up how far the page's parts jump without a reason that the reader knows.
SHIFTS = """window.shifted = 0;
new PerformanceObserver((list) => list.getEntries().forEach((each) => {
  if (!each.hadRecentInput) window.shifted += each.value;
})).observe({type: "layout-shift", buffered: true});"""


def arrived(page):
    return page.locator("#arrived .data")


def try_now(page):
    """Let relay.js connect at once, because its waits grow while the relay starts."""
    page.evaluate("dispatchEvent(new Event('online'))")


def go_away(page):
    """Take the page offline, so that it cannot return before come_back()."""
    page.evaluate("""() => {
      window.kept = [WebSocket, fetch];
      window.WebSocket = undefined;
      window.fetch = () => Promise.reject(new Error("away"));
      dispatchEvent(new Event("offline"));
    }""")
    page.locator("#state[data-status=offline]").wait_for()


def come_back(page):
    page.evaluate("() => { [window.WebSocket, window.fetch] = kept; }")
    try_now(page)
    page.locator(ONLINE).wait_for()


def show(page, relay, html):
    """Open a page of the relay's host that has this HTML."""
    page.route("**/my-page", lambda route: route.fulfill(body=html, content_type="text/html"))
    page.goto(f"{relay.url}/my-page")


def run(command, text):
    """Return the output of a snippet, run as it stands, except that PHP has more time for a push."""
    ran = subprocess.run([command], input=patient(text), capture_output=True, text=True)
    assert ran.returncode == 0 and not ran.stderr.startswith("PHP"), ran
    return ran.stdout
