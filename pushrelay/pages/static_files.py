"""The files in static/. Each is compressed once and has an ETag, and pages of any origin may load the client."""

import datetime
import gzip
import hashlib
import mimetypes
import pathlib
from typing import NamedTuple

from werkzeug.exceptions import NotFound
from werkzeug.security import safe_join
from werkzeug.wrappers import Request, Response

_CLIENT = ("relay.js", "relay.mjs", "relay.min.js", "relay.min.js.map")
# These let pages of other origins load it as a module, with `integrity`, and under COEP.
_FOR_ALL = {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".svg": "image/svg+xml", ".css": "text/css"}
_COMPRESSED = ("text/", "image/svg", "application/json")


class _File(NamedTuple):
    """A file's contents when it was last read."""

    stamp: tuple[int, int]  # modification time in nanoseconds, size
    mimetype: str
    plain: bytes
    packed: bytes  # empty if compression saves nothing
    digest: str


class StaticFiles:
    """Serves the files of one folder, and reads them again when they change. Any thread may call it."""

    def __init__(self, folder: str):
        self._folder = folder
        self._client = {safe_join(folder, name) for name in _CLIENT}
        self._files: dict[str, _File] = {}  # by path; bounded, because only files that exist are in it

    def response(self, name: str, request: Request) -> Response:
        """Return the response to a GET or HEAD of a file; a 304 if the client has it. Raises NotFound."""
        path = safe_join(self._folder, name) or ""
        file = self._read(path)
        packed = bool(file.packed) and request.accept_encodings.quality("gzip") > 0
        response = Response(file.packed if packed else file.plain, mimetype=file.mimetype)
        if packed:
            response.headers["Content-Encoding"] = "gzip"
        if file.packed:
            response.headers["Vary"] = "Accept-Encoding"
        if path in self._client:
            response.headers.extend(_FOR_ALL)
        # Any cache may keep the file, but must revalidate it each time, because an upgrade of the relay changes it.
        response.headers["Cache-Control"] = "public, no-cache"
        response.last_modified = datetime.datetime.fromtimestamp(file.stamp[0] // 1_000_000_000, datetime.UTC)
        response.set_etag(f"{file.digest}-gz" if packed else file.digest)  # one for each coding: RFC 9110, 8.8.3.3
        return response.make_conditional(request)

    def _read(self, path: str) -> _File:
        try:
            found = pathlib.Path(path).stat()
            stamp = found.st_mtime_ns, found.st_size
            file = self._files.get(path)
            if file is None or file.stamp != stamp:
                file = self._files[path] = _loaded(pathlib.Path(path), stamp)
        except (OSError, ValueError):  # ValueError: a NUL in the name
            raise NotFound from None
        return file


def _loaded(path: pathlib.Path, stamp: tuple[int, int]) -> _File:
    plain = path.read_bytes()
    mimetype = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    packed = gzip.compress(plain, 9, mtime=0) if mimetype.startswith(_COMPRESSED) else b""
    if len(packed) >= len(plain):
        packed = b""
    return _File(stamp, mimetype, plain, packed, hashlib.sha256(plain).hexdigest()[:32])
