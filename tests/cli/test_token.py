"""`python relay.py token` signs tokens that the relay accepts."""

import time

import jwt
import pytest
from terminal import run

SECRET = "k7fG2-pQ9_rT4wXz8LmN6vBc3hJd5sYa"


def test_a_token_allows_the_given_ids_until_it_expires():
    before = int(time.time())
    ran = run(
        "token",
        "--ids",
        "42",
        "room-*",
        "--push",
        "news",
        "--expires=60",
        env={"RELAY_SECRET": f"{SECRET}, old-secret"},
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    claims = jwt.decode(ran.stdout.strip(), SECRET, algorithms=["HS256"])
    assert (claims["ids"], claims["push"]) == (["42", "room-*"], ["news"])
    assert before + 60 <= claims["exp"] <= time.time() + 60
    claims = jwt.decode(run("token", "--ids", "42", f"--secret={SECRET}").stdout.strip(), SECRET, algorithms=["HS256"])
    assert "push" not in claims and claims["exp"] > before + 3500


def test_a_token_names_the_user_and_whose_members_the_page_may_see():
    words = ["--as", "42", "--info", '{"name": "Ann"}', "--presence", "room-*"]
    ran = run("token", "--ids", "room-7", *words, env={"RELAY_SECRET": SECRET})
    claims = jwt.decode(ran.stdout.strip(), SECRET, algorithms=["HS256"])
    assert (claims["as"], claims["presence"]) == ({"id": "42", "info": {"name": "Ann"}}, ["room-*"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--as", ""], "the id in as has 1 to 128 characters"),
        (["--as", "42", "--info", "Ann"], "info is a JSON object"),
        (["--as", "42", "--info", "[1]"], "info in as is an object"),
        (["--info", "{}"], "name the user too"),
    ],
)
def test_a_user_that_the_relay_would_refuse_gets_no_token(words, message):
    ran = run("token", "--ids", "room-7", *words, env={"RELAY_SECRET": SECRET})
    assert (ran.returncode, ran.stdout) == (1, "") and message in ran.stderr


def test_without_a_secret_there_is_no_token():
    ran = run("token", "--ids", "42")
    assert (ran.returncode, ran.stdout) == (1, "") and "set secret" in ran.stderr
