"""Compression and CORS headers for every answer of the Engine."""

import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pushrelay.answers import Answer, cors

from .packet import EncodedPacket
from .request_host import RequestHost

COMPRESSION_LEVEL = 1  # of 1, the fastest, to 9: engineio's default costs several times as much for a few percent
GZIP = 31  # zlib's wbits for the gzip format


def gzipped(body: bytes) -> bytes:
    """Return the body in the content coding gzip (RFC 1952)."""
    deflate = zlib.compressobj(COMPRESSION_LEVEL, wbits=GZIP)
    return deflate.compress(body) + deflate.flush()


def deflated(body: bytes) -> bytes:
    """Return the body in the content coding deflate (RFC 1950)."""
    return zlib.compress(body, COMPRESSION_LEVEL)


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzipped, "deflate": deflated}


# Status, headers and body: a plain tuple, because one is made for every request.
Whole = tuple[str, Sequence[tuple[str, str]], bytes]


class Responses:
    """Completes answers, so that pages of allowed origins can read them."""

    def __init__(self, engine: RequestHost):
        self._engine = engine

    def is_allowed(self, environ: dict[str, Any], origin: str) -> bool:
        """Return whether the setting `origins` allows a page of this origin to connect and to read answers."""
        allowed = self._engine.allowed_origins(environ)
        return allowed is None or origin in allowed

    def complete(
        self, environ: dict[str, Any], answer: Answer, packets: Sequence[EncodedPacket] = (), readable: bool = False
    ) -> Whole:
        """Return the answer's parts: compressed if the client wants that, and with the headers of CORS.

        `packets` are those that the body consists of, if it does. `readable`: a page of any origin may read it.
        """
        engine = self._engine
        status, headers, body = answer
        if engine.http_compression and len(body) >= engine.compression_threshold:
            body, coding = self._compressed(environ, body, packets)
            headers = [*headers, *coding]
        if engine.cors_allowed_origins != []:
            is_allowed = (lambda origin: True) if readable else partial(self.is_allowed, environ)
            headers = [*headers, *cors(environ, is_allowed, engine.cors_credentials)]
        return status, headers, body

    def _compressed(
        self, environ: dict[str, Any], body: bytes, packets: Sequence[EncodedPacket]
    ) -> tuple[bytes, list[tuple[str, str]]]:
        """Return the body in the first coding that the client names and we have, and the headers that name it."""
        for coding in environ.get("HTTP_ACCEPT_ENCODING", "").split(","):
            name = coding.partition(";")[0].strip()
            if name in self._engine.compression_methods:
                compress = COMPRESSORS[name]
                # Parked polls nearly always get one packet, the same for all; the next publication waits for them.
                body = packets[0].compressed(name, compress) if len(packets) == 1 else compress(body)
                return body, [("Content-Encoding", name), ("Vary", "Accept-Encoding")]
        return body, []
