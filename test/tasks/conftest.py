"""For tests of trainings: what they log, the states that they leave, several processes, small networks."""

import logging
import os
import signal
import sys
import time
import traceback

import pytest
import torch

from s5.tasks.checkpoint import NEWEST
from s5.tasks.distributed import ProcessGroup


class At(logging.Handler):
    """Does something when the training logs a text for the first time."""

    def __init__(self, text, action):
        super().__init__()
        self.text, self.action, self.done = text, action, False

    def emit(self, record):
        if not self.done and self.text in record.getMessage():
            self.done = True
            self.action()

    def __enter__(self):
        logging.getLogger().setLevel(logging.INFO)
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_):
        logging.getLogger().removeHandler(self)


def state(folder):
    return torch.load(folder / NEWEST, weights_only=True)


def assert_same(a, b, where=""):
    """Two states are equal bit by bit, but for the times they took."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            if not str(key).endswith("time") and key != "random":
                assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}.{i}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b or (a != a and b != b), (where, a, b)


class Processes:
    """A function in several processes that are told their places; what they say goes to a file each."""

    def __init__(self, size, folder, function):
        self.logs = [folder / f"log.{time.monotonic_ns()}.{rank}" for rank in range(size)]
        init = f"file://{folder}/init.{time.monotonic_ns()}"
        self.pids = [self._fork(ProcessGroup(rank, rank, size, init), function) for rank in range(size)]

    def _fork(self, place, function):
        if pid := os.fork():
            return pid
        status = 1
        try:
            with open(self.logs[place.rank], "w") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1)
            os.environ.update(place.environment() | {"GLOO_SOCKET_IFNAME": "lo"})
            function(place.rank)
            status = 0
        except SystemExit as e:
            status = e.code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)

    def wait(self, seconds=120):
        """Exit statuses, negative for a signal. Those that take longer are killed, and the test fails."""
        statuses, end = {}, time.monotonic() + seconds
        while len(statuses) < len(self.pids):
            for pid in set(self.pids) - set(statuses):
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    statuses[pid] = os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                for pid in set(self.pids) - set(statuses):
                    os.kill(pid, signal.SIGKILL)
                raise AssertionError("\n".join(log.read_text()[-2000:] for log in self.logs))
            time.sleep(0.05)
        for log in self.logs:
            print(f"--- {log}\n{log.read_text()[-3000:]}")  # shown if the test fails
        return [statuses[pid] for pid in self.pids]


@pytest.fixture
def forked():
    """``forked(2, folder, function).wait()``: a function in several processes that are told their places."""
    if torch.cuda.is_available():
        pytest.skip("forks, which autograd's GPU threads do not bear")
    return Processes


@pytest.fixture
def at():
    """``with at("1epoch results", action):`` does something when a training logs the text."""
    return At


@pytest.fixture(name="state")
def _state():
    """The state that a training has left in its folder."""
    return state


@pytest.fixture(name="assert_same")
def _assert_same():
    """Compares two states bit by bit."""
    return assert_same
