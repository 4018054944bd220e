"""The packages that a Redis needs. They are an extra: a relay without Redis runs without them."""

from pushrelay.packages import Bounds, require

# The same ranges as in requirements-redis.txt and in pyproject.toml; a test compares them.
NEEDED: dict[str, Bounds] = {"redis": ((7,), (9,)), "hiredis": ((3, 2), (4,))}


def check_packages() -> None:
    """Raise PackageMissing, with the line to type, unless the packages are installed in versions that can be used."""
    require(NEEDED, "requirements-redis.txt", "a broker on Redis")
