"""Thousands of clients in one process, for the tests: each registers one id and keeps its pushes.

They are asyncio on raw sockets. Clients of a real library would use more CPU than the relay, which would never be busy.
"""

import asyncio
import concurrent.futures
import contextlib
import json

from clients import PATH, UPGRADE, event, frame, handshake

AT_ONCE = 100  # clients that connect at the same time


class Member:
    """One client of a crowd."""

    path = PATH  # of the relay, up to the transport's name

    def __init__(self, port, name):
        self.port = port
        self.name = name
        self.got = []  # the `data` of each push, as it came
        self.lost = False
        self.heard = None  # called with each push
        self.register = {"id": name}
        self.answer = None  # the answer to the registration
        self.noted = None  # called with it
        self._reader = self._writer = None

    async def _connect(self):
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)

    def take(self, packet):
        """Handle a Socket.IO message, and keep pushes."""
        if packet.startswith('42["push",'):
            self.got.append(json.loads(packet[2:])[1]["data"])
            if self.heard is not None:
                self.heard(self)

    def _take_or_note(self, packet):
        """Handle a message while the answer to the registration is expected."""
        if packet.startswith("431"):
            self.answer = json.loads(packet[3:])[0]
            assert self.answer["ok"], packet
            if self.noted is not None:
                self.noted(self.answer)
        else:
            self.take(packet)

    async def run(self):
        """Read until the connection ends."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self.listen()
        self.lost = True

    def drop(self):
        if self._writer is not None:
            self._writer.transport.abort()


class WebSocketMember(Member):
    async def open(self):
        await self._connect()
        self._writer.write(UPGRADE if self.path == PATH else handshake(self.path + "websocket"))
        assert b" 101 " in await self._reader.readuntil(b"\r\n\r\n")
        self._writer.write(frame("40") + frame(event("register", self.register, 1)))
        while self.answer is None:
            self._take_or_note(await self._packet())

    async def _packet(self):
        head = await self._reader.readexactly(2)
        size = head[1]
        if size > 125:
            size = int.from_bytes(await self._reader.readexactly(2 if size == 126 else 8), "big")
        payload = await self._reader.readexactly(size)
        if head[0] & 0x0F != 1:
            raise EOFError("closed")
        return payload.decode()

    async def listen(self):
        with contextlib.suppress(EOFError):
            while True:
                packet = await self._packet()
                if packet == "2":
                    self._writer.write(frame("3"))
                else:
                    self.take(packet)


class PollingMember(Member):
    """A client that long-polls on one connection, one request after the other."""

    async def open(self):
        await self._connect()
        self._path = self.path + "polling"
        self._path += "&sid=" + json.loads((await self._request("GET"))[1:])["sid"]
        await self._request("POST", "40\x1e" + event("register", self.register, 1))
        while self.answer is None:
            for packet in (await self._request("GET")).split("\x1e"):
                self._take_or_note(packet)

    async def _request(self, method, body=""):
        head = f"{method} {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
        self._writer.write((head + body).encode())
        return await read_answer(self._reader)

    async def listen(self):
        while True:
            for packet in (await self._request("GET")).split("\x1e"):
                if packet == "2":
                    await self._request("POST", "3")
                else:
                    self.take(packet)


class ReconnectingPollingMember(PollingMember):
    """A client that long-polls with a new connection for each request."""

    async def _request(self, method, body=""):
        self.drop()
        await self._connect()
        return await super()._request(method, body)


async def read_answer(reader):
    """Return the body of one answer with a Content-Length or in chunks. Raise ConnectionError if it is not a 200."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    lengths = [int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")]
    body = await (reader.readexactly(lengths[0]) if lengths else read_chunks(reader))
    if b" 200 " not in head[:15]:
        raise ConnectionError(body.decode())
    return body.decode()


async def read_chunks(reader):
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    return body


class Pusher:
    """A publisher with one connection."""

    async def open(self, port):
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        return self

    async def push(self, destination, data):
        body = f"destination={destination}&data={data}".encode()
        head = f"POST /push HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        self._writer.write(head + body)
        return json.loads(await read_answer(self._reader))


@contextlib.asynccontextmanager
async def crowd(port, websockets, polling=0, polling_member=PollingMember):
    """That many clients, connected and registered as client-0, client-1 and so on; they leave at once at the end."""
    members = [WebSocketMember(port, f"client-{n}") for n in range(websockets)]
    members += [polling_member(port, f"client-{websockets + n}") for n in range(polling)]
    doors = asyncio.Semaphore(AT_ONCE)

    async def enter(member):
        async with doors:
            await member.open()

    tasks = []
    try:
        await asyncio.gather(*(enter(member) for member in members))
        tasks = [asyncio.create_task(member.run()) for member in members]
        yield members
    finally:
        for task in tasks:  # first, because a member may be about to reconnect
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for member in members:
            member.drop()


async def until(condition, what, deadline=60.0):
    """conftest's wait_for, for asyncio."""
    end = asyncio.get_running_loop().time() + deadline
    while not condition():
        assert asyncio.get_running_loop().time() < end, f"{what} did not come true within {deadline:g} s"
        await asyncio.sleep(0.02)


def run(coroutine):
    """Run a coroutine in its own thread: Playwright keeps an event loop in the main one."""
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()
