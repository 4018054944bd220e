"""A relay and its clients in a network namespace with addresses of its own: unshare -n python one_address.py FOLDER.

Prints one JSON object: the answers to clients of one address, 192.0.2.1, beyond the limits, and the answers to others.
"""

import contextlib
import http.client
import json
import pathlib
import socket
import subprocess
import sys

from clients import PATH, UPGRADE
from conftest import Relay

HOST, FLOODER, OTHER = "192.0.2.9", "192.0.2.1", "192.0.2.2"
NEIGHBOURS, STRANGER = ("2001:db8::1", "2001:db8::2"), "2001:db8:0:1::1"
POLLING = PATH + "polling"
MOST = 3


def sh(command):
    subprocess.run(command.split(), check=True)


def get(port, source, path, host=HOST):
    """Return the status, Retry-After and body of one request from this address."""
    connection = http.client.HTTPConnection(host, port, timeout=20, source_address=(source, 0))
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.headers["Retry-After"], answer.read().decode()


def websocket(port, source):
    """Return a WebSocket after its handshake, and the status of the answer."""
    sock = socket.create_connection((HOST, port), 20, (source, 0))
    sock.sendall(UPGRADE)
    return sock, int(sock.recv(65536).split(b" ")[1])


def sessions(port):
    """Connect clients of one address until there are too many, one of another, and one more after one has left."""
    clients = [websocket(port, FLOODER) for _ in range(MOST)]
    seen = {"let_in": [status for _, status in clients]}
    seen["polling"] = get(port, FLOODER, POLLING)
    seen["websocket"] = websocket(port, FLOODER)[1]
    seen["other"] = get(port, OTHER, POLLING)[0]
    clients[0][0].close()
    again = 429
    while again == 429:
        again = get(port, FLOODER, POLLING)[0]
    seen["again"] = again
    for sock, _ in clients:
        sock.close()
    return seen


def connections(port):
    """Open idle connections of one address until there are too many, and return the answers to the others."""
    flood = [socket.create_connection((HOST, port), 20, (OTHER, 0)) for _ in range(2 * MOST - 1)]
    taken, beyond = len(flood), set()
    for _ in range(50):  # more than the limit on lingering connections
        flood.append(socket.create_connection((HOST, port), 20, (OTHER, 0)))
        with contextlib.suppress(ConnectionError):
            flood[-1].sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head, _, body = flood[-1].recv(65536).decode().partition("\r\n\r\n")
            if head.startswith("HTTP/1.1 200 "):
                taken += 1
            else:
                beyond.add((head.partition("\r\n")[0], "Retry-After: " in head, body))
    seen = {"taken": taken, "beyond": sorted(beyond), "meanwhile": get(port, "192.0.2.3", "/health/live")[0]}
    for sock in flood:
        sock.close()
    return seen


def ipv6(folder):
    relay = Relay(folder / "log6", host="::", max_per_address=1, server="own")
    try:
        answers = [get(relay.port, source, POLLING, STRANGER)[0] for source in (*NEIGHBOURS, STRANGER)]
    finally:
        relay.kill()
    return answers


def main(folder):
    sh("ip link set lo up")
    for address in (HOST, FLOODER, OTHER, "192.0.2.3"):
        sh(f"ip address add {address}/32 dev lo")
    for address in (*NEIGHBOURS, STRANGER):
        sh(f"ip address add {address}/128 dev lo nodad")
    relay = Relay(folder / "log", host=HOST, max_per_address=MOST, header_timeout=60, idle_timeout=60, server="own")
    try:
        print(json.dumps({**sessions(relay.port), **connections(relay.port), "ipv6": ipv6(folder)}))
    finally:
        relay.kill()


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
