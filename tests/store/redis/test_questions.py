"""Questions to a real Redis: threads do not wait for each other, and a lost connection is replaced."""

import threading

import hiredis
import pytest
from conftest import wait_for
from redis_server import RedisServer

from pushrelay.errors import StoreError
from pushrelay.store.redis.place import Place
from pushrelay.store.redis.questions import MOST_IDLE, Questions


@pytest.fixture
def questions(redis):
    asked = Questions(Place(redis.url, name="questions"), patience=20)
    yield asked
    asked.close()


def connections(redis):
    return redis.ask("CLIENT", "LIST").count(b"name=questions")


def test_a_question_is_answered_and_an_error_is_explained(questions):
    assert questions.ask("SET", "a", b"\x00") == b"OK"
    assert questions.ask_all([("GET", "a"), ("GET", "b"), ("STRLEN", "a")]) == [b"\x00", None, 1]
    with pytest.raises(StoreError, match="refused a command of the relay: ERR unknown command"):
        questions.ask("NONSENSE")
    found, error = questions.replies([("GET", "a"), ("INCR", "a")])
    assert found == b"\x00" and isinstance(error, hiredis.ReplyError)


def test_a_thread_waits_only_for_its_own_answer(questions, redis):
    waiting = threading.Thread(target=questions.ask, args=("BLPOP", "list", 0))
    waiting.start()
    wait_for(lambda: b"blocked_clients:1" in redis.ask("INFO", "clients"), "the question that waits")
    assert questions.ask("GET", "x") is None
    questions.ask("RPUSH", "list", "1")
    waiting.join(20)
    assert not waiting.is_alive()


def test_few_connections_are_kept(questions, redis):
    threads = [threading.Thread(target=questions.ask, args=("BLPOP", f"l{n}", 0)) for n in range(2 * MOST_IDLE)]
    for thread in threads:
        thread.start()
    wait_for(lambda: connections(redis) == len(threads), "a connection for each")
    for number in range(len(threads)):
        redis.ask("RPUSH", f"l{number}", "1")
    for thread in threads:
        thread.join(20)
    wait_for(lambda: connections(redis) == MOST_IDLE, "the others to be closed")
    questions.renew()
    wait_for(lambda: connections(redis) == 0, "the end of all")


def test_a_connection_that_redis_closed_is_replaced_before_it_is_used(questions, redis):
    questions.ask("PING")
    redis.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    wait_for(lambda: connections(redis) == 0, "the end of the connection")
    assert questions.ask("PING") == b"PONG"


def test_over_tls_a_connection_that_redis_closed_is_replaced_too(tmp_path):
    with RedisServer(tmp_path, tls=True) as server:
        questions = Questions(Place(server.url, name="questions"), patience=20)
        assert questions.ask("PING") == questions.ask("PING") == b"PONG"
        assert connections(server) == 1, "it is kept"
        server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        wait_for(lambda: connections(server) == 0, "the end of the connection")
        assert questions.ask("PING") == b"PONG"
        questions.close()


def test_a_redis_that_is_away_or_silent_is_an_error_with_what_to_do(tmp_path):
    with RedisServer(tmp_path) as server:
        questions = Questions(Place(server.url), patience=1.0)
        questions.ask("PING")
        server.pause()
        with pytest.raises(StoreError, match="does not answer"):
            questions.ask("PING")
        server.resume()
        assert questions.ask("PING") == b"PONG"
        server.kill()
        with pytest.raises(StoreError, match="refuses connections"):
            questions.ask("PING")
        server.start()
        assert questions.ask("PING") == b"PONG"
        questions.close()
        with pytest.raises(StoreError, match="the store is closed"):
            questions.ask("PING")
