"""The benchmark: its load generator compiles cleanly, a small run has every figure, and nothing stays behind."""

import json
import pathlib
import shlex
import shutil
import subprocess
import sys

import pytest
from conftest import DEADLINE, ROOT, clean_environ, need, wait_for

BENCH = ROOT / "bench"
NCHAN = pathlib.Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
FIGURES = {
    *(
        "kept",
        "kept_text",
        "kept_json",
        "push_cpu",
        "new",
        "fanout",
        "connects",
        "memory",
        "threads",
        "idle_cpu",
        "unicast",
        "leave_cpu",
    ),
    *("reply_p50", "reply_p99", "delivery_p50", "delivery_p99"),
}


CLUSTER_FIGURES = {
    *("pushes", "pushes_nodes", "pushes_redis", "unicast", "unicast_nodes", "unicast_redis"),
    *("register_nodes", "register_redis", "fanout", "fanout_nodes", "delivery_p50", "delivery_p99"),
}
MEMORY_FIGURES = {"destination_memory", "publication_memory", "client_memory"}


class Script:
    """A script of bench/. Its processes are found by a word in the environment that they inherit."""

    def __init__(self, name, word):
        self.name = name
        self.word = word

    def start(self, *flags):
        command = [sys.executable, str(BENCH / self.name), *flags]
        environ = {**clean_environ(), "BENCH_TEST": self.word}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)

    def run(self, *flags):
        """Return its output. It must succeed."""
        process = self.start(*flags)
        try:
            out, err = process.communicate(timeout=300)
        finally:
            process.terminate()
        assert process.returncode == 0, err
        return out

    def processes(self):
        """Return the command lines of the processes that it started and that still run."""
        return [line for line in map(self._command_if_ours, pathlib.Path("/proc").glob("[0-9]*")) if line]

    def _command_if_ours(self, folder):
        try:
            if f"BENCH_TEST={self.word}".encode() in (folder / "environ").read_bytes():
                return (folder / "cmdline").read_text(errors="replace").replace("\0", " ")
        except OSError:
            pass  # the process has ended, or is another user's
        return ""


@pytest.fixture
def compare(tmp_path):
    compare = Script("compare.py", str(tmp_path))
    yield compare
    assert not compare.processes()


@pytest.fixture
def cluster(tmp_path):
    need(shutil.which("redis-server") and shutil.which("redis-cli"), "Redis (apt-get install redis-server)")
    cluster = Script("cluster.py", str(tmp_path))
    yield cluster
    assert not cluster.processes()


@pytest.fixture(scope="module", autouse=True)
def tools():
    need(sys.platform == "linux", "Linux (the benchmark reads /proc)")
    need(shutil.which("cc"), "a C compiler (apt-get install gcc libc6-dev)")


def need_node():
    need(shutil.which("node") and shutil.which("npm"), "Node with npm (apt-get install nodejs npm)")


def test_the_load_generator_compiles_without_a_warning(tmp_path):
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]
    command = ["cc", *flags, "-o", str(tmp_path / "relayload"), str(BENCH / "relayload.c")]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0 and ran.stderr == "", ran.stderr


def test_small_runs_fill_one_file_and_a_server_that_fails_has_a_line(compare, tmp_path):
    need_node()
    file = tmp_path / "result.json"
    flags = ("--quick", "--clients=50", "--rounds=1", f"--json={file}")
    broken = shlex.join([sys.executable, "-c", "raise SystemExit('not today')"])
    compare.run(*flags, "--servers=relay,nchan")
    printed = compare.run(*flags, "--servers=relay,seed", "--relay", broken)
    first, second = (run["servers"] for run in json.loads(file.read_text())["runs"])
    for entry in (first["relay"], second["seed"], *([first["nchan"]] if NCHAN.exists() else [])):
        assert (entry["failures"], set(entry["medians"])) == ([], FIGURES)
    if not NCHAN.exists():
        assert f"- nchan, 1 worker: {NCHAN} is not on this machine (apt-get install " in printed
    assert "- the relay: round 1: did not start: not today" in printed
    assert "| | the relay | Node.js, socket.io | nchan, 1 worker |" in printed


def test_a_ratio_compares_a_server_with_the_relay_in_the_same_run(compare, tmp_path):
    def server(pushes):
        figures = {"kept": pushes} if pushes else {}
        failures = [] if pushes else ["round 1: not today"]
        return {"clients": 10, "version": "", "rounds": [figures], "medians": figures, "failures": failures}

    work = {"fan_clients": 10, "rate": 1, "reduced": False}
    machine = {"cpus": 2, "system": "Linux", "python": "3.11", "node": ""}
    servers = [
        {"relay": server(100), "seed": server(50)},
        {"relay": server(300), "nchan": server(600), "pushpin": server(None)},
    ]
    file = tmp_path / "result.json"
    file.write_text(json.dumps({"runs": [{"machine": machine, "work": work, "servers": each} for each in servers]}))
    printed = compare.run(f"--from={file}")
    assert "| pushes, plain forms on kept connections, /s | 200 | 50 (0.50) | 600 (2.00) | failed |" in printed
    assert "- pushpin: round 1: not today" in printed


def test_a_run_that_is_stopped_leaves_no_process_behind(compare):
    process = compare.start("--quick", "--clients=50", "--rounds=1", "--servers=relay", "--only=many")
    wait_for(lambda: any("relayload listen" in line for line in compare.processes()), "the clients' start", 60)
    process.terminate()
    process.communicate(timeout=DEADLINE)
    assert process.returncode == 1


def test_a_small_run_gives_all_figures_of_clusters(cluster, tmp_path):
    """The nodes of the emitter have the adapter."""
    need_node()
    file = tmp_path / "result.json"
    flags = ("--quick", "--nodes=2", "--rounds=1", "--kinds=relay,emitter", "--only=memory,push,clients,fanout")
    printed = cluster.run(*flags, f"--json={file}")
    clusters = json.loads(file.read_text())["clusters"]
    assert clusters["failures"] == {}
    assert set(clusters["medians"]["relay 2"]) == CLUSTER_FIGURES | MEMORY_FIGURES
    assert set(clusters["medians"]["emitter 2"]) == CLUSTER_FIGURES
    assert "| the relay, 2 nodes | socket.io, Redis emitter, 2 nodes |" in printed
    assert cluster.run(f"--from={file}") == printed


def test_a_small_run_gives_the_ratios_of_redis_to_sqlite(cluster, tmp_path):
    file = tmp_path / "result.json"
    printed = cluster.run("--quick", "--rounds=1", "--only=pairs", f"--json={file}")
    pairs = json.loads(file.read_text())["pairs"]
    assert pairs["failures"] == []
    (one_round,) = pairs["rounds"]
    ratio = one_round["redis"]["kept_4"] / one_round["sqlite"]["kept_4"]
    assert f" | {ratio:.2f} | ≥ 0.45 | " in printed


def test_if_the_relays_do_not_start_the_run_prints_a_line_about_it(cluster):
    broken = shlex.join([sys.executable, "-c", "raise SystemExit('not today')"])
    flags = ("--quick", "--rounds=1", "--kinds=relay", "--nodes=1", "--only=push,pairs", "--relay", broken)
    printed = cluster.run(*flags)
    assert "- the relay, 1 node: round 1: did not start: not today" in printed
    assert "- Redis beside SQLite: did not start: not today" in printed
