"""Label sets."""

import numpy as np
import pytest

from s5.labels import DCASE_LABELS, LabelSet
from s5.utils.errors import InputError


def test_order_is_the_class_index():
    labels = LabelSet()
    assert [labels.index(name) for name in DCASE_LABELS] == list(range(18))
    assert labels.silence_index == labels.index("silence") == 18


def test_queries_are_one_hot_with_zeros_for_silence():
    labels = LabelSet(("A", "B"))
    np.testing.assert_array_equal(labels.query(["B", "B"], 3), [[0, 1], [0, 1], [0, 0]])
    np.testing.assert_array_equal(labels.indices(["B"], 3), [1, 2, 2])


def test_file_round_trip(tmp_path):
    LabelSet(("A", "B")).save(tmp_path / "labels.txt")
    assert LabelSet.load(tmp_path / "labels.txt") == LabelSet(("A", "B"))


@pytest.mark.parametrize(
    "names", [("A", "A"), ("silence",), (), ("A B",), ("a/b",), ("a_b",), ("a\0b",), ("a\u200bb",)]
)
def test_bad_sets_are_refused(names):
    with pytest.raises(InputError):
        LabelSet(names)


def test_unknown_and_too_many_labels_are_named():
    labels = LabelSet(("Cough", "Speech"))
    with pytest.raises(InputError, match="data/labels:3: found label Speach, expected Speech"):
        labels.index("Speach", "data/labels:3")
    with pytest.raises(InputError, match="found 3 labels, expected at most 2"):
        labels.indices(["Cough"] * 3, 2)
