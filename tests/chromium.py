"""Debian's Chromium by its DevTools protocol, with tabs that really are in front or hidden, frozen, or crashed.

Playwright makes every page believe that it is in front. Other tests use Playwright: see conftest.py.
"""

import contextlib
import itertools
import json
import os
import queue
import shutil
import signal
import subprocess
import threading
import time

import websocket
from conftest import CHROMIUM_FLAGS, DEADLINE, need, wait_for


class Gone(AssertionError):
    """The page that was asked does not exist any more, or does not answer."""


class Chromium:
    """One process of Chromium without windows, with the profile in this folder."""

    def __init__(self, profile, *flags):
        executable = shutil.which("chromium")
        need(executable, "Chromium (apt-get install chromium)")
        flags = [*CHROMIUM_FLAGS, "--headless=new", "--remote-debugging-port=0", f"--user-data-dir={profile}", *flags]
        # A process group of its own, so that all its processes can be stopped at once.
        self.process = subprocess.Popen(
            [executable, *flags, "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        endpoint = profile / "DevToolsActivePort"
        wait_for(lambda: endpoint.exists() and endpoint.read_text().count("\n"), "Chromium", 3 * DEADLINE)
        port, path = endpoint.read_text().split()
        self._socket = websocket.create_connection(f"ws://127.0.0.1:{port}{path}", DEADLINE, suppress_origin=True)
        self._socket.settimeout(None)
        self._numbers = itertools.count(1)
        self._answers = {}  # number of a call: the queue for its answer
        self._sending = threading.Lock()
        self._handlers = {}  # (session, method): the function that gets the parameters of an event
        threading.Thread(target=self._read, daemon=True).start()

    def begin(self, method, session=None, **params):
        """Begin a command of the DevTools protocol and return its number, for `result`."""
        number = next(self._numbers)
        self._answers[number] = queue.SimpleQueue()
        message = {"id": number, "method": method, "params": params}
        with self._sending:
            self._socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        return number

    def result(self, number, seconds=DEADLINE):
        try:
            answer = self._answers[number].get(timeout=seconds)
        except queue.Empty:
            raise Gone("no answer") from None
        finally:
            del self._answers[number]
        if "error" in answer:
            raise Gone(answer["error"]["message"])
        return answer["result"]

    def call(self, method, session=None, **params):
        return self.result(self.begin(method, session, **params))

    def on(self, session, method, handler):
        """Call the handler with the parameters of this event, in the thread that reads."""
        self._handlers[session, method] = handler

    def open(self, window=False):
        """Open a tab in front of the others, or in a new window."""
        target = self.call("Target.createTarget", url="about:blank", newWindow=window)["targetId"]
        return Tab(self, target, self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])

    def stop(self, seconds):
        """Stop all its processes for this time, as the sleep of a laptop does."""
        os.killpg(self.process.pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.killpg(self.process.pid, signal.SIGCONT)

    def _read(self):
        with contextlib.suppress(OSError, ValueError, websocket.WebSocketException):
            while text := self._socket.recv():
                message = json.loads(text)
                if "id" in message:
                    if answers := self._answers.get(message["id"]):
                        answers.put(message)
                elif handler := self._handlers.get((message.get("sessionId"), message["method"])):
                    handler(message["params"])

    def close(self):
        with contextlib.suppress(OSError, websocket.WebSocketException):
            self._socket.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE)


class Tab:
    """A tab, with those methods of Playwright's Page that pages.Page calls, and its DevTools session."""

    def __init__(self, chromium, target, session):
        self._chromium = chromium
        self.target = target
        self.session = session

    def call(self, method, **params):
        return self._chromium.call(method, self.session, **params)

    def goto(self, url):
        failure = self.call("Page.navigate", url=url).get("errorText")
        assert failure is None, f"{url}: {failure}"
        self.wait_for_function("document.readyState !== 'loading'")

    def evaluate(self, javascript):
        """Return the value of an expression or, if it is a function, of its call; if it is a promise, its result."""
        call = f"(async () => {{ const it = ({javascript}); return typeof it === 'function' ? it() : it; }})()"
        answer = self.call("Runtime.evaluate", expression=call, awaitPromise=True, returnByValue=True)
        failure = answer.get("exceptionDetails")
        assert failure is None, failure
        return answer["result"].get("value")

    def wait_for_function(self, javascript):
        return Value(wait_for(lambda: self._value_of(javascript), javascript))

    def _value_of(self, javascript):
        try:
            return self.evaluate(javascript)
        except AssertionError:  # the page is being replaced, or is not there yet
            return None

    def show(self):
        """Bring the tab to the front; the one that was there is hidden from then on."""
        self._chromium.call("Target.activateTarget", targetId=self.target)

    def set_state(self, state):
        """Make a hidden page "frozen", in which nothing runs, or "active"."""
        self.call("Page.setWebLifecycleState", state=state)

    def set_offline(self, is_offline):
        """Take the page's network away, which fires its event "offline"; WebSockets that are open stay open."""
        conditions = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.call("Network.emulateNetworkConditions", offline=is_offline, **conditions)

    def crash(self):
        """Crash the process of the page. The tab can be loaded again."""
        crashed = threading.Event()
        self._chromium.on(self.session, "Inspector.targetCrashed", lambda _: crashed.set())
        self.call("Inspector.enable")
        self._chromium.begin("Page.crash", self.session)  # never answered
        assert crashed.wait(DEADLINE)

    def close(self):
        self._chromium.call("Target.closeTarget", targetId=self.target)


class Value:
    def __init__(self, value):
        self._value = value

    def json_value(self):
        return self._value
