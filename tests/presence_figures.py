"""The costs of presence on this machine: python tests/presence_figures.py [pages, default 2000]

CPU of the relay for a user who comes and leaves, with more and more watchers; the time until that many pages, each of a
user and each a watcher, have complete lists after a start; and the memory of a member.
"""

import asyncio
import json
import pathlib
import resource
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from audience import SECRET, token  # noqa: E402
from conftest import Relay  # noqa: E402
from measures import cpu_seconds, rss  # noqa: E402
from presence_chaos import ROOM, Page, open_all  # noqa: E402

AT_ONCE = 20  # sockets that register and unregister in turn
PAIRS = 2000  # times that a user comes and leaves


class Watcher(Page):
    """A page that only keeps the ids of the members, because this machine must serve thousands of them."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.ids, self.packets, self.size = set(), 0, 0

    def take(self, packet):
        self.size += len(packet)
        if '"members"' in packet[:300]:
            start = packet.index("[")
            self.ids = {each["id"] for each in json.loads(packet[start:])[0]["members"]}
            self._answers.pop(int(packet[2:start])).set_result({"ok": True})
        elif packet.startswith('42["relay_presence"'):
            self.packets += 1
            for each in json.loads(packet[2:])[1]["events"]:
                if "join" in each:
                    self.ids.add(each["join"]["id"])
                else:
                    self.ids.discard(each["leave"])
        else:
            super().take(packet)


def start(folder, **settings):
    common = {"ping_interval": 120, "ping_timeout": 120, "max_per_address": 20_000, "max_event_rate": 100_000}
    return Relay(folder / f"log{time.monotonic_ns()}", secret=SECRET, **common, **settings)


async def come_and_leave(relay, user):
    """Return the CPU in µs for a register and an unregister, by pages of users or by nameless ones."""
    pages = [Page(relay.port) for _ in range(AT_ONCE)]
    await open_all(pages)

    async def work(number, page):
        message = {"id": ROOM, "token": token(user=f"user-{number}" if user else None)}
        for _ in range(PAIRS // AT_ONCE):
            assert (await page.call("register", message))["ok"]
            await page.call("unregister", {"id": ROOM})

    before = cpu_seconds(relay)
    await asyncio.gather(*(work(number, page) for number, page in enumerate(pages)))
    await asyncio.sleep(1.5)  # for the last batch
    used = cpu_seconds(relay) - before
    await asyncio.gather(*(each.close() for each in pages))
    return used / PAIRS * 1e6


async def changes(folder, count):
    relay = start(folder, presence_grace=0)
    watchers = [Watcher(relay.port) for _ in range(count)]
    await open_all(watchers)
    await asyncio.gather(*(each.watch() for each in watchers))
    plain, named = await come_and_leave(relay, False), await come_and_leave(relay, True)
    packets = sum(each.packets for each in watchers) / max(1, count)
    print(
        f"{count:5} watchers: a join and a leave {named - plain:4.0f} µs, beside the register and the unregister",
        end="",
    )
    print(f" ({plain:.0f} µs); {2 * PAIRS} events in {packets:.0f} packets", flush=True)
    await asyncio.gather(*(each.close() for each in watchers))
    relay.kill()


async def come_back(folder, count):
    relay = start(folder)
    pages = [Watcher(relay.port, f"user-{number}") for number in range(count)]
    began, cpu = time.monotonic(), cpu_seconds(relay)

    doors = asyncio.Semaphore(200)

    async def enter_in_turn(page):
        async with doors:
            await page.open()
        await page.watch()

    await asyncio.gather(*map(enter_in_turn, pages))
    while not all(len(each.ids) == count for each in pages):
        await asyncio.sleep(0.05)
    size = sum(each.size for each in pages) / count
    print(f"{count} pages come to a new relay: all lists are complete after {time.monotonic() - began:.1f} s; ", end="")
    print(f"{cpu_seconds(relay) - cpu:.1f} s of the relay's CPU, {size:.0f} bytes to each page")
    relay.kill()
    await asyncio.gather(*(each.close() for each in pages))


async def memory(folder, count):
    found = {}
    for user in (False, True):
        relay = start(folder)
        pages = [Page(relay.port, f"user-{number}") for number in range(count)]
        for number, page in enumerate(pages):
            page.register = {"id": ROOM, "token": token(user=f"user-{number}" if user else None)}
        before = rss(relay)
        await open_all(pages)
        await asyncio.sleep(1)
        found[user] = (rss(relay) - before) / count
        relay.kill()
        await asyncio.gather(*(each.close() for each in pages))
    print(f"a client with a token {found[False]:.0f} bytes, one that is a member {found[True] - found[False]:.0f} more")


async def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for watchers in (0, 1, 100, count):
            await changes(folder, watchers)
        await come_back(folder, count)
        await memory(folder, count)


if __name__ == "__main__":
    asyncio.run(main())
