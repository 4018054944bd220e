"""The doctor prints the lines that are shipped in deploy/ and explained in docs/."""

from conftest import ROOT

from pushrelay.cli.doctor.proxies import Way, passing_on
from pushrelay.client.address import address_of


def test_the_doctors_lines_are_those_of_the_shipped_files_and_of_the_docs():
    way = Way("Apache", address_of("http://shop.test/relay/"), address_of("http://127.0.0.1:8080/"), 45)
    lines = [line for line in passing_on(way)[0].lines if line.startswith("ProxyPass ")]
    for name in ("deploy/apache-relay.conf", "docs/apache.md", "README.md"):
        text = (ROOT / name).read_text()
        assert all(line in text for line in lines if "socket.io" in line), name
    assert all("timeout=60" in line for line in lines)
    nginx = passing_on(way._replace(proxy="nginx"))[0].lines
    shipped = (ROOT / "deploy/nginx-relay-location.conf").read_text()
    own = [line for line in nginx if "proxy_pass " not in line and "Connection" not in line]
    assert all(line in shipped for line in own) and "  proxy_buffering off;" in nginx
    slow = "\n".join(passing_on(way._replace(ping_seconds=100.0, proxy=""))[0].lines)
    assert "timeout=115" in slow and "timeout=60" not in slow
