"""PHP's transactions, with the lines of the documentation."""

import json
import re
import shutil
import subprocess
import textwrap

import pytest
from conftest import DEADLINE, ROOT, need, wait_for

PHP = """<?php
require '{root}/php/Relay.php';
$relay = new Relay('{url}', ['budget' => 20]);
$pdo = new PDO('mysql:unix_socket={socket};dbname={name};charset=utf8mb4', 'root', '',
    [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);
"""


def snippet(begin):
    """Return the lines of docs/outbox.md that begin so."""
    blocks = re.findall(r"(?:^    .*\n)+", (ROOT / "docs/outbox.md").read_text(), re.MULTILINE)
    return next(text for each in blocks if (text := textwrap.dedent(each)).startswith(begin))


@pytest.mark.parametrize("server", ["own"], indirect=True)
def test_a_push_that_php_inserts_reaches_the_page_with_its_commit_and_a_ring(
    site, start_relay, connect, tmp_path, server
):
    need(shutil.which("php"), "PHP (apt-get install php-cli php-mysql)")
    relay = start_relay(outbox=site.url, outbox_interval=5)
    client = connect(relay.url, "user-42")
    wait_for(lambda: b"relay_outbox_up 1" in relay.request("GET", "/metrics")[2] and site.connections(), "the outbox")
    site.ask("CREATE TABLE orders (id INT PRIMARY KEY, paid INT)")
    head = PHP.format(root=ROOT, url=relay.url, socket=site.server.socket, name=site.name)
    code = snippet("$pdo->beginTransaction")
    rolled_back = code.replace("$pdo->commit();", "$pdo->rollBack();").replace("'order' => 7", "'order' => 6")
    script = tmp_path / "pay.php"
    script.write_text(f"{head}{rolled_back}{code}")
    ran = subprocess.run(["php", "-d", "error_reporting=-1", script], capture_output=True, text=True, timeout=DEADLINE)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    [(event, message)] = client.wait(1)
    assert (event, message["data"]) == ("paid", {"order": 7}), json.dumps(client.got)
