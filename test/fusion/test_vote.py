"""Voting: the report's formula, alignment, silence and repeated labels."""

import numpy as np
import pytest

from s5.fusion import align_slots, vote

A, B, SILENCE = 0, 1, 2


def posterior(*rows):
    return np.array(rows, dtype=np.float32)


def test_points_follow_equation_1():
    # alpha p^gamma: 0.52 * 0.4^0.5 = 0.329 for A against (0.16 + 0.32) * 0.5^0.5 = 0.339 for B
    first, second = posterior([0.4, 0.35, 0.25]), posterior([0.3, 0.5, 0.2])
    labels, share = vote([first, second, second], [0.52, 0.16, 0.32], gamma=0.5)
    assert labels.tolist() == [B]
    assert share[0] == pytest.approx(0.48 * 0.5**0.5 / (0.52 * 0.4**0.5 + 0.48 * 0.5**0.5))
    assert vote([first, second, second], [0.6, 0.1, 0.3], gamma=0.5)[0].tolist() == [A]


def test_slots_in_another_order_vote_together_only_when_aligned():
    first = posterior([0.9, 0.05, 0.05], [0.05, 0.9, 0.05])
    weights = [0.4, 0.6]
    assert vote([first, first[::-1]], weights)[0].tolist() == [A, B]
    assert vote([first, first[::-1]], weights, align=False)[0].tolist() == [B, A]
    shares = vote([first, first[::-1]], weights)[1]
    np.testing.assert_allclose(shares, 1)


def test_repeated_labels_survive_and_active_slots_come_first():
    both = posterior([0.1, 0.1, 0.8], [0.1, 0.8, 0.1], [0.2, 0.7, 0.1])
    assert vote([both, both], [1, 1])[0].tolist() == [B, B, SILENCE]


def test_one_tagger_gives_its_own_confidence():
    labels, share = vote([posterior([0.2, 0.7, 0.1])], [1.0], gamma=0.5)
    assert labels.tolist() == [B] and share[0] == pytest.approx(0.7)


def test_ties_go_to_the_lower_index():
    tied = [posterior([0.5, 0.3, 0.2]), posterior([0.3, 0.5, 0.2])]
    assert vote(tied, [1, 1])[0].tolist() == [A]


def test_alignment_is_a_permutation():
    random = np.random.default_rng(0)
    rows = random.dirichlet(np.ones(4), 3)
    np.testing.assert_array_equal(align_slots(rows[[2, 0, 1]], rows), rows)
