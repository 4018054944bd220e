"""The meanings of the codes of refusals and of the reasons of disconnects, in a few words."""

# By the code of the error: see CODES in errors.py. The answer to each refusal has the details.
REFUSALS = {
    "answer_too_large": "an answer of request_url over max_answer",
    "auth_not_available": "auth_url gave no usable answer",
    "bad_request": "a request that is not HTTP, or not Socket.IO",
    "demo_not_shown": "a visitor from another machine asked for the demo page or /status",
    "draining": "the relay was stopping",
    "id_reused": "an idempotency key that was used for another push",
    "internal_server_error": "an error in the program: the log has the traceback",
    "invalid_token": "a token that the secret did not sign, or that is malformed",
    "method_not_allowed": "a method that the address does not have",
    "missing_cookie": "a browser without the cookie of id_cookie",
    "missing_key": "a program on another machine that sent no key",
    "missing_token": "a page that sent no token",
    "not_allowed": "a page without the right to this id",
    "not_found": "an address that does not exist here",
    "old_client": "a Socket.IO client that is too old",
    "origin_not_allowed": "a page of a site that is not in origins",
    "queue_full": "a message of a page, but too many wait for request_url (max_webhooks)",
    "request_failed": "request_url gave a page no usable answer",
    "request_not_available": "request_url could not be reached",
    "request_timeout": "a request that did not arrive in time, or that request_url did not answer in time",
    "session": "a client that returned after a restart; this is normal",
    "store_not_available": "the store was not available",
    "token_expired": "a token that has expired",
    "too_fast": "a program over push_rate",
    "too_large": "more data than max_body or max_message",
    "too_many_connections": "no room for another client: max_connections, or open files",
    "too_many_events": "a page over max_event_rate",
    "too_many_of_address": "too many clients of one address: max_per_address",
    "too_many_requests": "a page with too many requests to request_url, or all of them together",
    "unknown_request": "a page that asked request_url for something that it does not know",
    "unsupported_media_type": "a push that is neither a form nor JSON",
    "wrong_key": "a program with a wrong key",
}
DISCONNECTS = {
    "transport close": "the page was left, or its network failed",
    "client disconnect": "the page closed the connection",
    "transport error": "the connection broke, or the client broke the protocol",
    "ping timeout": "it stopped answering, as a computer does when it goes to sleep",
    "slow": "it did not read what it was sent (max_outbox)",
    "server disconnect": "the app or DELETE /connections ended it",
    "register timeout": "it registered nothing (register_timeout)",
    "too many events": "it sent too much (max_event_rate)",
    "draining": "the relay was stopping",
}
MOST = 12  # rows that are shown


def rows(counts: dict[str, int], key: str, meanings: dict[str, str]) -> list[dict[str, str | int]]:
    """Return the largest counts with what they mean, largest first. `key` names the column of the words."""
    largest = sorted(counts.items(), key=lambda pair: -pair[1])[:MOST]
    return [{key: word, "count": count, "meaning": meanings.get(word, "")} for word, count in largest]
