"""The log has each cause once a minute for each origin or address, and strangers cannot fill it."""

import re

import pytest

from pushrelay.log.limiter import MOST_OF_CAUSE, LogLimiter


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("pushrelay.log.limiter.time.monotonic", lambda: now[0])
    return now


def test_left_out_lines_are_counted_in_the_next_one(clock, caplog):
    log_limiter = LogLimiter()
    for _ in range(1000):
        log_limiter.warn("wrong key", "192.0.2.1", "a wrong key from 192.0.2.1")
    log_limiter.warn("wrong key", "192.0.2.2", "a wrong key from 192.0.2.2")
    clock[0] += 61
    log_limiter.warn("wrong key", "192.0.2.1", "a wrong key from 192.0.2.1")
    assert [record.getMessage() for record in caplog.records] == [
        "a wrong key from 192.0.2.1",
        "a wrong key from 192.0.2.2",
        "a wrong key from 192.0.2.1 (and 999 more of the same since the last such line)",
    ]


def test_strangers_fill_neither_the_log_nor_the_memory_and_hide_no_other_cause(clock, caplog):
    log_limiter = LogLimiter()
    for minute in range(3):
        for number in range(10_000):
            log_limiter.warn("origin", f"https://{minute}-{number}.example", "a page was refused")
        for cause in ("wrong key", "full"):
            log_limiter.warn(cause, "192.0.2.1", f"{cause} of minute {minute}")
        clock[0] += 61
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) <= 3 * (MOST_OF_CAUSE + 3)
    assert {f"{cause} of minute {minute}" for cause in ("wrong key", "full") for minute in range(3)} <= set(lines)
    counted = sum(int(count) for line in lines for count in re.findall(r"(\d+) more", line))
    assert counted + sum("page" in line for line in lines) > 2 * 9_900
    assert sum(map(len, log_limiter._silences.values())) < 100


def test_text_from_strangers_cannot_forge_a_line(clock, caplog):
    LogLimiter().warn(
        "origin", "x", "a page of x\r\n2026-01-01 relay: all is well\x1b[2K\u2028 was refused" + "x" * 5000
    )
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.isprintable() and len(line) <= 1000
