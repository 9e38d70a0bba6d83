"""Facts of counting labels that may repeat."""

import json
from itertools import permutations
from pathlib import Path

import pytest

from s5.metrics import Counts, label_counts, label_counts_by_class

CASES = json.loads((Path(__file__).resolve().parents[1] / "golden" / "metrics.json").read_text())["cases"]


@pytest.mark.parametrize("case", CASES)
def test_official_counts(case):
    counts = label_counts(case["est_labels"], case["ref_labels"])
    expected = case["label"]
    assert counts == (expected["tp"], expected["fp"], expected["fn"])
    assert counts.correct == expected["correct"]


def test_order_does_not_matter():
    ref = ["Speech", "Pour", "Speech"]
    for est in permutations(["Speech", "Speech", "Cough"]):
        assert label_counts(est, ref) == Counts(tp=2, fp=1, fn=1)


def test_a_class_has_misses_or_false_alarms_but_not_both():
    found = label_counts_by_class(["Speech", "Speech", "Cough"], ["Speech", "Cough", "Cough"])
    assert found == {"Cough": Counts(1, 0, 1), "Speech": Counts(1, 1, 0)}
    assert sum(counts.total for counts in found.values()) == 4  # Eq. (7): the larger number of each class


def test_silence_on_both_sides_is_right():
    assert label_counts(["silence"], []).correct
    assert not label_counts(["Pour"], ["silence"]).correct
