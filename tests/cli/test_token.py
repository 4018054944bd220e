"""`python relay.py token` signs tokens that the relay accepts."""

import time

import jwt
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


def test_without_a_secret_there_is_no_token():
    ran = run("token", "--ids", "42")
    assert (ran.returncode, ran.stdout) == (1, "") and "set secret" in ran.stderr
