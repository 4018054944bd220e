"""A user at a destination, and the destination with its users, as this node knows them."""

from pushrelay.json_text import quote


class Person:
    """A user at one destination, with all sockets of this node that hold it in the user's name.

    The lock of Members guards it.
    """

    __slots__ = ("due", "id", "info", "reserved", "since", "sockets")

    def __init__(self, id_: str):
        self.id = id_
        self.info = ""  # JSON; empty until a register has been completed, which makes the user a member
        self.since = 0.0  # seconds since 1970
        self.sockets = 0  # that hold the destination
        self.reserved = 0  # registers in progress
        self.due = 0.0  # when the user leaves if no socket comes back (monotonic); 0: there are some

    @property
    def is_member(self) -> bool:
        """Whether the user is a member, maybe in the time of grace."""
        return bool(self.info)


class Place:
    """A destination that has users."""

    __slots__ = ("name", "people", "sockets")

    def __init__(self, name: str):
        self.name = name
        self.people: dict[str, Person] = {}  # by id
        self.sockets: dict[str, Person] = {}  # by sid


def member_text(id_: str, info: str, since: float) -> str:
    """Return the JSON object that clients and programs get for a member. `info` is JSON."""
    return f'{{"id":{quote(id_)},"info":{info},"since":{since:.3f}}}'
