"""Receivers of webhooks in PHP, on PHP's own web server: what they got, and what they answer.

with Receivers(tmp_path) as site:
    relay = start_relay(webhook_url=site.url("a"), webhook_secret=SECRET)
    site.wait("a", [("online", "42")])
    site.behave("a", "500")
"""

import contextlib
import json
import time
import urllib.error
import urllib.request

from conftest import DEADLINE, wait_for
from phplab import CLIENT, Php

SECRET = "a-secret-of-the-tests-0123456789abcdef"
# One script for each receiver. It accepts an event that comes again, and writes down all that it accepts.
SCRIPT = """<?php
require 'CLIENT';
$file = __DIR__ . '/' . basename(__FILE__, '.php');
$mode = is_file("$file.mode") ? trim(file_get_contents("$file.mode")) : '200';
if ($mode === 'slow') {
    usleep(8000000);
}
$line = ['at' => microtime(true), 'status' => (int) $mode ?: 200, 'events' => []];
try {
    $line['events'] = Relay::webhook(is_file("$file.secret") ? trim(file_get_contents("$file.secret")) : 'SECRET');
    if ($mode === 'poison' && in_array('poison', array_column($line['events'], 'destination'), true)) {
        $line['status'] = 400;
    }
    http_response_code($line['status']);
} catch (RelayException $e) { // Relay::webhook() has answered
    $line['status'] = http_response_code();
}
file_put_contents("$file.got", json_encode($line) . "\\n", FILE_APPEND | LOCK_EX);
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
            script.write_text(SCRIPT.replace("SECRET", SECRET).replace("CLIENT", str(CLIENT)))
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

    def post(self, name, body, header):
        """POST a body with this Relay-Signature, and return the status."""
        request = urllib.request.Request(self.url(name), body, {"Relay-Signature": header})
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code

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
