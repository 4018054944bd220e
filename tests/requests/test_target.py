"""The doctor finds out whether PHP answers requests and accepts the relay's signature."""

import contextlib
import io

import pytest
from one_answer import answering

from pushrelay.access.visitor import Visitor
from pushrelay.cli.doctor.report import Report
from pushrelay.cli.doctor.site import ask_for_request
from pushrelay.errors import Refused
from pushrelay.requests.target import Target
from pushrelay.settings import Settings

SECRET = ("webhook-secret-with-32-characters",)


def doctor_on(status, body=b""):
    """Return the doctor's text about a site that answers this, and its report."""
    answer = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)
    with answering(answer) as (url, received), contextlib.redirect_stdout(io.StringIO()) as said:
        report = Report()
        ask_for_request(report, Settings(request_url=url.geturl(), webhook_secret=SECRET))
    assert b'"name":"relay-doctor"' in received[0] and b"Relay-Signature: t=" in received[0]
    return " ".join(said.getvalue().split()), report


@pytest.mark.parametrize(
    ("status", "body", "failed", "words"),
    [
        (b"404 Not Found", b"", False, "refuses a request that it does not know (404)"),
        (b"404 Not Found", b"<h1>Not Found</h1>", True, "Check the path in request_url"),
        (b"403 Forbidden", b'{"error":"wrong_signature","message":"not this secret"}', True, "not this secret"),
        (b"200 OK", b"Warning: Undefined variable", True, "begins with: Warning: Undefined variable"),
        (b"500 Oops", b"PDOException: no database", True, "begins with: PDOException: no database"),
        (b"200 OK", b"", False, "Answer 404 to names that your script does not know"),
    ],
)
def test_the_doctor_reports_what_is_wrong_with_request_url(status, body, failed, words):
    said, report = doctor_on(status, body)
    assert words in said and bool(report.failures) is failed


def test_the_doctor_asks_nobody_without_a_request_url():
    ask_for_request(Report(), Settings())


def test_without_a_url_nothing_is_sent():
    with pytest.raises(Refused) as caught:
        Target.of(Settings()).ask("{}", Visitor())
    assert caught.value.error == "no_request_url"
