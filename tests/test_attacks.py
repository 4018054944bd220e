"""What somebody who means harm may send, and what it must not do."""

import pytest


@pytest.fixture(scope="session")
def server():
    """The relay's own server alone: what is attacked here is its engine."""
    return "own"


def test_a_part_of_a_multipart_form_without_a_name_is_refused(relay):
    body = b'--b\r\nContent-Disposition: form-data; nam="data"\r\n\r\nx\r\n--b--\r\n'
    status, _, answer = relay.request("POST", "/push", body, {"Content-Type": "multipart/form-data; boundary=b"})
    assert (status, b"has no name" in answer) == (400, True)
