"""Connections to real Redis servers of each kind, and the sentence for each way in which that fails."""

import contextlib
import gc
import socket
import ssl
import threading
import time

import pytest
from conftest import free_port
from redis_server import Failover, RedisServer, asked, every_engine

from pushrelay.errors import StoreError
from pushrelay.store.redis.place import USER_TIMEOUT_MS, Place
from pushrelay.store.redis.verdicts import Wanted
from pushrelay.store.redis.wire import Wire

PASSWORD = "7gqT-zLw2_xRb9Vn1@/"  # not a word of any error
ENCODED = PASSWORD.replace("@", "%40").replace("/", "%2F")


def soon(seconds=20):
    return time.monotonic() + seconds


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    """A Redis for all tests of this file, which leave it as it is."""
    users = [f"relay on >{PASSWORD} ~relay:* resetchannels &relay:* +@all", f"weak on >{PASSWORD} ~* -@all +get"]
    with RedisServer(tmp_path_factory.mktemp("redis"), appendonly="yes", user=users) as server:
        yield server


def refused(url, *words, seconds=20, **options):
    """Assert that no connection can be made, and that the sentence contains these words; return it."""
    with pytest.raises(StoreError) as raised:
        Place(url, **options).connect(soon(seconds))
    said = str(raised.value)
    assert not [word for word in words if word not in said], said
    assert PASSWORD not in said and ENCODED not in said and "Traceback" not in said
    return said


@contextlib.contextmanager
def server_that(*lines):
    """A server that sends these bytes to everybody at once, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    each, _ = listener.accept()
                    each.sendall(b"".join(lines))
                    kept.append(each)

        kept = []
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    for each in kept:
        each.close()


# Connections.


@every_engine
def test_a_connection_speaks_resp3_and_knows_its_redis(engine, tmp_path):
    with RedisServer(tmp_path, engine, appendonly="yes", appendfsync="always", maxmemory="64mb") as server:
        sock, facts = Place(server.url, name="relay-of-a-test").connect(soon(), blocking=True)
        with sock:
            wire = Wire(sock)
            assert wire.ask(soon(), "CONFIG", "GET", "port") == {b"port": str(server.port).encode()}, "a map: RESP3"
            assert wire.ask(soon(), "CLIENT", "GETNAME") == b"relay-of-a-test"
            assert wire.ask(soon(), "INFO", "server").split(b"run_id:")[1][:40] == facts.run_id.encode()
        assert (facts.role, facts.mode, facts.policy, facts.maxmemory) == (
            "master",
            "standalone",
            "noeviction",
            64 << 20,
        )
        assert (facts.appends, facts.appendfsync, facts.syncs, facts.timeout) == (True, "always", True, 0)
        assert facts.is_valkey == (engine == "valkey") and facts.name.startswith(
            "Valkey" if facts.is_valkey else "Redis"
        )
        assert facts.version >= (6, 2)
        before = facts.run_id
        server.restart()
        sock, facts = Place(server.url).connect(soon())
        sock.close()
        assert facts.run_id != before, "a restart can be recognized"


def test_the_socket_is_ours_alone_and_guards_against_silence(redis):
    sock, _ = Place(redis.url).connect(soon())
    with sock:
        assert sock.gettimeout() == 0.0
        options = [socket.TCP_NODELAY, socket.TCP_USER_TIMEOUT, socket.TCP_KEEPIDLE]
        assert [sock.getsockopt(socket.IPPROTO_TCP, each) for each in options] == [1, USER_TIMEOUT_MS, 15]
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        gc.collect()  # redis-py's connection, which would close the socket if it still had it
        sock.setblocking(True)
        assert Wire(sock).ask(soon(), "PING") == b"PONG"


def test_users_passwords_and_databases_are_those_of_the_address(redis):
    place = Place(redis.url.replace("127.0.0.1", f"relay:{ENCODED}@127.0.0.1").replace("/0", "/7"))
    sock, _ = place.connect(soon(), blocking=True)
    with sock:
        assert Wire(sock).ask(soon(), "ACL", "WHOAMI") == b"relay"
        assert b"db=7" in Wire(sock).ask(soon(), "CLIENT", "INFO")


def test_a_unix_socket_needs_no_network(tmp_path):
    with RedisServer(tmp_path, unix=True, requirepass="p1") as server:
        sock, _ = Place(f"{server.url}?db=3").connect(soon(), blocking=True)
        with sock:
            assert sock.family == socket.AF_UNIX and b"db=3" in Wire(sock).ask(soon(), "CLIENT", "INFO")
        refused(f"unix://{server.socket}", "asks for a password")


def test_tls_checks_the_certificate_and_the_name(tmp_path):
    with RedisServer(tmp_path, tls=True) as server:
        sock, _ = Place(server.url).connect(soon(), blocking=True)
        with sock:
            assert isinstance(sock, ssl.SSLSocket) and Wire(sock).ask(soon(), "PING") == b"PONG"
        host = f"localhost:{server.port}"
        refused(f"rediss://{host}", "certificate is not trusted", "?ca=FILE")
        refused(server.url.replace("localhost", "127.0.0.1"), "match", "the name that its certificate has")
        refused(f"rediss://{host}?ca={tmp_path}/none.pem", "none.pem")
        refused(f"redis://{host}", "rediss://")
        refused(f"rediss://{host}?ca={server.log}", "in PEM form")
        assert server.ask("CONFIG", "SET", "tls-auth-clients", "yes") == b"OK"
        refused(server.url, "cert=FILE&key=FILE")
        files = f"&cert={server.certificate.cert}&key={server.certificate.key}"  # its CA signed this one, too
        assert asked(f"{server.url}{files}", "PING") == b"PONG"


# Refusals.


def test_a_redis_that_is_not_there_is_named_with_what_to_do(redis, tmp_path):
    refused(f"redis://127.0.0.1:{free_port()}", "refuses connections", "start Redis")
    refused("redis://no-such-host.invalid", "host name cannot be looked up")
    refused(f"unix://{tmp_path}/none.sock", "none.sock", "start Redis")
    refused(f"rediss://127.0.0.1:{redis.port}", "if it does not expect TLS, write redis://", seconds=0.5)
    with server_that(b"-ERR plain text\r\n") as port:
        refused(f"rediss://127.0.0.1:{port}", "does not speak TLS", "write redis://")
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent:
        refused(f"redis://127.0.0.1:{silent.getsockname()[1]}", "does not answer", seconds=0.3)


def test_a_socket_that_the_relay_may_not_open_is_named(tmp_path):
    place = Place(f"unix://{tmp_path}/redis.sock")
    assert "group redis" in str(place.lost(PermissionError(13, "Permission denied")))  # root may open any socket


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x16\x03\x01\x00"]
)
def test_a_server_that_is_no_redis_is_recognized(answer):
    with server_that(answer) as port:
        refused(f"redis://127.0.0.1:{port}", "is not a Redis")


def test_passwords_and_permissions_have_their_sentences(redis, tmp_path):
    local = f"127.0.0.1:{redis.port}"
    refused(f"redis://relay:wrong@{local}", "does not accept the user or the password", "ACL LIST")
    refused(f"redis://nobody:{ENCODED}@{local}", "does not accept the user or the password")
    refused(
        f"redis://weak:{ENCODED}@{local}", "forbids its user", "info", "ACL SETUSER relay", "~news:*", prefix="news"
    )
    refused(f"redis://{local}/99", "no database of that number")
    with RedisServer(tmp_path, requirepass=PASSWORD) as locked:
        refused(f"redis://127.0.0.1:{locked.port}", "asks for a password", "redis://:PASSWORD@HOST")
        with contextlib.closing(Place(locked.url.replace(PASSWORD, ENCODED)).connect(soon()).sock):
            pass


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ("-LOADING Redis is loading the dataset in memory", "is starting"),
        ("-ERR unknown command `HELLO`, with args beginning with: `3`, ", "older than Redis 6"),
        ("-ERR max number of clients reached", "raise maxclients"),
        ("-DENIED Redis is running in protected mode because protected mode is enabled", "protected mode"),
        ("-XYZ something new", "something new"),
    ],
)
def test_error_replies_to_the_first_command_have_their_sentences(reply, words):
    with server_that(reply.encode(), b"\r\n") as port:
        refused(f"redis://127.0.0.1:{port}", words)


def test_a_server_that_repeats_a_password_in_its_error_does_not_bring_it_into_ours():
    with server_that(f"-ERR syntax error near `AUTH` `default` `{PASSWORD}`\r\n".encode()) as port:
        refused(f"redis://:{ENCODED}@127.0.0.1:{port}", "syntax error near `AUTH` `default` `…`")


def test_redis_that_would_lose_pushes_is_refused(redis, tmp_path):
    with RedisServer(tmp_path / "a", maxmemory_policy="allkeys-lru") as server:
        refused(server.url, "maxmemory-policy is allkeys-lru", "volatile-ttl")
    with RedisServer(tmp_path / "b", replicaof=f"127.0.0.1 {redis.port}") as replica:
        refused(replica.url, "this is a replica", "redis+sentinel://")
    with RedisServer(tmp_path / "c", cluster_enabled="yes", cluster_port=free_port()) as cluster:
        refused(cluster.url, "Redis Cluster")
    refused(redis.url, "appendfsync always", "durability = process", wanted=Wanted("power"))


# Sentinels.


def test_sentinels_are_asked_each_time_and_name_the_new_master(tmp_path):
    with Failover(tmp_path) as both:
        place = Place(both.url)
        sock, before = place.connect(soon())
        sock.close()
        assert before.run_id == run_id_of(both.master)
        refused(both.url.replace(both.NAME, "other"), "knows no other", "correct the name")
        refused(f"redis://127.0.0.1:{both.sentinels[0].port}", "this is a Sentinel", "redis+sentinel://")
        both.sentinels[0].pause()  # it does not answer, and leaves time for the others
        both.master.kill()
        with contextlib.suppress(StoreError):  # unless the failover is faster
            place.connect(soon(3)).sock.close()
        both.sentinels[0].resume()
        both.wait_for_promotion()
        sock, after = place.connect(soon())
        sock.close()
        assert after.run_id == run_id_of(both.replica) != before.run_id


def test_a_master_that_is_a_replica_now_is_not_used(redis, tmp_path):
    with RedisServer(tmp_path / "b", replicaof=f"127.0.0.1 {redis.port}") as replica:
        config = {"mode": ("--sentinel",), "sentinel": f"monitor m 127.0.0.1 {replica.port} 1"}
        with RedisServer(tmp_path / "s", **config) as sentinel:
            refused(f"redis+sentinel://127.0.0.1:{sentinel.port}/m", "is a replica: a failover is under way")


def test_sentinels_have_a_password_and_tls_of_their_own(tmp_path):
    with RedisServer(tmp_path / "a", tls=True, requirepass="p1") as server:
        watched = [f"monitor {Failover.NAME} localhost {server.port} 1", "announce-hostnames yes"]
        config = {"mode": ("--sentinel",), "sentinel": ["resolve-hostnames yes", *watched], "requirepass": "p2"}
        with RedisServer(tmp_path / "s", tls=server.certificate, **config) as sentinel:
            url = f"rediss+sentinel://:p1@localhost:{sentinel.port}/{Failover.NAME}/0?ca={server.ca}"
            sock, facts = Place(f"{url}&sentinel_password=p2").connect(soon())
            with sock:
                assert isinstance(sock, ssl.SSLSocket) and facts.run_id == run_id_of(server)
            refused(url, "?sentinel_password=PASSWORD", "asks for a password")
            refused(f"{url}&sentinel_password=p1", "?sentinel_password=PASSWORD", "does not accept the password")
            refused(f"{url.replace('p1', 'p2')}&sentinel_password=p2", f"Redis localhost:{server.port} does not accept")


def test_sentinels_that_are_away_are_all_named(redis):
    gone = free_port()
    said = refused(f"redis+sentinel://127.0.0.1:{gone},127.0.0.1:{redis.port}/m", "start the Sentinels")
    assert f"127.0.0.1:{gone} refuses connections" in said and f"127.0.0.1:{redis.port} is not a Sentinel" in said


def run_id_of(server):
    return server.ask("INFO", "server").split(b"run_id:")[1][:40].decode()


def test_a_master_without_replicas_is_looked_up_again_if_sentinels_may_have_replaced_it():
    behind_sentinels, alone = Place("redis+sentinel://h/m"), Place("redis://h")
    for refusal in ("READONLY You can't write", "MASTERDOWN Link with MASTER is down"):
        assert behind_sentinels.may_be_replaced(refusal) and alone.may_be_replaced(refusal)
    few = "NOREPLICAS Not enough good replicas to write."
    assert behind_sentinels.may_be_replaced(few) and not alone.may_be_replaced(few)
    assert not behind_sentinels.may_be_replaced("OOM command not allowed") and not alone.may_be_replaced("")
