"""The header Relay-Signature, with which PHP verifies that a request comes from its relay, and when it was sent."""

import hashlib
import hmac
from collections.abc import Sequence

HEADER = "Relay-Signature"


def signature(secrets: Sequence[str], body: bytes, now: float) -> str:
    """Return the value of the header for a body that is sent at `now`, in seconds since 1970.

    It is `t=UNIX,v1=HEX`, with an HMAC-SHA256 of the time, a period and the body. Each secret yields a `v1`, so that
    the receiver can know either of two while one is replaced.
    """
    time = str(int(now))
    signed = time.encode() + b"." + body
    digests = [hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in secrets]
    return ",".join([f"t={time}", *(f"v1={digest}" for digest in digests)])
