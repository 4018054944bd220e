"""A small Debian in a folder, from debootstrap, as images of Debian have it. It is made once for each user."""

import fcntl
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import zlib

from conftest import need

VERSION = 1  # of what debian() makes: another number makes it again
TRIES = 3


def debian(suite):
    """Return the folder of a minimal Debian, which nobody may change. It takes half a minute for the first time."""
    need(os.geteuid() == 0 and shutil.which("debootstrap"), "debootstrap and root (apt-get install debootstrap)")
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "relay-tests"
    cache.mkdir(parents=True, exist_ok=True)
    mirror = _mirror()
    root = cache / f"debian-{suite}-{VERSION}-{zlib.crc32(repr(mirror).encode()):08x}"
    with (cache / f"{suite}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test may be making it
        if not root.exists():
            _make(suite, root, mirror)
    return root


def _make(suite, root, mirror):
    for left in root.parent.glob(f"{root.name}.*"):  # by a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    is_made = any(_is_made(suite, root, mirror) for _ in range(TRIES))
    need(is_made, f"a mirror of Debian with {suite}")


def _is_made(suite, root, mirror):
    """Make it, and return whether that worked: the network may fail."""
    new = pathlib.Path(tempfile.mkdtemp(prefix=f"{root.name}.", dir=root.parent))
    try:
        new.chmod(0o755)
        # In a mount namespace, so that its mounts end with it.
        command = ["unshare", "--mount", "debootstrap", "--variant=minbase", suite, str(new), *mirror]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if ran.returncode:
            print(ran.stdout[-2000:] + ran.stderr[-2000:])
            return False
        shutil.rmtree(new / "var/cache/apt/archives", ignore_errors=True)
        new.rename(root)  # half of it is never found under this name
        return True
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _mirror():
    """Return this machine's mirror of Debian, if it names one; otherwise debootstrap uses Debian's own."""
    files = [pathlib.Path("/etc/apt/sources.list"), *pathlib.Path("/etc/apt/sources.list.d").glob("*")]
    for file in files:
        if file.is_file() and (found := re.search(r"^[^#\n]*?(https?://\S+/debian)/?(?:\s|$)", file.read_text(), re.M)):
            return [found[1]]
    return []
