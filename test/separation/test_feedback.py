"""The number of passes: all in evaluation; in training a random one, which a resumed training goes on with."""

import copy

import pytest

from s5.separation.feedback import Passes
from s5.utils.errors import InputError


def test_evaluation_runs_all_passes_and_training_any_number():
    passes = Passes(3)
    drawn = [passes.train().draw() for _ in range(300)]
    assert {n: 60 < drawn.count(n) < 140 for n in range(1, 4)} == {1: True, 2: True, 3: True}
    assert {passes.eval().draw() for _ in range(10)} == {3}


def test_the_draws_are_those_of_the_step():
    one, other = Passes(3), Passes(3)
    first = [one.draw() for _ in range(20)]
    assert [other.draw() for _ in range(20)] == first
    state = copy.deepcopy(one.state_dict())
    following = [one.draw() for _ in range(20)]
    resumed = Passes(3)
    resumed.load_state_dict(state)
    assert [resumed.draw() for _ in range(20)] == following != first


def test_one_pass_keeps_nothing():
    assert not Passes(1).state_dict() and Passes(1).draw() == 1
    with pytest.raises(InputError, match="passes: found 0, expected at least 1"):
        Passes(0)
