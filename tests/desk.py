"""Registrations with sockets that a test controls: each takes as much as the test allows, and notes everything."""

import contextlib
import json
import threading
from collections import defaultdict, deque

from pushrelay.errors import Refused, StoreError
from pushrelay.register.registrations import Registrations
from pushrelay.register.subscription import delivery
from pushrelay.rooms.deferred import DeferredPackets
from pushrelay.settings import Settings
from pushrelay.store import open_broker
from pushrelay.store.stripe import Pending

SECRET = "0123456789" * 4


class Sockets:
    """A Socket.IO manager without a network."""

    can_defer = True

    def __init__(self):
        self.here = set()
        self.rooms = defaultdict(dict)  # room: sids
        self.wire = defaultdict(list)  # sid: (event, message) or ("answer", answer), in order
        self.space = {}  # sid: how many publications of a replay it takes; without an entry any number
        self.waiting = {}  # sid: the callback for when it has room
        self.before_delivery = lambda: None

    # Called by the relay.

    def is_connected(self, sid, namespace):
        return sid in self.here

    def get_rooms(self, sid, namespace):
        return [sid, *(room for room, sids in self.rooms.items() if sid in sids)] if sid in self.here else []

    def overdraft(self, sid):
        return 0.0  # no socket is over its limit

    def charge(self, sid, events):
        pass

    def enter_room(self, sid, namespace, room):
        if sid not in self.here:
            raise ValueError("sid is not connected to requested namespace")
        self.rooms[room][sid] = True

    def leave_room(self, sid, namespace, room):
        self.rooms[room].pop(sid, None)

    def sids_in(self, rooms):
        return {sid for room in rooms for sid in self.rooms[room]}

    def deliver_text(self, write, room, skip_sid=None):
        sids = [sid for sid in self.rooms[room] if sid != skip_sid]
        for sid in sids:
            self.before_delivery()
            self.send_text(write(), sid)
        return len(sids)

    deliver_in_turns = deliver_text

    def send_text(self, text, sid):
        if sid in self.here:
            self.wire[sid].append(tuple(json.loads(text)))

    def send_if_clear(self, text, sid):
        space = self.space.get(sid)
        if space == 0:
            return False
        if space is not None:
            self.space[sid] = space - 1
        self.send_text(text, sid)
        return True

    def has_room(self, sid, size):
        return self.space.get(sid) != 0

    def has_outbox(self, sid):
        return sid in self.space

    def call_when_clear(self, sid, callback):
        self.waiting[sid] = callback

    def let_stay(self, sid):
        pass

    def share_of(self, sid):
        return None

    def disconnect_all(self, sids):
        for sid in sids:
            self.send_text('["disconnect"]', sid)
            self.leave(sid)

    def close_transport(self, sid):
        self.send_text('["cut"]', sid)
        self.leave(sid)

    # Called by the test.

    def leave(self, sid):
        self.here.discard(sid)
        for sids in self.rooms.values():
            sids.pop(sid, None)
        if callback := self.waiting.pop(sid, None):
            callback()

    def read(self, sid, space=None):
        """Let a socket take at most `space` more publications of its replay; None for any number."""
        self.space.pop(sid, None)
        if space is not None:
            self.space[sid] = space
        if callback := self.waiting.pop(sid, None):
            callback()


class Desk:
    """A broker, its registrations and their sockets. Pushes are stored at once, and delivered by hand_out()."""

    def __init__(self, url="memory:", settings=None, **options):
        self.settings = settings or Settings()
        self.sockets = Sockets()
        self.broker = open_broker(url, delivery(self.sockets, self.settings), **options)
        self.broker.start()
        self.registrations = Registrations(self.broker, self.sockets, self.settings, lambda *_: None)
        self.environs = {}
        self.stored = deque()  # not delivered yet
        self._deferred = DeferredPackets(self._handle, lambda callback, *args: callback(*args))

    def connect(self, sid, cookie=""):
        self.sockets.here.add(sid)
        self.environs[sid] = {"HTTP_COOKIE": cookie}
        return sid

    def leave(self, sid):
        self.sockets.leave(sid)
        self._deferred.forget(sid)

    def emit(self, sid, event, **message):
        """Handle an event of a socket, or keep it behind one that waits."""
        assert self._deferred.receive(sid, (event, message), 10**6)

    def call(self, sid, event, **message):
        """Handle an event that need not wait. Return the answer."""
        count = len(self.sockets.wire[sid])
        self.emit(sid, event, **message)
        last = self.sockets.wire[sid][count:][-1]
        assert last[0] == "answer", f"it waits: {last}"
        return last[1]

    def register(self, sid, id_, **message):
        return self.call(sid, "register", id=id_, **message)["ids"]

    def _handle(self, sid, packet):
        event, message = packet
        if sid not in self.sockets.here:
            return
        try:
            answer = {"ok": True, **(getattr(self.registrations, event)(message, sid, self.environs[sid]) or {})}
        except Refused as error:
            answer = {"ok": False, "error": error.error}
        except StoreError:
            answer = {"ok": False, "error": "store_not_available"}
        self.sockets.wire[sid].append(("answer", answer))

    def store(self, destination, *values, **fields):
        """Store publications without delivering them. Return their ids."""
        items = [Pending(destination, value, **fields) for value in values]
        self.broker.store(items)
        self.stored.extend(items)
        return [item.position for item in items]

    def hand_out(self):
        items = list(self.stored)
        self.stored.clear()
        self.broker.hand_out(items)

    def push(self, destination, *values, **fields):
        ids = self.store(destination, *values, **fields)
        self.hand_out()
        return ids

    def since(self, offset):
        return f"{self.broker.epoch}:{offset}"

    def got(self, sid):
        """Return the data of the events that a socket was sent, in order."""
        return [message["data"] for event, message in self._messages(sid) if event == "push"]

    def answers(self, sid):
        return [message for event, message in self._messages(sid) if event == "answer"]

    def _messages(self, sid):
        return [each for each in self.sockets.wire[sid] if len(each) == 2]

    def live_queues(self):
        queues = (queues for stripe in self.broker._dispatcher.stripes for queues in stripe.live_queues.values())
        return [queue for each in queues for queue in each]

    def close(self):
        self.broker.close()


@contextlib.contextmanager
def desks(url):
    """Yield a function that opens desks on this store, which close with the context."""
    with contextlib.ExitStack() as opened:
        yield lambda **options: opened.enter_context(contextlib.closing(Desk(url, **options)))


def start_thread(function, *args):
    """Run a function in its own thread. Return the thread."""
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread
