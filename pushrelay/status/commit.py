"""The commit of a relay that runs from a clone of its repository, read from Git's files without Git."""

import contextlib
import pathlib
import re

_HASH = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
SHOWN = 7  # characters


def commit_of(folder: pathlib.Path) -> str | None:
    """Return the abbreviated hash of the commit that is checked out in a folder; None if that is not known."""
    with contextlib.suppress(OSError, UnicodeError):
        git = folder / ".git"
        if git.is_file():  # a worktree: the file names the folder
            git = folder / git.read_text().partition("gitdir:")[2].strip()
        head = (git / "HEAD").read_text().strip()
        found = _resolved(git, head.removeprefix("ref:").strip()) if head.startswith("ref:") else head
        if found and _HASH.fullmatch(found):
            return found[:SHOWN]
    return None


def _resolved(git: pathlib.Path, ref: str) -> str | None:
    """Return the hash of a branch, which is in a file of its own or in `packed-refs`."""
    common = git
    with contextlib.suppress(OSError):
        common = git / (git / "commondir").read_text().strip()
    with contextlib.suppress(OSError):
        return (common / ref).read_text().strip()
    for line in (common / "packed-refs").read_text().splitlines():
        if line.endswith(f" {ref}"):
            return line.partition(" ")[0]
    return None
