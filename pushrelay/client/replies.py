"""What a relay answers over HTTP, and how to recognize the answer of something else."""

import json
import re
from typing import Any

from .dialer import Reply, Trouble

_WORD = re.compile("[a-z_]+")  # the relay's `error`, unlike the "Not Found" of other programs


def read_object(reply: Reply) -> dict[str, Any]:
    """Return the JSON object in an answer, or an empty one if there is none."""
    try:
        answer = json.loads(reply.body)
    except (ValueError, RecursionError):
        answer = None
    return answer if isinstance(answer, dict) else {}


def refusal(reply: Reply) -> str:
    """Return the sentence with which a relay refuses a request; empty if no relay sent this answer."""
    answer = read_object(reply)
    word, sentence = answer.get("error"), answer.get("message")
    is_refusal = isinstance(word, str) and _WORD.fullmatch(word) and isinstance(sentence, str)
    return sentence if is_refusal and reply.status != 200 else ""


def of_engine(reply: Reply) -> str:
    """Return the message of an Engine.IO server that refuses a request; empty if none sent this answer."""
    answer = read_object(reply)
    code, message = answer.get("code"), answer.get("message")
    return message if reply.status != 200 and type(code) is int and isinstance(message, str) else ""


def receipt(reply: Reply, destination: str, where: str) -> dict[str, Any]:
    """Return the answer to a push to one destination. Raises Trouble if it is a refusal, or no relay's answer."""
    answer = read_object(reply)
    position = answer.get("id")
    if reply.status == 200 and isinstance(position, str) and position and answer.get("destination") == destination:
        return answer
    raise Trouble(refusal(reply) or foreign(reply, where), reply)


def foreign(reply: Reply, where: str) -> str:
    """Say that no relay sent this answer, and what to do about it."""
    if 300 <= reply.status < 400 and (target := reply.headers.get("Location")):
        return f"{where} redirects to {target[:200]}: give the relay's own address, which does not redirect"
    advice = "check the address, and that a proxy there passes requests on to a relay that is running"
    return f"something other than a relay answered at {where} ({reply.status} {reply.reason}): {advice}"
