"""The files in static/: each compressed once, with an ETag, and the client's script readable from any origin."""

import gzip
import hashlib
import mimetypes
import pathlib
from typing import NamedTuple

from werkzeug.exceptions import NotFound
from werkzeug.utils import safe_join
from werkzeug.wrappers import Request, Response

# A page of another origin, a module and a script tag with `integrity` may load it; under COEP it may be embedded.
SCRIPT = "relay.js"
_FOR_ALL = {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".svg": "image/svg+xml", ".css": "text/css"}
_COMPRESSED = ("text/", "image/svg", "application/json")


class _File(NamedTuple):
    """A file as it was when it was read."""

    stamp: tuple[int, int]  # modification time in nanoseconds, size
    kind: str
    plain: bytes
    packed: bytes  # empty if compression saves nothing
    digest: str


class StaticFiles:
    """The files of one folder. Any thread may ask for them; a file that changes on disk is read again."""

    def __init__(self, folder: str):
        self._folder = folder
        self._script = safe_join(folder, SCRIPT)
        self._files: dict[str, _File] = {}  # by path: only of files that exist, so their number is bounded

    def response(self, name: str, request: Request) -> Response:
        """Return the answer to a GET or HEAD of a file; 304 if the client has it. Raises NotFound."""
        path = safe_join(self._folder, name) or ""
        file = self._read(path)
        packed = bool(file.packed) and request.accept_encodings.quality("gzip") > 0
        response = Response(file.packed if packed else file.plain, mimetype=file.kind)
        if packed:
            response.headers["Content-Encoding"] = "gzip"
        if file.packed:
            response.headers["Vary"] = "Accept-Encoding"
        if path == self._script:
            response.headers.extend(_FOR_ALL)
        # Kept by anyone, and asked about each time: the file changes with the relay.
        response.headers["Cache-Control"] = "public, no-cache"
        response.last_modified = file.stamp[0] // 1_000_000_000
        response.set_etag(f"{file.digest}-gz" if packed else file.digest)  # RFC 9110, 8.8.3.3: each coding has its own
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
    kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    packed = gzip.compress(plain, 9, mtime=0) if kind.startswith(_COMPRESSED) else b""
    if len(packed) >= len(plain):
        packed = b""
    return _File(stamp, kind, plain, packed, hashlib.sha256(plain).hexdigest()[:32])
