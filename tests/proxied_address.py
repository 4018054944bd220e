"""Apache and nginx in front of a relay that trusts them, and visitors with their own addresses.

test_lamp.py runs this in a network namespace. Prints the answer to each visitor as JSON.

    unshare -n python tests/proxied_address.py FOLDER
"""

import contextlib
import http.client
import json
import pathlib
import subprocess
import sys
import types

from conftest import Relay
from fronts import Apache, Certificate, Nginx

ONE, OTHER = "192.0.2.2", "192.0.2.3"
POLLING = "/relay/socket.io/?EIO=4&transport=polling"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SETTINGS = {"server": "own", "max_per_address": 2, "trusted_proxies": "127.0.0.1, ::1"}
NOTHING_ELSE = "location /relay/ {\n  return 404;"
ALL = """location /relay/ {
  proxy_pass http://relay/;
  proxy_set_header Host $host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"""


def ask(port, source, path, body=None, **headers):
    """Send a request from an address to this machine's name, and return the status."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20, source_address=(source, 0))
    with contextlib.closing(connection):
        connection.request(
            "POST" if body else "GET", path, body, {"Host": "localhost", **(FORM if body else {}), **headers}
        )
        return connection.getresponse().status


def forged(address):
    return {"X-Forwarded-For": address}


def behind(front):
    """Return the answers to visitors, and then those to programs on this machine."""
    claims = ("9.9.9.1", "9.9.9.2, 10.0.0.1", "127.0.0.1", OTHER, "nonsense")
    push = "destination=42&data=x"
    return {
        "one": [ask(front.port, ONE, POLLING, **forged(claim)) for claim in claims],
        "other": [ask(front.port, OTHER, POLLING, **forged(ONE)) for _ in range(3)],
        "pushes": [
            ask(front.port, ONE, "/relay/push", push, **headers)
            for headers in (
                {},
                forged("127.0.0.1"),
                forged("::1, 127.0.0.1"),
                {**forged("127.0.0.1"), "X-Real-IP": "127.0.0.1", "X-Forwarded-Host": "localhost"},
                {"Forwarded": "for=127.0.0.1"},
            )
        ],
        "local": [front.relay.request("POST", "/push", push.encode())[0] for _ in range(3)],
        "direct": [ask(front.relay.port, "127.0.0.1", POLLING.removeprefix("/relay")) for _ in range(3)],
    }


def main(folder):
    for command in ("link set lo up", *(f"address add {each}/32 dev lo" for each in (ONE, OTHER))):
        subprocess.run(["ip", *command.split()], check=True)
    certificate, nobody = Certificate(folder), types.SimpleNamespace(socket="/nowhere")
    made = {
        "apache": lambda relay: Apache(
            relay, certificate, "event", nobody, vhost='ProxyPass "/relay/push" "http://127.0.0.1:8080/push"'
        ),
        "nginx": lambda relay: Nginx(relay, certificate, nobody, [(NOTHING_ELSE, ALL)]),
    }
    answers = {}
    for name, front in made.items():
        relay = Relay(folder / name, **SETTINGS)
        try:
            with contextlib.closing(front(relay)) as proxy:
                answers[name] = behind(proxy)
        finally:
            relay.kill()
    print(json.dumps(answers))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
