"""What a person sees while a stage works: a bar in a terminal, a line now and then in a log."""

import contextlib
import os
import pty
import subprocess
import sys

import pytest

from s5.utils import progress as module
from s5.utils.progress import progress

WORK = "import time; from s5.utils.progress import progress\nfor _ in progress(range(4), 4, 'tag'): time.sleep(0.15)"


def test_items_pass_through_and_a_short_work_writes_nothing(monkeypatch, caplog):
    monkeypatch.delenv("S5_TERMINAL", raising=False)
    caplog.set_level("INFO")
    assert list(progress(iter("abc"), 3, "tag")) == ["a", "b", "c"]
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("seconds", "lines"),
    [
        (20.0, ["tag: 3 of 8, 20.0 s each, 01:40 left", "tag: 6 of 8, 20.0 s each, 00:40 left"]),
        (0.5, []),
        (1500.0, ["tag: 1 of 8, 1500.0 s each, 2:55:00 left"]),
    ],
)
def test_a_line_a_minute_in_a_log(monkeypatch, caplog, seconds, lines):
    monkeypatch.delenv("S5_TERMINAL", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    clock = iter(i * seconds for i in range(99))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    caplog.set_level("INFO")
    list(progress(range(8), 8, "tag"))
    assert caplog.messages[: max(len(lines), 1)] == lines


def test_rate_of_fast_work(monkeypatch, caplog):
    monkeypatch.delenv("S5_TERMINAL", raising=False)
    monkeypatch.setattr(module, "LOG_INTERVAL", 0.0)
    clock = iter(0.25 * i for i in range(9))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    caplog.set_level("INFO")
    list(progress(range(2), 2, "score"))
    assert caplog.messages == ["score: 1 of 2, 4.0 a second, 00:00 left", "score: 2 of 2, 4.0 a second, 00:00 left"]


def output_in_terminal(command):
    """What a command writes to a terminal of its own."""
    here, there = pty.openpty()
    subprocess.run(command, stdout=there, stderr=there, check=True)
    os.set_blocking(here, False)
    said = b""
    with contextlib.suppress(BlockingIOError):  # nothing more
        while part := os.read(here, 1 << 16):
            said += part
    os.close(here)
    os.close(there)
    return said.decode()


def test_a_bar_with_rate_and_remaining_time_in_a_terminal():
    said = output_in_terminal([sys.executable, "-c", WORK])
    assert "tag:  50%" in said and "2/4 [00:00<00:00" in said and "it/s]" in said


def test_a_launcher_passes_its_terminal_on():
    """run_local.sh reads the output through a pipe; S5_TERMINAL=1 says that it ends in a terminal."""
    env = {**os.environ, "S5_TERMINAL": "1"}
    done = subprocess.run([sys.executable, "-c", WORK], env=env, capture_output=True, text=True, check=True)
    assert "tag:  50%" in done.stderr
    done = subprocess.run(
        [sys.executable, "-c", WORK], env={**env, "S5_TERMINAL": "0"}, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
