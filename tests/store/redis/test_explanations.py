"""The sentences about a Redis that fails."""

import errno
import socket

import pytest

from pushrelay.store.redis.explanations import not_a_redis, os_error, reply_error, sentinel_error

WHERE = "redis://127.0.0.1:6379/0"


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ("NOAUTH Authentication required.", ":PASSWORD@HOST"),
        ("WRONGPASS invalid username-password pair or user is disabled.", "does not accept the user"),
        ("NOPERM this user has no permissions to run the 'evalsha' command", "(run the 'evalsha' command)"),
        ("NOPERM this user has no permissions to access one of the keys used as arguments", "resetkeys '~relay:*'"),
        ("NOPERM No permissions to access a key", "(access a key)"),
        ("LOADING Redis is loading the dataset in memory", "tries again"),
        ("READONLY You can't write against a read only replica.", "address of the master"),
        ("MASTERDOWN Link with MASTER is down", "address of the master"),
        ("MISCONF Redis is configured to save RDB snapshots", "full disk"),
        ("OOM command not allowed when used memory > 'maxmemory'.", "raise maxmemory"),
        ("NOREPLICAS Not enough good replicas to write.", "min-replicas-to-write"),
        ("MOVED 3999 127.0.0.1:6381", "Redis Cluster"),
        ("BUSY Redis is busy running a script.", "SCRIPT KILL"),
        ("ERR max number of clients reached", "maxclients"),
        ("ERR AUTH <password> called without any password configured", "has no password"),
        ("ERR something else", "refused a command of the relay: ERR something else"),
    ],
)
def test_each_error_reply_has_a_sentence_with_what_to_do(reply, words):
    said = reply_error(reply, WHERE)
    assert str(said).startswith(WHERE) and words in str(said)
    assert said.public == "the relay's log has the reason"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "host name cannot be looked up (Name or service not known)",
        ),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "start Redis there"),
        (TimeoutError("timed out"), "does not answer"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), "its socket does not exist"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "closed the connection"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "Network is unreachable"),
    ],
)
def test_each_error_of_the_network_has_a_sentence_with_what_to_do(error, words):
    said = str(os_error(error, WHERE, is_tls=False))
    assert said.startswith(WHERE) and words in said


def test_another_server_is_no_redis():
    assert "correct the address" in str(not_a_redis(WHERE))


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ("NOAUTH HELLO must be called with the client already authenticated", "?sentinel_password=PASSWORD"),
        ("WRONGPASS invalid username-password pair or user is disabled.", "?sentinel_password=PASSWORD"),
        ("ERR unknown command 'SENTINEL', with args beginning with:", "is not a Sentinel"),
        ("ERR unknown command `HELLO`, with args beginning with: `3`", "older than Redis 6"),
        ("ERR max number of clients reached", "maxclients"),
    ],
)
def test_error_replies_of_sentinels_have_their_own_sentences(reply, words):
    assert words in str(sentinel_error(reply, "Sentinel 127.0.0.1:26379"))
