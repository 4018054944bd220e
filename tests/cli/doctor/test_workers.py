"""Apache's workers are read from its configuration and compared with the connected clients."""

import contextlib
import io
import socket

import pytest
from conftest import wait_for

from pushrelay.cli.doctor.process import connected_to
from pushrelay.cli.doctor.report import Report
from pushrelay.cli.doctor.workers import Workers, read_workers
from pushrelay.settings import load

DEBIAN = {
    "apache2.conf": "IncludeOptional mods-enabled/*.load\nIncludeOptional mods-enabled/*.conf\nInclude ports.conf\n",
    "ports.conf": "Listen 80\n<IfModule ssl_module>\n\tListen 443\n</IfModule>\n",
    "mods-enabled/mpm.load": "LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so\n",
    "mods-enabled/mpm.conf": "<IfModule mpm_event_module>\nThreadsPerChild 25\nMaxRequestWorkers 150\n</IfModule>\n",
}


@pytest.mark.parametrize(
    ("files", "mpm", "most"),
    [
        ({}, "event", 150),
        ({"mods-enabled/mpm.conf": "# MaxRequestWorkers 9\n"}, "event", 400),
        ({"mods-enabled/mpm.conf": "ServerLimit 4\nMaxRequestWorkers 4000\n"}, "event", 100),
        ({"mods-enabled/mpm.conf": "<IfModule mpm_prefork_module>\nMaxRequestWorkers 9\n</IfModule>\n"}, "event", 400),
        ({"mods-enabled/mpm.load": "LoadModule mpm_prefork_module x.so\n"}, "prefork", 256),
        (
            {
                "mods-enabled/mpm.load": 'LoadModule mpm_prefork_module "x.so"\n',
                "mods-enabled/mpm.conf": "<IfModule mpm_prefork_module>\nMaxRequestWorkers \\\n 60\n</IfModule>\n",
            },
            "prefork",
            60,
        ),
        ({"ports.conf": "Listen 127.0.0.1:80\nListen [::1]:443 https\nMaxClients 99\n"}, "event", 150),
    ],
)
def test_apaches_workers_are_read_from_its_configuration(files, mpm, most, tmp_path):
    (tmp_path / "mods-enabled").mkdir()
    for name, text in {**DEBIAN, **files}.items():
        (tmp_path / name).write_text(text)
    found = read_workers(tmp_path / "apache2.conf")
    assert (found.mpm, found.limit, found.ports) == (mpm, most, {80, 443})


@pytest.mark.parametrize(
    ("mpm", "most", "word"),
    [("event", 150, "ok"), ("event", 60, "warn"), ("event", 40, "FAIL"), ("prefork", 256, "warn")],
)
def test_apaches_workers_are_compared_with_those_who_are_connected(mpm, most, word, relay):
    with contextlib.ExitStack() as opened:
        for _ in range(40):
            opened.enter_context(socket.create_connection(("127.0.0.1", relay.port)))
        settings = load({}, {"port": str(relay.port)})
        wait_for(lambda: connected_to(settings) >= 40, "the relay to accept them")
        connected = connected_to(settings)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        Workers(mpm, most, frozenset()).report(Report(), connected)
    text = " ".join(said.getvalue().split())
    assert text.startswith(f"{word} Apache: mpm_{mpm} with {most} workers") and "each open tab holds" in text
    assert ("port of its own" in text) is (word != "ok")
