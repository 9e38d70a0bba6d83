"""For tests of trainings: what they log, and the states that they leave."""

import logging

import pytest
import torch

from s5.tasks.checkpoint import NEWEST


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
