"""PHP's answer to a request: what the page gets of it, and what is wrong with the site, for the operator.

A page never gets text that PHP did not write for it: an answer that is not JSON may be an error page with a stack
trace.
"""

import json
import re
from typing import Any, NamedTuple

from pushrelay import json_text
from pushrelay.client.deadline import Reply
from pushrelay.client.site import SEE_LOGS, SiteError
from pushrelay.errors import Refused
from pushrelay.settings import without_secrets

MOST_MESSAGE = 500  # characters of PHP's message for the page
MOST_SHOWN = 80  # characters of an answer in the log that is not JSON
MOST_RETRY_AFTER = 86400  # seconds
ANSWERED, REFUSED, FAILED, TIMED_OUT = "answered", "refused", "failed", "timed_out"

_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
# PHP's status codes: the error that the page gets, and its message unless PHP sends one.
_REFUSALS = {
    400: ("invalid_request", "the site does not accept this request"),
    401: ("not_allowed", "the site does not know this visitor: log in first"),
    403: ("not_allowed", "the site does not allow this to this visitor"),
    404: ("unknown_request", "the site has no request of this name"),
    409: ("conflict", "the site cannot do this now: something else has changed"),
    422: ("invalid_request", "the site does not accept this request"),
    429: ("too_many_requests", "the site gets too many requests: send this one again later"),
}
# The codes with which Relay.php refuses a request that is not the relay's, or seems not to be.
_BAD_SIGNATURE = {"missing_signature", "wrong_signature", "old_signature"}
_MAYBE_DONE = "it may have been carried out"
_TRY = "have your script print one JSON value, and nothing else"
_REASON = "the relay's log has the reason"


class SiteRefused(Refused):
    """A refusal by the site. The page gets the site's own status, and seconds after which it may try again, if given.

    It is not for the log: the site knows whom it refuses.
    """

    is_logged = False

    def __init__(self, status: int, error: str, message: str, retry_after: int | None = None):
        super().__init__(status, error, message)
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """Return the JSON object that the page gets."""
        after = {} if self.retry_after is None else {"retry_after": self.retry_after}
        return {**super().body(), "status": self.status, **after}


class Outcome(NamedTuple):
    """The outcome of a request: the JSON text of the answer, or a refusal, and one of the words above.

    If something is wrong with the site, `cause` is a word for it, `reason` the end of the sentence "a request failed:",
    and `advice` what the operator can do.
    """

    answer: str | Refused
    result: str
    cause: str = ""
    reason: str = ""
    advice: str = ""


def outcome_of_error(error: SiteError, timeout: float) -> Outcome:
    """Return the outcome of a request without a response."""
    if not error.was_sent:
        message = f"the site cannot be reached, and nothing was sent: try again later; {_REASON}"
        refusal, result = Refused(503, "request_not_available", message), FAILED
    elif error.cause == "timeout":
        message = f"the site did not answer within {timeout:g} s: {_MAYBE_DONE}"
        refusal, result = Refused(504, "request_timeout", message), TIMED_OUT
    else:
        refusal, result = Refused(502, "request_failed", f"the site sent no whole answer: {_MAYBE_DONE}"), FAILED
    setting = " (setting request_timeout)" if error.cause == "timeout" else ""
    return Outcome(refusal, result, error.cause, error.reason + setting, error.advice)


def outcome_of(reply: Reply, most: int) -> Outcome:
    """Return the outcome of a request with a response, of whose body at most `most` + 1 bytes were read."""
    status = reply.status
    if 200 <= status < 300:
        return _answer(reply, most)
    if 400 <= status < 500:
        return _refusal(reply)
    if 300 <= status < 400:
        location = without_secrets(reply.headers.get("Location", ""))[:200]
        reason = f"it redirects to {location or 'nowhere'} ({status}), and the relay does not follow redirects"
        advice = "have it answer 401 to visitors who are not logged in, and write the final address into request_url"
        return _failed(status, f"the site redirects ({status}) instead of answering", "redirect", reason, advice)
    phrase = f"the site failed ({status}): {_MAYBE_DONE}"
    shown = _beginning(reply.body)
    begins = f", and its answer begins with: {shown}" if shown else ""
    return _failed(status, phrase, "status", f"it answered with status {status}{begins}", SEE_LOGS, _retry_after(reply))


def _answer(reply: Reply, most: int) -> Outcome:
    if len(reply.body) > most:
        message = f"the site's answer has more than {most} bytes (setting max_answer): {_MAYBE_DONE}"
        advice = "raise max_answer, or have PHP answer with less"
        reason = f"its answer has more than {most} bytes"
        return Outcome(Refused(502, "answer_too_large", message), FAILED, "size", reason, advice)
    try:
        text = _text(reply.body)
        if not text:
            return Outcome("null", ANSWERED)
        # As for pushes: in a browser, a number that exceeds a double would be Infinity.
        json_text.check_numbers(json_text.encode(json_text.read(text)))
    except ValueError:
        shown = _beginning(reply.body)
        message = f"the site's answer is not JSON: {_MAYBE_DONE}; {_REASON}"
        return _failed(reply.status, message, "answer", f"its answer is not JSON, and begins with: {shown}", _TRY)
    return Outcome(text, ANSWERED)


def _refusal(reply: Reply) -> Outcome:
    """Return the outcome for a status of 4xx, with PHP's own code and message if the body is JSON that has them."""
    status = reply.status
    code, message = _REFUSALS.get(status, ("request_failed", f"the site refused this request ({status})"))
    own_code, own_message, is_json = _own_words(reply.body)
    if own_code in _BAD_SIGNATURE:
        advice = "set webhook_secret to the same text here and in PHP, and check the clocks of both machines"
        message = f"the site does not accept the relay's signature; {_REASON}"
        return _failed(status, message, "signature", f"PHP does not accept the signature: {own_message}", advice)
    refused = SiteRefused(status, own_code or code, own_message or message, _retry_after(reply))
    if status not in _REFUSALS:
        return Outcome(refused, FAILED, "status", f"it answered with status {status}", SEE_LOGS)
    if is_json:
        return Outcome(refused, REFUSED)
    reason = f"it answered with status {status}, and not with JSON"
    return Outcome(refused, REFUSED, f"status {status}", reason, f"check the path in request_url; {_TRY}")


def _own_words(body: bytes) -> tuple[str, str, bool]:
    """Return the code and the message in PHP's JSON object {"error", "message"}, and whether the body is JSON or empty.

    Texts that are missing are empty.
    """
    try:
        text = _text(body)
        value = json_text.read(text) if text else None
    except ValueError:
        return "", "", False
    found = value if isinstance(value, dict) else {}
    error, message = (each if isinstance(each, str) else "" for each in (found.get("error"), found.get("message")))
    is_code = _CODE.fullmatch(error) is not None
    return error if is_code else "", _shortened(message or ("" if is_code else error)), True


def _failed(status: int, message: str, cause: str, reason: str, advice: str, retry_after: int | None = None) -> Outcome:
    return Outcome(SiteRefused(status, "request_failed", message, retry_after), FAILED, cause, reason, advice)


def _retry_after(reply: Reply) -> int | None:
    """Return the seconds in the header Retry-After (RFC 9110, 10.2.3); None for a date, and without the header."""
    value = (reply.headers.get("Retry-After") or "").strip()
    is_number = value.isascii() and value.isdigit() and len(value) < 6
    return int(value) if is_number and int(value) <= MOST_RETRY_AFTER else None


def _text(body: bytes) -> str:
    """Return the text of a JSON body, without space around it. Raises ValueError."""
    return body.decode(json.detect_encoding(body)).strip(" \t\r\n")


def _beginning(body: bytes) -> str:
    text = " ".join(body[: 8 * MOST_SHOWN].decode("utf-8", "replace").split())
    return "".join(each for each in text if each.isprintable())[:MOST_SHOWN]


def _shortened(message: str) -> str:
    """Return a message of PHP for the page. JSON can hold halves of surrogate pairs, which no packet can."""
    message = message.encode("utf-8", "replace").decode()
    return message if len(message) <= MOST_MESSAGE else message[: MOST_MESSAGE - 1] + "…"
