"""Errors of the client, each with a text for people: what happened in place of the expected response."""

import contextlib
import http.client
import ssl
from collections.abc import Iterator

from wsproto.utilities import ProtocolError

from .deadline import Reply


class ClientError(Exception):
    """A request failed. `reply` is the response that came in place of the expected one, if any; `method` the request's.

    The text is part of a sentence: it begins in lower case and has no full stop.
    """

    def __init__(self, message: str, reply: Reply | None = None, method: str = "GET"):
        super().__init__(message)
        self.reply = reply
        self.method = method


class ClientTimeout(ClientError):
    """No response came in time."""


@contextlib.contextmanager
def client_errors(timeout: float) -> Iterator[None]:
    """Raise ClientError for every way in which a connection can fail. The text names `timeout` (seconds)."""
    try:
        yield
    except TimeoutError:
        raise ClientTimeout(f"there was no answer within {timeout:g} s") from None
    except ConnectionRefusedError:
        raise ClientError("the connection was refused: nothing listens there") from None
    except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
        raise ClientError("the connection was closed without an answer") from None
    except ssl.SSLCertVerificationError as error:
        raise ClientError(f"the certificate is not valid: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise ClientError(f"TLS failed: {error.reason or error}") from None
    except http.client.HTTPException as error:
        raise ClientError(f"the answer is not HTTP ({type(error).__name__})") from None
    except ProtocolError:
        raise ClientError("the server does not follow the WebSocket protocol") from None
    except UnicodeError:
        raise ClientError("there is no host of this name") from None
    except OSError as error:
        raise ClientError(error.strerror or str(error)) from None
