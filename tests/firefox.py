"""Debian's Firefox, and pages in it with the methods that tests use of Chromium's: see firefox.js."""

import contextlib
import itertools
import json
import os
import pathlib
import queue
import shutil
import signal
import subprocess
import threading
import time
from typing import NamedTuple

from chromium import Value
from conftest import DEADLINE, ROOT, need, wait_for

LIBRARY = ROOT / "tests" / "node_modules" / "puppeteer-core"


class Firefox:
    """One process of Firefox without windows. `pid` is its process id, `version` its version."""

    def __init__(self):
        executable = shutil.which("firefox-esr") or shutil.which("firefox")
        need(executable, "Firefox (apt-get install firefox-esr)")
        need(shutil.which("node") and LIBRARY.exists(), "puppeteer-core (npm install --prefix tests)")
        program = ["node", str(ROOT / "tests" / "firefox.js"), executable]
        self._node = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._numbers = itertools.count(1)
        self._answers = {0: queue.SimpleQueue()}  # number of a call: the queue for its answer
        self._listeners = {}  # name of a page: the handlers of its console
        threading.Thread(target=self._read, daemon=True).start()
        self.version, self.pid = self.result(0, 3 * DEADLINE).values()

    def call(self, page, method, *args):
        """Begin a call and return its number, for `result`."""
        number = next(self._numbers)
        self._answers[number] = queue.SimpleQueue()
        call = {"id": number, "page": page, "method": method, "args": args}
        self._node.stdin.write(json.dumps(call) + "\n")
        self._node.stdin.flush()
        return number

    def result(self, number, seconds=DEADLINE):
        """Wait for the answer to a call, and return its value."""
        answer = self._answers[number].get(timeout=seconds)
        del self._answers[number]
        assert "error" not in answer, answer["error"]
        return answer.get("value")

    def open(self):
        """Open a tab in front of the others."""
        name = f"page {next(self._numbers)}"
        self.result(self.call(name, "open", name))
        return FirefoxTab(self, name)

    def listen(self, page, handler):
        self._listeners.setdefault(page, []).append(handler)

    def crash(self, tab):
        """Kill the process that runs a page, as a crash does. Other pages of its site may be in it, too."""
        before = self._cpu_times()
        tab.evaluate("(() => { for (const end = Date.now() + 300; Date.now() < end; ); })()")
        after = self._cpu_times()
        os.kill(max(before, key=lambda pid: after.get(pid, 0) - before[pid]), signal.SIGKILL)

    def _cpu_times(self):
        """Return the CPU time of each process for pages, in clock ticks, by process id."""
        times = {}
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes().rstrip(b"\0 ")
                if command.endswith(b"tab") and f"-parentPid {self.pid} ".encode() in command.replace(b"\0", b" "):
                    user, system = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
                    times[int(folder.name)] = int(user) + int(system)
        return times

    def _read(self):
        for line in self._node.stdout:
            answer = json.loads(line)
            if "id" in answer:
                self._answers[answer["id"]].put(answer)
            else:
                for handler in self._listeners.get(answer["page"], ()):
                    handler(ConsoleLine(answer["text"]))

    def close(self):
        self._node.stdin.close()
        try:
            self._node.wait(DEADLINE)
        finally:
            self._node.kill()


class FirefoxTab:
    """A tab, with those methods of Playwright's Page that pages.Page calls."""

    def __init__(self, firefox, name):
        self._firefox = firefox
        self._name = name

    def call(self, method, *args):
        return self._firefox.result(self._firefox.call(self._name, method, *args))

    def goto(self, url):
        self.call("goto", url)

    def reload(self):
        self.call("reload")

    def go_back(self):
        """Go back, without waiting: a page out of the cache is not loaded."""
        self.call("evaluate", "history.back()")

    def evaluate(self, javascript):
        """Return the value of an expression or, if it is a function, of its call; if it is a promise, its result."""
        call = f"(async () => {{ const it = ({javascript}); return typeof it === 'function' ? it() : it; }})()"
        return self.call("evaluate", call)

    def wait_for_function(self, javascript):
        return Value(wait_for(lambda: self._is_true(javascript), javascript))

    def _is_true(self, javascript):
        try:
            return self.evaluate(javascript)
        except AssertionError:  # a page that is being replaced, or is not there yet
            return None

    def show(self):
        """Bring the tab to the front: the one that was there is hidden."""
        self.call("show")

    def set_offline(self, is_offline):
        """Take the page's network away, which fires its event "offline"; connections that are open stay open."""
        self.call("offline", is_offline)

    def on(self, event, handler):
        """Call the handler with each line of the page's console."""
        assert event == "console"
        self._firefox.listen(self._name, handler)

    def wait_for_timeout(self, milliseconds):
        time.sleep(milliseconds / 1000)

    def crash(self):
        self._firefox.crash(self)

    def close(self):
        self._firefox.call(self._name, "close")  # a crashed tab gives no answer


class ConsoleLine(NamedTuple):
    text: str
