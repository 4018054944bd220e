"""The relay's responses over HTTP, and how to recognize the response of another program."""

import json
import re
from typing import Any

from .deadline import Reply
from .errors import ClientError

_ERROR_CODE = re.compile("[a-z_]+")  # other programs write "Not Found"


def read_object(reply: Reply) -> dict[str, Any]:
    """Return the JSON object in a response, or an empty one if there is none."""
    try:
        answer = json.loads(reply.body)
    except (ValueError, RecursionError):
        answer = None
    return answer if isinstance(answer, dict) else {}


def refusal_message(reply: Reply) -> str:
    """Return the message with which a relay refuses a request; empty if no relay sent this response."""
    answer = read_object(reply)
    code, message = answer.get("error"), answer.get("message")
    if reply.status == 200 or not isinstance(code, str) or not isinstance(message, str):
        return ""
    return message if _ERROR_CODE.fullmatch(code) else ""


def engineio_message(reply: Reply) -> str:
    """Return the message with which an Engine.IO server refuses a request; empty if none sent this response."""
    answer = read_object(reply)
    code, message = answer.get("code"), answer.get("message")
    return message if reply.status != 200 and type(code) is int and isinstance(message, str) else ""


def receipt(reply: Reply, destination: str, where: str) -> dict[str, Any]:
    """Return the answer to a push to one destination, sent to the address `where`.

    Raises ClientError if it is a refusal, or not a relay's answer.
    """
    answer = read_object(reply)
    position = answer.get("id")
    if reply.status == 200 and isinstance(position, str) and position and answer.get("destination") == destination:
        return answer
    raise ClientError(refusal_message(reply) or not_a_relay(reply, where), reply)


def not_a_relay(reply: Reply, where: str) -> str:
    """Return the sentence about a response from `where` that no relay sent, with what to do about it."""
    if 300 <= reply.status < 400 and (target := reply.headers.get("Location")):
        return f"{where} redirects to {target[:200]}: give the relay's own address, which does not redirect"
    advice = "check the address, and that a proxy there passes requests on to a relay that is running"
    return f"something other than a relay answered at {where} ({reply.status} {reply.reason}): {advice}"
