"""The files in static/, each compressed once and with an ETag. Pages of any origin may load the browser client.

The relay's own pages consist of several files. An upgrade replaces them while the relay runs, and a browser may have
cached some of an older version. So a page gets the addresses of its files from `address_of`: they contain a digest of
all of them, and the relay serves them as they were when it started. No page mixes two versions.
"""

import datetime
import gzip
import hashlib
import mimetypes
import pathlib
from typing import NamedTuple

from werkzeug.exceptions import NotFound
from werkzeug.security import safe_join
from werkzeug.wrappers import Request, Response

CLIENT = ("relay.js", "relay.mjs", "relay.min.js", "relay.min.js.map")
# These let pages of other origins load the client as a module, with `integrity`, and under COEP.
_FOR_ALL = {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}
PAGES = "pages/"  # the folder of the files of the relay's own pages
_TYPES = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".map": "application/json",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
}
# Any cache may keep a file, but must revalidate it each time, because an upgrade of the relay changes it.
_REVALIDATED = "public, no-cache"
_FOR_EVER = "public, max-age=31536000, immutable"
_COMPRESSED = ("text/", "image/svg", "application/json")


class _File(NamedTuple):
    """A file's contents when it was read."""

    stamp: tuple[int, int]  # modification time in nanoseconds, size
    mimetype: str
    plain: bytes
    packed: bytes  # empty if compression saves nothing
    digest: str


class StaticFiles:
    """Serves the files of one folder, and reads them again when they change, except those of the relay's own pages.

    Any thread may call it.
    """

    def __init__(self, folder: str):
        self._folder = folder
        self._client = [safe_join(folder, name) for name in CLIENT]
        self._files: dict[str, _File] = {}  # by path; bounded, because only files that exist are in it
        self._pages = _read_all(pathlib.Path(folder, PAGES))  # as they were at the start
        self._prefix = f"pages-{_digest_of(self._pages)}/"

    def address_of(self, name: str) -> str:
        """Return the name under which a page must load this file: for files of pages, a name for this version only."""
        return self._prefix + name.removeprefix(PAGES) if name.startswith(PAGES) else name

    def response(self, name: str, request: Request) -> Response:
        """Return the response to a GET or HEAD of a file; a 304 if the client has it. Raises NotFound."""
        if name.startswith(self._prefix):
            return _response(self._pinned(name.removeprefix(self._prefix)), request, {"Cache-Control": _FOR_EVER})
        path = safe_join(self._folder, name) or ""
        headers = {"Cache-Control": _REVALIDATED, **(_FOR_ALL if path in self._client else {})}
        return _response(self._read(path), request, headers)

    def _pinned(self, name: str) -> _File:
        """Return a file of a page as it was at the start."""
        if name not in self._pages:
            raise NotFound
        file = self._files.get(self._prefix + name)
        if file is None:
            file = self._files[self._prefix + name] = _packed(name, *self._pages[name])
        return file

    def _read(self, path: str) -> _File:
        try:
            found = pathlib.Path(path).stat()
            stamp = found.st_mtime_ns, found.st_size
            file = self._files.get(path)
            if file is None or file.stamp != stamp:
                file = self._files[path] = _packed(path, stamp, pathlib.Path(path).read_bytes())
        except (OSError, ValueError):  # ValueError: a NUL in the name
            raise NotFound from None
        return file


def _response(file: _File, request: Request, headers: dict[str, str]) -> Response:
    packed = bool(file.packed) and request.accept_encodings.quality("gzip") > 0
    response = Response(file.packed if packed else file.plain, mimetype=file.mimetype, headers=headers)
    if packed:
        response.headers["Content-Encoding"] = "gzip"
    if file.packed:
        response.headers["Vary"] = "Accept-Encoding"
    response.last_modified = datetime.datetime.fromtimestamp(file.stamp[0] // 1_000_000_000, datetime.UTC)
    response.set_etag(f"{file.digest}-gz" if packed else file.digest)  # one for each coding: RFC 9110, 8.8.3.3
    return response.make_conditional(request)


def _read_all(folder: pathlib.Path) -> dict[str, tuple[tuple[int, int], bytes]]:
    """Return stamp and contents of each file below a folder, by its name there."""
    files = {}
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        found = path.stat()
        files[path.relative_to(folder).as_posix()] = (found.st_mtime_ns, found.st_size), path.read_bytes()
    return files


def _digest_of(files: dict[str, tuple[tuple[int, int], bytes]]) -> str:
    """Return a digest that changes with the name or the contents of any file."""
    whole = hashlib.sha256()
    for name, (_, plain) in files.items():
        whole.update(b"%s %d\n%s" % (name.encode(), len(plain), plain))
    return whole.hexdigest()[:12]


def _packed(name: str, stamp: tuple[int, int], plain: bytes) -> _File:
    suffix = pathlib.PurePath(name).suffix
    mimetype = _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    packed = gzip.compress(plain, 9, mtime=0) if mimetype.startswith(_COMPRESSED) else b""
    if len(packed) >= len(plain):
        packed = b""
    return _File(stamp, mimetype, plain, packed, hashlib.sha256(plain).hexdigest()[:32])
