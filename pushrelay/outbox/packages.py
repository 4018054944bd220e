"""The package that the outbox needs. It is an extra: a relay without an outbox runs without it."""

from pushrelay.packages import Bounds, require

# The same range as in requirements-outbox.txt and in pyproject.toml; a test compares them. From 1.2 on, PyMySQL
# encrypts connections if the server can, which the usual accounts of MySQL 8 ask for.
NEEDED: dict[str, Bounds] = {"PyMySQL": ((1, 2), (2,))}


def check_outbox_packages() -> None:
    """Raise PackageMissing, with the line to type, unless the package is installed in a version that can be used."""
    require(NEEDED, "requirements-outbox.txt", "the setting outbox")
