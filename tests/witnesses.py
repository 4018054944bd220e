"""Publishers that know exactly what was answered, and clients that notice what is missing, repeated or out of order.

Every destination has one publisher, which gives its publications the numbers 1, 2, 3 and so on as `data`. Most of them
send a batch with idempotency keys, again and again until it is answered, and the next one waits. So each client must
receive each number of its destinations once, in order. A Witness keeps everything that is not so.

The others send no keys and no batch twice. If one is not answered with 200, nobody knows whether it was stored: its
numbers may come late or never, but not twice.
"""

import array
import collections
import contextlib
import json
import random
import re
import socket
import threading
import time
from typing import NamedTuple

from clients import PATH, TEXT, event, frame, handshake

ANSWER_SECONDS = 3.0  # for which a publisher waits; then it sends its batch to another relay
SLOW_SECONDS = 0.1  # a batch that took longer is remembered
LARGEST_BATCH = 48
HEAD = b"POST /push HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
MOST_HIGHER = 1000  # numbers that are kept of those that came before a late one
PUSH = re.compile(rb'42\["push",\{"data":(\d+),"id":"([^":]+):(\d+)","destination":"([^"]+)"\}\]')


class Slow(NamedTuple):
    """A batch that was answered late."""

    sent: float
    answered: float


class Publisher:
    """Pushes to its destinations through any of the relays, at most `rate` publications per second.

    `answered[destination]` has the position of each number, None if it is not known whether it was stored. `wrong` has
    answers that no relay may give. `has_keys`: see the beginning of this file.
    """

    def __init__(self, number, ports, destinations, rate, seed=0, has_keys=True):
        self.has_keys = has_keys
        self.ports, self.destinations, self.rate = list(ports), list(destinations), rate
        self.answered = {each: [] for each in destinations}
        self.count = 0
        self.slow = []
        self.refused = collections.Counter()  # by the word for programs, or the name of the exception
        self.wrong = []
        self._random = random.Random(f"{seed} publisher {number}")
        self._socket = None
        self._unread = b""
        self._port = number % len(self.ports)
        self._last_try = float("inf")  # after which an unanswered batch is given up
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self._thread.start()

    def stop(self, patience=30.0):
        """Finish the current batch, and return whether it was answered."""
        self._last_try = time.monotonic() + patience
        self._ended.set()
        self._thread.join()
        self._disconnect()
        return self.refused["given up"] == 0

    def worst(self, begin=0.0, end=float("inf")):
        """Return the seconds that the slowest batch took of those under way in this time."""
        slow = [each for each in self.slow if each.answered > begin and each.sent < end]
        return max((each.answered - each.sent for each in slow), default=0)

    def _run(self):
        next_time = time.monotonic()
        while not self._ended.wait(max(0.0, next_time - time.monotonic())):
            size = 1 if self._random.random() < 0.2 else self._random.randint(2, LARGEST_BATCH)
            batch = self._batch(size)
            if not self._publish(batch):
                self.refused["given up"] += 1
                return
            next_time = max(next_time + size / self.rate, time.monotonic() - 0.1)

    def _batch(self, size):
        """Return (destination, number) of the next publications."""
        numbers = {each: len(answered) for each, answered in self.answered.items()}
        batch = []
        for _ in range(size):
            destination = self._random.choice(self.destinations)
            numbers[destination] += 1
            batch.append((destination, numbers[destination]))
        return batch

    def _publish(self, batch):
        """Send a batch until it is answered. Return False if it was not when the time was over."""
        pushes = [f'{{"destination":"{to}","data":{number}{self._key(to, number)}}}' for to, number in batch]
        body = pushes[0] if len(pushes) == 1 else f"[{','.join(pushes)}]"
        begin = time.monotonic()
        while time.monotonic() < self._last_try:
            try:
                status, text = self._post(body.encode())
            except OSError as error:
                status = 0
                self.refused[type(error).__name__] += 1
            if status == 200:
                self._note(batch, text, begin)
                return True
            if status:
                self.refused[self._word_of(status, text)] += 1
            self._go_elsewhere()
            if not self.has_keys:
                for destination, _ in batch:
                    self.answered[destination].append(None)
                return True
        return False

    def _key(self, destination, number):
        return f',"id":"{destination}-{number}"' if self.has_keys else ""

    def _word_of(self, status, text):
        try:
            word = json.loads(text)["error"]
        except (ValueError, KeyError, TypeError):
            word = "no JSON"
        if status != 503:
            self.wrong.append(f"answered {status}: {text[:300]!r}")
        return f"{status} {word}"

    def _note(self, batch, text, begin):
        end = time.monotonic()
        if end - begin > SLOW_SECONDS:
            self.slow.append(Slow(begin, end))
        answers = json.loads(text)
        for (destination, _), answer in zip(batch, answers if isinstance(answers, list) else [answers], strict=True):
            if answer.get("destination") != destination or "id" not in answer:
                self.wrong.append(f"answered {answer} for {destination}")
            self.answered[destination].append(answer.get("id"))
        self.count += len(batch)

    def _go_elsewhere(self):
        self._disconnect()
        self._port = (self._port + 1) % len(self.ports)
        time.sleep(0.02)

    def _disconnect(self):
        if self._socket is not None:
            self._socket.close()
        self._socket, self._unread = None, b""

    def _post(self, body):
        """Return (status, body). Raises OSError."""
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self.ports[self._port]), 1.0)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.settimeout(ANSWER_SECONDS)
        self._socket.sendall(HEAD % len(body) + body)
        while b"\r\n\r\n" not in self._unread:
            self._receive()
        head, _, rest = self._unread.partition(b"\r\n\r\n")
        length = int(re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)[1])
        self._unread = rest
        while len(self._unread) < length:
            self._receive()
        text, self._unread = self._unread[:length], self._unread[length:]
        return int(head[9:12]), text

    def _receive(self):
        data = self._socket.recv(1 << 16)
        if not data:
            raise ConnectionError("the relay closed")
        self._unread += data


class Gap(NamedTuple):
    """Numbers that a witness did not get when their turn was."""

    destination: str
    first: int
    last: int
    is_told: bool  # the relay told the client that something is missing


class Told(NamedTuple):
    """The relay told a returning client that something may be missing."""

    destination: str
    since: str
    position: str

    def is_of_another_epoch(self):
        return self.since.rpartition(":")[0] != self.position.rpartition(":")[0]


class Witness:
    """A client that is registered for destinations, returns by itself with its last positions, and checks all it gets.

    `choose()` returns the port to connect to. The results:

    - `offsets[destination]` and `epochs[destination]`: where each number was; 0 is a number that never came.
    - `gaps`: Gap for each step over numbers, `told`: Told for each answer `recovered: false` to a position.
    - `repeated`: (destination, number, earlier position, this position) of what came twice.
    - `late`: (destination, number, higher numbers that had come before it).
    - `wrong`: everything else that must not be, in words.
    """

    def __init__(self, name, choose, destinations):
        self.name, self.destinations = name, list(destinations)
        self.offsets = {each: array.array("L") for each in destinations}
        self.epochs = {each: array.array("H") for each in destinations}
        self.gaps, self.told, self.repeated, self.late, self.wrong = [], [], [], [], []
        self.count = 0
        self.registrations = 0
        self.replayed = 0
        self.refused = collections.Counter()
        self._epoch_numbers = {}  # by epoch; its name is not stored for each publication
        self._choose = choose
        self._positions = {}  # destination: (epoch as bytes, offset) of what came last
        self._is_free = set()  # destinations of which any number may come next, because the client was told of a loss
        self._awaited = {}  # what was sent as since, until the answer
        self._early = {}  # destination: index in `gaps` of the first gap between a register and its answer
        self._answer = None
        self._socket = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self._thread.start()

    def drop(self):
        """End the current connection; the client comes back."""
        with contextlib.suppress(OSError, AttributeError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def stop(self):
        self._ended = True
        self.drop()
        self._thread.join()

    def has(self, destination, number, position=None):
        """Return whether a number, answered with this position, came, or the client was told that it may be missing."""
        return number <= len(self.offsets[destination]) or self.was_told(destination, position)

    def was_told(self, destination, position):
        """Return whether an answer `recovered: false` covers a publication after which nothing came."""
        epoch, _, offset = (position or "").rpartition(":")
        for told in self.told:
            if told.destination == destination and offset:
                told_epoch, _, told_offset = told.position.rpartition(":")
                if (epoch == told_epoch and int(offset) <= int(told_offset)) or epoch == told.since.rpartition(":")[0]:
                    return True
        return False

    def epoch_of(self, destination, number):
        """Return the epoch in which a number came."""
        index = self.epochs[destination][number - 1]
        return next(epoch for epoch, each in self._epoch_numbers.items() if each == index).decode()

    # The connection.

    def _run(self):
        while not self._ended:
            try:
                self._stay()
            except OSError as error:
                self.refused[f"{type(error).__name__} {error}"[:60]] += 1
            finally:
                if self._socket is not None:
                    self._socket.close()
            time.sleep(0.05)

    def _stay(self):
        port = self._choose()
        self._socket = socket.create_connection(("127.0.0.1", port), 1.0)
        self._socket.settimeout(ANSWER_SECONDS)
        self._socket.sendall(handshake(PATH + "websocket", f"127.0.0.1:{port}") + frame("40"))
        self._unread = self._after_handshake()
        self._register()
        self._take(b"")
        while not self._ended:
            data = self._socket.recv(1 << 18)
            if not data:
                raise ConnectionError("ended")
            self._take(data)

    def _after_handshake(self):
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self._socket.recv(1 << 16)
            if not piece:
                raise ConnectionError("ended in the handshake")
            data += piece
        head, _, rest = data.partition(b"\r\n\r\n")
        if b" 101 " not in head.splitlines()[0]:
            raise ConnectionError(head.splitlines()[0].decode())
        return rest

    def _register(self):
        self._awaited = {each: f"{epoch.decode()}:{at}" for each, (epoch, at) in self._positions.items()}
        self._early = {}
        message = {"id": self.destinations, "since": self._awaited or None}
        self._socket.sendall(frame(event("register", message, 1)))

    def _take(self, data):
        """Take the frames in the data."""
        data = self._unread + data
        at, end = 0, len(data)
        while end - at >= 2:
            size, begin = data[at + 1], at + 2
            if size > 125:
                begin += 2 if size == 126 else 8
                if begin > end:
                    break
                size = int.from_bytes(data[at + 2 : begin], "big")
            if begin + size > end:
                break
            self._packet(data[at] & 0x0F, data[begin : begin + size])
            at = begin + size
        self._unread = data[at:]

    def _packet(self, opcode, payload):
        if found := PUSH.fullmatch(payload):
            number, epoch, offset, destination = found.groups()
            self._push(destination.decode(), int(number), epoch, int(offset))
        elif opcode != TEXT:
            raise ConnectionError("closed by the relay")
        elif payload == b"2":
            self._socket.sendall(frame("3"))
        elif payload.startswith(b"0"):
            hello = json.loads(payload[1:])
            self._socket.settimeout((hello["pingInterval"] + hello["pingTimeout"]) / 1000)
        elif payload.startswith(b"431["):
            self._answered(json.loads(payload[3:])[0])
        elif payload.startswith(b'42["relay_drain"'):
            raise ConnectionError("drained")
        elif not payload.startswith(b"40"):
            self.wrong.append(f"was sent {payload[:200]!r}")

    # Packets that arrive.

    def _answered(self, answer):
        if not answer["ok"]:
            self.refused[answer["error"]] += 1
            if answer["error"] != "store_not_available":
                self.wrong.append(f"register was answered {answer}")
            time.sleep(0.1)
            self._register()
            return
        for destination, state in answer["ids"].items():
            epoch, _, offset = state["position"].rpartition(":")
            since = self._awaited.get(destination)
            if since is None:
                self._positions.setdefault(destination, (epoch.encode(), int(offset)))
            elif not state["recovered"]:
                self._note_loss(destination, since, epoch, int(offset), state["position"])
            self.replayed += state["replayed"]
        self._early = None
        self.registrations += 1

    def _note_loss(self, destination, since, epoch, offset, position):
        self.told.append(Told(destination, since, position))
        early = self._early.get(destination)
        if early is None:
            self._is_free.add(destination)
        else:  # the publications after it came before the answer that tells of it
            self.gaps[early] = self.gaps[early]._replace(is_told=True)
        last_epoch, last = self._positions[destination]
        if last_epoch != epoch.encode() or last < offset:
            self._positions[destination] = (epoch.encode(), offset)

    def _push(self, destination, number, epoch, offset):
        self.count += 1
        have = self.offsets[destination]
        if number == len(have) + 1:
            have.append(offset)
            self.epochs[destination].append(self._number_of(epoch))
        else:
            self._unusual(destination, number, epoch, offset)
        last_epoch, last = self._positions.get(destination, (epoch, offset - 1))
        if last_epoch == epoch and offset != last + 1:
            self.wrong.append(f"{destination}: offset {offset} came after {last}, number {number}")
        self._positions[destination] = (epoch, offset)
        if self._is_free:
            self._is_free.discard(destination)

    def _unusual(self, destination, number, epoch, offset):
        """Keep a number that is not the next one."""
        have, epochs = self.offsets[destination], self.epochs[destination]
        if number > len(have):
            if self._early is not None:
                self._early.setdefault(destination, len(self.gaps))
            self.gaps.append(Gap(destination, len(have) + 1, number - 1, destination in self._is_free))
            missing = number - 1 - len(have)
            have.extend([0] * missing + [offset])
            epochs.extend([0] * missing + [self._number_of(epoch)])
            return
        if have[number - 1]:
            before = f"{self.epoch_of(destination, number)}:{have[number - 1]}"
            self.repeated.append((destination, number, before, f"{epoch.decode()}:{offset}"))
        else:
            higher = [each for each in range(number + 1, len(have) + 1)[:MOST_HIGHER] if have[each - 1]]
            self.late.append((destination, number, higher))
        have[number - 1], epochs[number - 1] = offset, self._number_of(epoch)

    def _number_of(self, epoch):
        return self._epoch_numbers.setdefault(epoch, len(self._epoch_numbers))
