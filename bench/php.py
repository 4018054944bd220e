"""Measure what a push costs PHP: in a page under PHP-FPM and nginx, and in command-line scripts.

    python bench/php.py                              one round (2 minutes)
    python bench/php.py --json bench/php.json --add            another round, for the medians
    python bench/php.py --from bench/php.json --readme         write the tables of stored figures into README.md

Needs a C compiler and, on Debian, `apt-get install nginx php-fpm php-cli php-curl`.
"""

import argparse
import contextlib
import dataclasses
import glob
import os
import pathlib
import resource
import shutil
import statistics
import time
from collections.abc import Iterator

import report
from compare import number, push
from servers import HERE, KINDS, ROOT, Failed, Server, Target, prepare, relay_command, run_tool

PUSHES = {
    "none": "no push",
    "loaded": "`Relay.php` loaded, no push",
    "relay": "a push with `Relay.php`",
    "streams": "a push with `Relay.php`, transport `streams`",
    "curl": "a push with cURL by hand",
}
CONCURRENT = [1, 8, 32]  # requests at a time
WORKERS = 32  # processes of PHP-FPM: one for each of these requests
REQUESTS = {1: 3000, 8: 6000, 32: 6000}
LOOP = 10_000  # pushes of one process
STARTS = 100  # processes with one push each
WARM_UP = 2000  # requests of each page
FPM = """[global]
error_log = {dir}/error.log
daemonize = no
[www]
{user}
listen = 127.0.0.1:{port}
listen.backlog = 511
pm = static
pm.max_children = {workers}
env[TMPDIR] = {dir}
env[PUSH_URL] = {relay}
env[RELAY_CLIENT] = {dir}/Relay.php
php_admin_flag[log_errors] = on
"""
NGINX = """daemon off;
worker_processes auto;
pid {dir}/nginx.pid;
error_log {dir}/error.log;
{user}
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 10000000;
    client_body_temp_path {dir}/body;
    fastcgi_temp_path {dir}/fastcgi;
    proxy_temp_path {dir}/proxy;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=511;
        location / {{
            fastcgi_pass 127.0.0.1:{fpm};
            fastcgi_param SCRIPT_FILENAME {www}/page.php;
            fastcgi_param QUERY_STRING $query_string;
            fastcgi_param REQUEST_METHOD $request_method;
            fastcgi_param CONTENT_TYPE $content_type;
            fastcgi_param CONTENT_LENGTH $content_length;
        }}
    }}
}}
"""


def program(pattern: str, package: str) -> str:
    found = sorted(glob.glob(pattern))
    if not found:
        raise Failed(f"{package} is not on this machine (apt-get install {package})")
    return found[-1]


def another(name: str, command: str) -> Server:
    """Return a server that is neither the relay nor one of those that it is compared with."""
    server = Server(dataclasses.replace(KINDS["relay"], name=name, label=name), command, 0)
    os.chmod(server.dir, 0o777)  # noqa: S103 - these servers drop root's rights
    return server


@dataclasses.dataclass
class Site:
    """PHP-FPM behind nginx, with page.php."""

    fpm: Server
    port: int

    def get(self, how: str, count: int, concurrent: int) -> str:
        """Request the page `count` times, and return the output of relayload. Raise if a request fails."""
        kind = dataclasses.replace(KINDS["relay"], push_path=f"/page.php?push={how}")
        try:
            return push(Target(kind, str(self.port)), count, concurrent, "page", 0)
        except Failed as error:
            log = pathlib.Path(self.fpm.dir, "error.log").read_text(errors="replace").splitlines()
            raise Failed(f"{PUSHES[how]}: {error}: {log[-1] if log else ''}") from error


@contextlib.contextmanager
def running_site(relay: Server) -> Iterator[Site]:
    """Start PHP-FPM and nginx with configurations of their own."""
    fpm = another("PHP-FPM", program("/usr/sbin/php-fpm*", "php-fpm") + " --nodaemonize --fpm-config {dir}/fpm.conf")
    nginx = another("nginx", program("/usr/sbin/nginx", "nginx") + " -c {dir}/nginx.conf -e {dir}/error.log")
    as_root = os.geteuid() == 0
    for source in (ROOT / "php/Relay.php", HERE / "page.php"):
        shutil.copy(source, fpm.dir)
    values = {"dir": fpm.dir, "port": fpm.port, "workers": WORKERS, "relay": f"http://127.0.0.1:{relay.port}"}
    config = FPM.format(**values, user="user = www-data\ngroup = www-data" if as_root else "")
    pathlib.Path(fpm.dir, "fpm.conf").write_text(config)
    values = {"dir": nginx.dir, "port": nginx.port, "www": fpm.dir, "fpm": fpm.port}
    config = NGINX.format(**values, user="user www-data;" if as_root else "")
    pathlib.Path(nginx.dir, "nginx.conf").write_text(config)
    with fpm, nginx:
        yield Site(fpm, nginx.port)


def measure_page(site: Site, how: str, concurrent: int, count: int) -> dict[str, float]:
    """Return the page's times in µs, its rate, and PHP's CPU in µs for each request."""
    cpu = site.fpm.cpu()
    out = site.get(how, count, concurrent)
    figures = {each: number(rf"{each} (\d+)", out) for each in ("p50", "p99")}
    return {**figures, "cpu": (site.fpm.cpu() - cpu) / count * 1e6, "rate": number(r"\((\d+)/s\)", out)}


def measure_pages(relay: Server, scale: int) -> Iterator[tuple[str, dict[str, float]]]:
    with running_site(relay) as site:
        for how in PUSHES:
            site.get(how, WARM_UP // scale, WORKERS)
        for concurrent in CONCURRENT:
            for how in PUSHES:
                yield f"page {how} {concurrent}", measure_page(site, how, concurrent, REQUESTS[concurrent] // scale)


def script(relay: Server, how: str, count: int) -> list[str]:
    """Run page.php from the command line, and return its output."""
    environ = {
        "PUSH_URL": f"http://127.0.0.1:{relay.port}",
        "RELAY_CLIENT": ROOT / "php/Relay.php",
        "TMPDIR": relay.dir,
    }
    return run_tool(
        "env", *(f"{name}={value}" for name, value in environ.items()), "php", HERE / "page.php", how, count
    )


def measure_scripts(relay: Server, scale: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Measure a script that pushes again and again, and scripts that push once."""
    for how in ("relay", "streams", "curl"):
        wall, cpu = map(float, script(relay, how, LOOP // scale).split())
        yield f"loop {how} 1", {"p50": wall, "cpu": cpu}
    for how in PUSHES:
        times, cpu = [], resource.getrusage(resource.RUSAGE_CHILDREN)
        for _ in range(max(3, STARTS // scale)):
            start = time.monotonic()
            script(relay, how, 1)
            times.append((time.monotonic() - start) * 1e6)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = used.ru_utime + used.ru_stime - cpu.ru_utime - cpu.ru_stime
        times.sort()
        figures = {
            "p50": statistics.median(times),
            "p99": times[len(times) * 99 // 100],
            "cpu": spent / len(times) * 1e6,
        }
        yield f"start {how} 1", figures


PARTS = {"pages": measure_pages, "scripts": measure_scripts}


def measure(options: argparse.Namespace) -> list[dict]:
    prepare(["relay"])
    rounds, scale = [], 100 if options.quick else 1
    for turn in range(options.rounds):
        report.progress(f"round {turn + 1} of {options.rounds}")
        rounds.append({})
        with Server(KINDS["relay"], options.relay or relay_command(), 0) as relay:
            for part in options.only:
                rounds[-1] |= dict(PARTS[part](relay, scale))
    return rounds


def median(result: dict, case: str, figure: str) -> float | None:
    found = [each[case][figure] for each in result["rounds"] if figure in each.get(case, {})]
    return statistics.median(found) if found else None


def milliseconds(value: float | None, base: float | None) -> str:
    """Return µs as ms, and in brackets how much that is more than the base."""
    if value is None:
        return ""
    return f"{value / 1000:.2f} ms" + ("" if base is None else f" (+{(value - base) / 1000:.2f})".replace("+-", "-"))


def row(result: dict, head: str, case: str, base: str) -> str:
    cells = []
    for figure in ("p50", "p99", "cpu"):
        cells.append(milliseconds(median(result, case, figure), median(result, base, figure) if case != base else None))
    return f"| {head} | {' | '.join(cells)} |"


def table(result: dict) -> str:
    """Return Markdown: the times and the CPU of a page, and of a script, with each kind of push."""
    lines = []
    if median(result, "page none 1", "p50") is not None:
        lines += ["| a page under PHP-FPM | time, p50 | time, p99 | CPU of PHP |", "|---|---:|---:|---:|"]
        for concurrent in CONCURRENT:
            at_a_time = f"{concurrent} request{'s' if concurrent > 1 else ''} at a time"
            for how, label in PUSHES.items():
                lines.append(
                    row(result, f"{at_a_time}: {label}", f"page {how} {concurrent}", f"page none {concurrent}")
                )
        lines.append("")
    if median(result, "start none 1", "p50") is not None:
        lines += ["| a command-line script | time, p50 | time, p99 | CPU of PHP |", "|---|---:|---:|---:|"]
        for how in ("relay", "streams", "curl"):
            lines.append(
                row(result, f"{LOOP:,} pushes in one process, each: {PUSHES[how]}", f"loop {how} 1", f"loop {how} 1")
            )
        for how, label in PUSHES.items():
            lines.append(row(result, f"a process of its own: {label}", f"start {how} 1", "start none 1"))
        lines.append("")
    rounds = len(result["rounds"])
    how_often = f"Medians of {rounds} rounds" if rounds > 1 else "One round"
    lines.append(f"{how_often}; in brackets, the difference from the same without a push. " + report.setting(result))
    return "\n".join(lines)


def main() -> None:
    report.run("php", report.arguments(__doc__, PARTS), measure, table)


if __name__ == "__main__":
    main()
