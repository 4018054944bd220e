"""Users who come and go in every way: python tests/presence_chaos.py --seconds 60 --users 2000 --seed 1

Pages open, reload, change, unregister and close; whole groups of them are killed (SIGKILL) or freeze, so that their
connections are half open. Watchers come and go too: each begins with a list, applies the events that follow, and checks
that none is missing or comes twice. At every quiet moment all watchers, and GET /presence, must have exactly the users
who have a page; and a user who only changes pages must never have left. With `--relays 2` there are several relays on
one Redis, of which one is killed now and then. The exit code is 1 if something is wrong.
"""

import argparse
import asyncio
import contextlib
import json
import pathlib
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from audience import SECRET, Replica, token  # noqa: E402
from clients import event, frame  # noqa: E402
from conftest import Relay  # noqa: E402
from crowd import AT_ONCE, WebSocketMember  # noqa: E402

from pushrelay.store.redis.link import LEASE_SECONDS  # noqa: E402

ROOM = "room"
GRACE = 2.0
QUIET_SECONDS = 60.0  # within which everything must be right at a quiet moment
GROUPS = 4  # processes with users that are killed or freeze


class Page(WebSocketMember):
    """A page of a user, or a watcher. `gone` is set when its connection has ended."""

    def __init__(self, port, user=None):
        super().__init__(port, ROOM)
        self.user = user
        self.register = {"id": ROOM if user else "lobby", "token": token(user=user, presence="*")}
        self.replica, self.errors = None, []
        self.gone = asyncio.Event()
        self._answers = {}
        self._task = None

    async def open(self):
        await super().open()
        self._task = asyncio.create_task(self._listen())
        return self

    async def _listen(self):
        try:
            await self.run()
        finally:
            self.gone.set()

    def take(self, packet):
        if packet.startswith("43"):
            start = packet.index("[")
            (answer,) = json.loads(packet[start:])
            waiting = self._answers.pop(int(packet[2:start]), None)
            if "members" in answer:
                self.replica = Replica(ROOM, answer)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)
        elif packet.startswith('42["relay_presence"'):
            try:
                self.replica.take(json.loads(packet[2:])[1])
            except Exception as error:
                self.errors.append(error)

    async def call(self, name, message):
        number = random.randrange(100, 1 << 30)
        self._answers[number] = waiting = asyncio.get_running_loop().create_future()
        self._writer.write(frame(event(name, message, number)))
        return await asyncio.wait_for(waiting, QUIET_SECONDS)

    async def watch(self):
        answer = await self.call("presence", {"id": ROOM})
        assert answer["ok"], answer
        return self

    async def close(self):
        self.drop()
        await self.gone.wait()


async def open_all(pages):
    """Open pages, some at a time."""
    doors = asyncio.Semaphore(AT_ONCE)

    async def enter(page):
        async with doors:
            await page.open()

    await asyncio.gather(*map(enter, pages))


class Group:
    """A process with one page for each of some users."""

    def __init__(self, port, users):
        self.port, self.users = port, set(users)
        command = [sys.executable, __file__, "--group", str(port), *users]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)

    async def wait_until_open(self):
        line = await asyncio.to_thread(self.process.stdout.readline)
        assert line == b"open\n", "the pages of a group could not be opened"

    def end(self, how=signal.SIGKILL):
        self.process.send_signal(how)
        if how == signal.SIGKILL:
            self.process.wait()
            self.process.stdout.close()


class Run:
    """One run: `figures` is its result. Raises AssertionError if something is wrong."""

    def __init__(self, folder, options):
        self.options = options
        self.folder = folder
        self.random = random.Random(options.seed)
        self.relays, self.redis = [], None
        self.pages = {}  # by user: the pages in this process
        self.groups, self.frozen, self.watchers = [], [], []
        self.left = set()  # users who may have been seen to leave
        self.figures = dict.fromkeys(("events", "opened", "closed", "changes", "killed", "frozen", "watchers"), 0)

    def start(self):
        ping = self.options.ping
        settings = {"secret": SECRET, "presence_grace": GRACE, "ping_interval": ping, "ping_timeout": ping}
        if self.options.relays > 1:
            from redis_server import RedisServer

            self.redis = RedisServer(self.folder / "redis")
            self.redis.__enter__()
            settings["broker"] = self.redis.url
        for number in range(self.options.relays):
            self.relays.append(Relay(self.folder / f"log{number}", node=f"node-{number}", **settings))

    def close(self):
        for each in self.groups:
            each.end(signal.SIGCONT)
            each.end()
        for each in self.relays:
            each.kill()
        if self.redis is not None:
            self.redis.__exit__()

    @property
    def port(self):
        return self.random.choice(self.relays).port

    async def go(self):
        """Run for the time in the options; return the figures."""
        users = [f"user-{number}" for number in range(self.options.users)]
        shares = [users[n :: 2 * GROUPS] for n in range(GROUPS)]  # half of all
        self.groups = [Group(self.port, each) for each in shares]
        self.watchers = [await (await Page(self.port).open()).watch()]
        others = [each for share in range(GROUPS, 2 * GROUPS) for each in users[share :: 2 * GROUPS]]
        pages = [Page(self.port, each) for each in others]
        await open_all(pages)
        self.pages = {page.user: [page] for page in pages}
        for each in self.groups:
            await each.wait_until_open()
        await self._check()
        ends = time.monotonic() + self.options.seconds
        while time.monotonic() < ends:
            await self._churn()
            await self._check()
        self.figures["events"] = max(len(each.replica.history) for each in self.watchers)
        return self.figures

    async def _churn(self):
        """Do many things at once, for a moment."""
        changing = self.random.sample(sorted(self.pages), len(self.pages) // 10)
        deeds = [self._change_page(each) for each in changing if each not in self.left]
        rest = [each for each in self.pages if each not in changing]
        deeds += [self._visit(each) for each in self.random.sample(rest, len(rest) // 5)]
        deeds += [self._lose_group(), self._new_watcher(), self._new_watcher()]
        if len(self.watchers) > 6:
            deeds.append(self.watchers.pop(0).close())
        await asyncio.gather(*deeds)
        if len(self.relays) > 1:
            await self._lose_relay()
        for each in self.watchers:
            assert not each.errors, each.errors

    async def _change_page(self, user):
        """Go to another page of the site, several times. The user must not be seen to leave."""
        for _ in range(2):
            pages, before = self.pages[user], time.monotonic()
            await pages.pop().close()
            pages.append(await Page(self.port, user).open())
            if time.monotonic() - before > GRACE / 2:  # this machine was too slow
                self.left.add(user)
            self.figures["changes"] += 1

    async def _visit(self, user):
        """Open a tab, close one, or unregister."""
        self.left.add(user)
        pages = self.pages[user]
        await asyncio.sleep(self.random.uniform(0, 0.5))
        if not pages or self.random.random() < 0.4:
            pages.append(await Page(self.port, user).open())
            self.figures["opened"] += 1
        elif self.random.random() < 0.3:
            await pages[-1].call("unregister", {"id": ROOM})
            await pages.pop().close()
        else:
            await pages.pop().close()
            self.figures["closed"] += 1

    async def _lose_group(self):
        """Kill or freeze a process with many users, and start it again with other ones."""
        group = self.random.choice(self.groups)
        self.left |= group.users
        if group in self.frozen:
            self.frozen.remove(group)
        elif self.options.freezes and self.random.random() < 0.5:
            group.end(signal.SIGSTOP)
            self.frozen.append(group)
            self.figures["frozen"] += 1
            return
        self.groups.remove(group)
        await asyncio.to_thread(group.end)
        self.figures["killed"] += 1
        some = self.random.sample(sorted(group.users), len(group.users) - len(group.users) // 4)
        self.groups.append(Group(self.port, some))
        await self.groups[-1].wait_until_open()

    async def _lose_relay(self):
        """Kill a relay; some of its pages come back to others, and the relay later."""
        relay = self.random.choice(self.relays)
        self.relays.remove(relay)
        await asyncio.to_thread(relay.kill)
        self.figures["lost relays"] = self.figures.get("lost relays", 0) + 1
        self.watchers = [each for each in self.watchers if each.port != relay.port]
        back, killed = [], time.monotonic()
        for user, pages in self.pages.items():
            here = [each for each in pages if each.port == relay.port]
            if here and self.random.random() < 0.5:
                self.left.add(user)
            elif here:
                back.append((user, Page(self.port, user)))
            self.pages[user] = [each for each in pages if each not in here]
        await open_all([page for _, page in back])
        for user, page in back:
            self.pages[user].append(page)
        if time.monotonic() - killed > LEASE_SECONDS / 2:  # this machine was too slow
            self.left.update(user for user, _ in back)
        for group in [each for each in self.groups if each.port == relay.port]:
            self.left |= group.users
            self.groups.remove(group)
            await asyncio.to_thread(group.end)
            self.groups.append(Group(self.port, group.users))
            await self.groups[-1].wait_until_open()
        await asyncio.to_thread(relay.start)
        self.relays.append(relay)
        if not self.watchers:
            await self._new_watcher()

    async def _new_watcher(self):
        await asyncio.sleep(self.random.uniform(0, 0.5))
        self.watchers.append(await (await Page(self.port).open()).watch())
        self.figures["watchers"] += 1

    def _truth(self):
        here = {user for user, pages in self.pages.items() if pages}
        return here.union(*(each.users for each in self.groups if each not in self.frozen))

    async def _check(self):
        """Wait until everybody agrees with the truth."""
        truth, ends = self._truth(), time.monotonic() + QUIET_SECONDS
        while wrong := await self._wrong(truth):
            assert time.monotonic() < ends, wrong
            await asyncio.sleep(0.2)
        for watcher in self.watchers:
            gone = {user for kind, user in watcher.replica.history if kind == "leave"}
            assert gone <= self.left, f"these have only changed pages: {sorted(gone - self.left)[:5]}"
        assert len({each.replica.version for each in self.watchers}) == 1 or self.options.relays > 1

    async def _wrong(self, truth):
        pages = [page for each in self.pages.values() for page in each]
        assert not [page.user for page in pages if page.gone.is_set()], "this machine was too slow: raise --ping"
        for number, watcher in enumerate(self.watchers):
            assert not watcher.errors and not watcher.gone.is_set(), (number, watcher.errors)
            if watcher.replica.ids != truth:
                more, less = watcher.replica.ids - truth, truth - watcher.replica.ids
                return f"watcher {number} has {len(more)} too many and lacks {len(less)}: {[*more, *less][:5]}"
        for relay in self.relays:
            answer = json.loads((await asyncio.to_thread(relay.request, "GET", f"/presence?destination={ROOM}"))[2])
            if {each["id"] for each in answer[ROOM].get("members", ())} != truth:
                return "GET /presence differs"
        return None


async def run_group(port, users):
    """Be a process with a page of each user."""
    await open_all([Page(port, each) for each in users])
    print("open", flush=True)
    await asyncio.Event().wait()


def options_of(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--relays", type=int, default=1)
    parser.add_argument("--ping", type=float, default=8, help="seconds between two pings, and for the answer to one")
    parser.add_argument("--no-freezes", dest="freezes", action="store_false", help="no half-open connections")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--group", nargs="+", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def run(folder, options):
    """Run, and return the figures."""
    chaos = Run(folder, options)
    try:
        chaos.start()
        return asyncio.run(chaos.go())
    finally:
        chaos.close()


def main():
    options = options_of(sys.argv[1:])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.group:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(run_group(int(options.group[0]), options.group[1:]))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(run(pathlib.Path(folder), options))


if __name__ == "__main__":
    main()
