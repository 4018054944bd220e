"""Receivers of webhooks in PHP, on PHP's own web server: what they got, and what they answer.

with Receivers(tmp_path) as site:
    relay = start_relay(webhook_url=site.url("a"), webhook_secret=SECRET)
    site.wait("a", [("online", "42")])
    site.behave("a", "500")
"""

import contextlib
import json
import time

from conftest import wait_for
from phplab import Php

SECRET = "a-secret-of-the-tests-0123456789abcdef"
# One script for each receiver. It accepts an event that comes again, and writes down all that it accepts.
SCRIPT = """<?php
$file = __DIR__ . '/' . basename(__FILE__, '.php');
$mode = is_file("$file.mode") ? trim(file_get_contents("$file.mode")) : '200';
if ($mode === 'slow') {
    usleep(8000000);
}
$body = file_get_contents('php://input');
$header = $_SERVER['HTTP_RELAY_SIGNATURE'] ?? '';
$secret = is_file("$file.secret") ? trim(file_get_contents("$file.secret")) : 'SECRET';
preg_match('/^t=(\\d+),/', $header, $found);
$is_ours = abs(time() - (int) ($found[1] ?? 0)) < 300
    && in_array('v1=' . hash_hmac('sha256', ($found[1] ?? '') . '.' . $body, $secret), explode(',', $header), true);
$events = json_decode($body, true)['events'];
$status = $is_ours ? (int) $mode : 403;
if ($mode === 'poison') {
    $status = strpos($body, '"poison"') === false ? 200 : 400;
}
$line = json_encode(['at' => microtime(true), 'status' => $status, 'bytes' => strlen($body), 'events' => $events]);
file_put_contents("$file.got", "$line\\n", FILE_APPEND | LOCK_EX);
http_response_code($status);
"""


class Receivers:
    """Receivers by name, each with a URL of its own."""

    def __init__(self, folder, workers=4):
        self.folder = folder / "hooks"
        self.folder.mkdir()
        self._stack = contextlib.ExitStack()
        self._php, self._workers = Php(self.folder), workers
        self.root = None

    def __enter__(self):
        self.root = self._stack.enter_context(self._php.serve(self.folder, workers=self._workers))
        return self

    def __exit__(self, *_):
        self._stack.close()

    def url(self, name):
        """Return the URL of a receiver, which is created if it is new."""
        script = self.folder / f"{name}.php"
        if not script.exists():
            script.write_text(SCRIPT.replace("'SECRET'", f"'{SECRET}'"))
        return f"{self.root}/{name}.php"

    def behave(self, name, mode):
        """Have a receiver answer with a status, after 8 s (slow), or with 400 if an event has "poison" in it."""
        self._write(name, "mode", mode)

    def know(self, name, secret):
        """Have a receiver verify with this secret."""
        self._write(name, "secret", secret)

    def _write(self, name, kind, text):
        new = self.folder / f"{name}.{kind}.new"
        new.write_text(text)
        new.replace(self.folder / f"{name}.{kind}")

    def requests(self, name):
        """Return the requests that came to a receiver."""
        file = self.folder / f"{name}.got"
        lines = file.read_text().split("\n")[:-1] if file.exists() else []
        return [json.loads(line) for line in lines]

    def events(self, name):
        """Return the events that it accepted, in order, without those that came again."""
        found = {}
        for request in self.requests(name):
            if request["status"] == 200:
                for event in request["events"]:
                    found.setdefault(event["id"], event)
        return list(found.values())

    def seen(self, name):
        """Return the kinds and destinations of these events."""
        return [(each["event"], each.get("destination", each.get("name"))) for each in self.events(name)]

    def wait(self, name, wanted, deadline=40):
        """Wait until a receiver has accepted these events, in this order, and no others."""
        end = time.monotonic() + deadline
        while self.seen(name) != wanted and time.monotonic() < end:
            time.sleep(0.02)
        assert self.seen(name) == wanted

    def wait_for_status(self, name, status, count=1):
        """Wait until a receiver has answered some requests with a status."""
        statuses = lambda: [each["status"] for each in self.requests(name)]  # noqa: E731
        wait_for(lambda: statuses().count(status) >= count, f"{count} answers with status {status}", 40)
