"""Decisions on multi-hot posteriors: the rules of the 2025 baseline."""

import subprocess
import sys

import numpy as np
import pytest

from s5.tagging.decision import MultiHotDecision, decide_multihot
from s5.utils.errors import InputError


@pytest.mark.parametrize(
    ("posterior", "expected"),
    [
        ([0.5, 0.4, 0.3, 0.2], [0]),  # the threshold itself counts
        ([0.1, 0.2, 0.4, 0.3], [2]),  # none reaches it: the best one
        ([0.6, 0.9, 0.7, 0.8], [1, 3, 2]),  # more than three do: the best three
        ([0.6, 0.1, 0.7, 0.2], [2, 0]),
    ],
)
def test_one_to_three_events_of_2025(posterior, expected):
    index, probability = decide_multihot(np.array([posterior], dtype=np.float32))
    assert index.tolist() == expected
    np.testing.assert_allclose(probability, np.array(posterior)[expected], rtol=1e-6)


def test_no_event_where_none_is_demanded():
    assert decide_multihot(np.full(18, 0.49), n_min=0)[0].size == 0
    assert decide_multihot(np.full(18, 0.49), threshold=0.4, n_min=0, n_max=2)[0].tolist() == [0, 1]


def test_more_events_than_classes_are_not_invented():
    assert sorted(decide_multihot(np.array([0.9, 0.8]), n_max=5)[0].tolist()) == [0, 1]


@pytest.mark.parametrize("limits", [(2, 1), (-1, 3)])
def test_impossible_limits_are_refused(limits):
    with pytest.raises(InputError, match="expected 0 <= n_min <= n_max"):
        MultiHotDecision(0.5, *limits)
    with pytest.raises(InputError, match="expected 0 <= n_min <= n_max"):
        decide_multihot(np.zeros(3), 0.5, *limits)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"expected \[C\] or \[1, C\]"):
        decide_multihot(np.zeros((3, 19)))


def test_decisions_need_no_torch():
    code = "import sys; import s5.tagging.decision; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
