"""Measurements of a running relay, of this process, and of times."""

import json
import os
import pathlib
import re
import time

FULL_SIZE = os.environ.get("FULL_SIZE") == "1"  # the promises about crowds are tried in their full size


def proc(relay, name):
    """Return the path of a file of Linux about the relay's process."""
    return pathlib.Path(f"/proc/{relay.process.pid}/{name}")


def rss(relay):
    """Return the bytes of memory that the relay's process holds."""
    return int(proc(relay, "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(relay):
    """Return what the relay's process has used of the CPUs so far."""
    fields = proc(relay, "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_share(relay, seconds=1.0):
    """Return the share of one CPU that the relay uses in the next seconds."""
    before = cpu_seconds(relay)
    time.sleep(seconds)
    return (cpu_seconds(relay) - before) / seconds


def work_of(relay):
    """Return the processor seconds that the relay has used so far, more exactly than cpu_seconds()."""
    return time.clock_gettime((~relay.process.pid << 3) | 2)  # clock_getcpuclockid(3)


def seconds_to_end(relay):
    """Return the seconds that a relay's shutdown took, by its log."""
    return float(re.search(r"sent away, in (\d+\.\d) s", relay.log.read_text())[1])


def p99(seconds):
    return sorted(seconds)[int(len(seconds) * 0.99)]


def report(text):
    """Print a figure; `pytest -s` shows it."""
    print(f"\n    {text}", flush=True)


def open_fds():
    """Return how many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


def error_of(body):
    """Return the word for programs in a refusal's JSON."""
    return json.loads(body)["error"]
