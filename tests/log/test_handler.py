"""Logging never blocks its caller, and the last lines of a program are written."""

import os
import re
import signal
import subprocess
import sys
import termios

import pytest
from conftest import DEADLINE, ROOT, Relay, clean_environ


def test_a_log_that_nobody_reads_costs_lines_and_no_pushes_and_ends_with_the_relay(tmp_path):
    reader, writer = os.pipe()
    command = [sys.executable, str(ROOT / "relay.py"), "--port=0", "--broker=memory:", "--access-log=yes"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=writer, env=clean_environ(), cwd=tmp_path)
    os.close(writer)
    try:
        relay = object.__new__(Relay)
        relay.url = process.stdout.readline().decode().split()[-1]
        for number in range(60):  # 1.8 MB of log, more than the pipe and the queue hold
            assert relay.request("GET", f"/{'x' * 30000}{number}")[0] == 404
        for number in range(20):
            relay.push("42", number)
        assert relay.request("POST", "/push", b"destination=a&data=b", {"X-Forwarded-For": "203.0.113.9"})[0] == 401
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
        assert b"/xxxx" in os.read(reader, 4096)
    finally:
        process.kill()
        process.stdout.close()
        os.close(reader)


def run_log(program, stderr):
    """Run a program that has called start_log(), with this standard error."""
    begin = "import logging, sys, threading, time\nfrom pushrelay.log.setup import start_log\nstart_log()"
    program = f"{begin}\n{program}"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=stderr, env=environ, text=True
    )


MANY = """
for n in range(300): logging.warning("%d %s", n, "x" * 10000)
print("logged", flush=True)
input()
logging.warning("afterwards")
"""


def test_lines_that_were_lost_are_counted_once_the_log_is_read_again():
    process = run_log(MANY, subprocess.PIPE)
    assert process.stdout.readline() == "logged\n"
    read = []
    while "lines were lost" not in "".join(read[-1:]):
        read.append(process.stderr.readline())
    process.stdin.write("go on\n")
    process.stdin.close()
    told = "".join(read) + process.stderr.read()
    assert process.wait(DEADLINE) == 0
    numbers = [int(number) for number in re.findall(r"^\S+ \S+ WARNING root: (\d+) x", told, re.MULTILINE)]
    lost = sum(map(int, re.findall(r"relay\.log: (\d+) lines were lost", told)))
    assert numbers == sorted(numbers) and len(numbers) > 50 and len(numbers) + lost == 300
    assert told.index("lines were lost") < told.index("afterwards")


def test_a_stopped_terminal_keeps_no_program_from_its_end():
    ours, theirs = os.openpty()
    try:
        termios.tcflow(theirs, termios.TCOOFF)  # Ctrl-S
        process = run_log('logging.warning("unseen"); logging.error("x" * 100000); sys.exit(3)', theirs)
        assert process.wait(DEADLINE) == 3
    finally:
        os.close(theirs)
        os.close(ours)


@pytest.mark.parametrize(
    ("program", "lines", "code"),
    [
        ('logging.warning("the last")\n1 / 0', ["the last", "ZeroDivisionError"], 1),
        ("threading.Thread(target=lambda: 1 / 0).start()", ["a thread ended", "ZeroDivisionError"], 0),
        ('for n in range(50): logging.warning("number %d", n)\nsys.exit(2)', ["number 0", "number 49"], 2),
        ('logging.warning("%d", "no number")\nlogging.warning("then")', ["%d", "then"], 0),
    ],
)
def test_a_program_that_ends_gets_its_last_lines_out(program, lines, code):
    process = run_log(program, subprocess.PIPE)
    _, told = process.communicate(timeout=DEADLINE)
    assert process.returncode == code and all(line in told for line in lines), told
