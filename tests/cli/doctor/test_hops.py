"""The doctor recognizes whether a relay answers at the relay's own address."""

import pytest
from examination import Examination


def test_another_program_on_the_relays_port_is_not_taken_for_the_relay(serve):
    def other(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/html"), ("Server", "Shop/1")])
        return [b"hello"]

    flags = (f"--port={serve(other).port}", "--max-connections=1000", "--broker=memory:")
    Examination(*flags).failed_once("another program (Shop/1) has the port", "200")


@pytest.mark.parametrize("answer", ["{}", '{"status":"ok"}', "[" * 100_000])
def test_a_push_that_another_program_answers_is_not_accepted(serve, answer):
    def other(environ, start_response):
        said = {"/health/live": '{"live":true}', "/health/ready": '{"ready":true}'}
        start_response("200 OK", [("Content-Type", "application/json")])
        return [said.get(environ["PATH_INFO"], answer).encode()]

    flags = (f"--port={serve(other).port}", "--max-connections=1000", "--broker=memory:", "--id-cookie=PHPSESSID")
    Examination(*flags).failed_once("pushing", "something other than a relay answered")


def test_a_health_check_that_another_program_answers_is_not_the_relays(serve):
    def other(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/json")])
        return [b'{"live":true}' if environ["PATH_INFO"] == "/health/live" else b"[" * 100_000]

    flags = (f"--port={serve(other).port}", "--max-connections=1000", "--broker=memory:")
    Examination(*flags).failed_once("the relay", "takes no pushes")
