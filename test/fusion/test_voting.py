"""Voting: the report's formula, alignment, silence, ties, repeated labels, averages, multi-hot taggers."""

import numpy as np
import pytest

from s5.fusion import VoteConfig, align_all, align_slots, average, class_scores, decide, vote
from s5.utils.errors import InputError

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
    labels, shares = vote(align_all([first, first[::-1]]), weights)
    assert labels.tolist() == [A, B]
    assert vote([first, first[::-1]], weights)[0].tolist() == [B, A]
    np.testing.assert_allclose(shares, 1)


def test_the_yaml_can_ask_for_the_literal_reading():
    first = posterior([0.9, 0.05, 0.05], [0.05, 0.9, 0.05])
    for align, expected in ((True, [A, B]), ("assignment", [A, B]), ("none", [B, A]), (False, [B, A])):
        config = VoteConfig(align=align)
        assert decide([first, first[::-1]], [0.4, 0.6], config, 2, 2).index.tolist() == expected


def test_repeated_labels_survive_and_silent_slots_are_left_out():
    one = posterior([0.1, 0.1, 0.8], [0.7, 0.2, 0.1], [0.6, 0.3, 0.1])
    for found in (vote([one], [1.0]), average([one], [1.0])):
        assert found[0].tolist() == [SILENCE, A, A]
        np.testing.assert_allclose(found[1], [0.8, 0.7, 0.6], rtol=1e-6)
    decision = decide([one, one[[1, 2, 0]]], [1, 1], VoteConfig(), 2, 3)
    assert decision.index.tolist() == [A, A]
    np.testing.assert_allclose(decision.silence, [[0.1, 0.1], [0.1, 0.1]], rtol=1e-6)


def test_silence_of_a_slot_is_what_each_tagger_says_of_it():
    first = posterior([0.0, 0.2, 0.8], [0.6, 0.1, 0.3])
    second = posterior([0.7, 0.2, 0.1], [0.1, 0.4, 0.5])  # its slots the other way round
    decision = decide([first, second], [1, 1], VoteConfig(), 2, 2)
    assert decision.index.tolist() == [A]
    np.testing.assert_allclose(decision.silence, [[0.3], [0.1]], rtol=1e-6)


def test_one_tagger_alone_gives_its_confidence():
    labels, share = vote([posterior([0.2, 0.7, 0.1])], [1.0], gamma=0.5)
    assert labels.tolist() == [B] and share[0] == pytest.approx(0.7)


def test_ties_go_to_the_lower_index_so_silence_wins_none():
    tied = [posterior([0.5, 0.3, 0.2]), posterior([0.3, 0.5, 0.2])]
    assert vote(tied, [1, 1])[0].tolist() == [A]
    assert average(tied, [1, 1])[0].tolist() == [A]
    assert vote([posterior([0.2, 0.4, 0.4])], [1])[0].tolist() == [B]
    assert vote([posterior([0.0, 1.0, 0.0]), posterior([0.0, 0.0, 1.0])], [1, 1])[0].tolist() == [B]


def test_a_slot_without_any_point_is_silent():
    empty = posterior([0.0, 0.0, 0.0], [0.6, 0.3, 0.1])
    for found in (vote([empty, empty], [1, 1]), average([empty, empty], [1, 1])):
        assert found[0].tolist() == [SILENCE, A] and found[1][0] == 0
    only_silent = posterior([0.1, 0.1, 0.8], [0.0, 0.1, 0.9])
    assert decide([only_silent], [1], VoteConfig(), 2, 2).index.tolist() == []


def test_a_tagger_of_weight_zero_says_nothing():
    first, second = posterior([0.6, 0.3, 0.1]), posterior([0.0, 1.0, 0.0])
    np.testing.assert_array_equal(vote([first, second], [1, 0], 0.0)[0], [A])


def test_average_differs_from_the_vote_where_confidence_is_spread():
    # Two lukewarm votes for A outvote one sure B; the mean of the distributions does not.
    two, sure = posterior([0.4, 0.35, 0.25]), posterior([0.02, 0.97, 0.01])
    assert vote([two, two, sure], [1, 1, 1], gamma=0.0)[0].tolist() == [A]
    assert average([two, two, sure], [1, 1, 1])[0].tolist() == [B]


def test_alignment_is_a_permutation():
    random = np.random.default_rng(0)
    for n in (3, 7):  # all assignments in turn, and the solver
        rows = random.dirichlet(np.ones(4), n)
        np.testing.assert_array_equal(align_slots(rows[::-1], rows), rows)


def test_alignment_leaves_equal_slots_where_they_are():
    same = posterior([0.8, 0.1, 0.1], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8])
    other = posterior([0.7, 0.2, 0.1], [0.6, 0.2, 0.2], [0.0, 0.1, 0.9])
    np.testing.assert_array_equal(align_slots(other, same), other)


# Park et al.'s ensemble: 0.35 both features, 0.30 chroma, 0.20 roll-off, 0.15 baseline, on sigmoid scores.
WEIGHTS = [0.35, 0.30, 0.20, 0.15]


def test_multi_hot_scores_are_averaged_then_thresholded():
    tables = [posterior(row) for row in ([0.9, 0.2], [0.2, 0.9], [0.4, 0.6], [0.8, 0.1])]
    decision = decide(tables, WEIGHTS, VoteConfig(rule="average"), 2, 3)
    # A: 0.315 + 0.06 + 0.08 + 0.12 = 0.575; B: 0.07 + 0.27 + 0.12 + 0.015 = 0.475
    assert decision.index.tolist() == [A] and decision.silence is None
    np.testing.assert_allclose(decision.probability, [0.575], rtol=1e-6)
    both = decide(tables, WEIGHTS, VoteConfig(rule="average", threshold=0.4), 2, 3)
    assert both.index.tolist() == [A, B]
    assert decide(tables, WEIGHTS, VoteConfig(rule="average", threshold=0.4), 2, 1).index.tolist() == [A]


def test_multi_hot_taggers_give_at_least_as_many_labels_as_asked():
    quiet = [posterior([0.1, 0.3])]
    assert decide(quiet, [1], VoteConfig(), 2, 3).index.tolist() == [B]
    assert decide(quiet, [1], VoteConfig(n_min=0), 2, 3).index.tolist() == []


@pytest.mark.parametrize(
    ("tables", "config", "message"),
    [
        ([posterior([0.1, 0.3]), posterior([0.1, 0.3])], VoteConfig(), "found vote, expected average"),
        ([posterior([0.1, 0.3]), posterior([0.1, 0.3, 0.6])], VoteConfig(), r"shapes \[1, 2\] and \[1, 3\]"),
        ([posterior([0.1, 0.3, 0.2, 0.4])], VoteConfig(), r"expected of all taggers \[K, 3\] \(tracks\), or \[1, 2\]"),
    ],
)
def test_posteriors_that_do_not_fit_are_refused(tables, config, message):
    with pytest.raises(InputError, match=message):
        decide(tables, [1] * len(tables), config, 2, 3)


@pytest.mark.parametrize("bad", [{"gamma": -1}, {"gamma": float("nan")}, {"threshold": 1.5}, {"n_min": -1}])
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        VoteConfig(**bad)


def test_class_scores_ask_whether_a_class_occurs_in_any_slot():
    first, second = posterior([0.7, 0.1, 0.2], [0.2, 0.5, 0.3]), posterior([0.1, 0.1, 0.8], [0.2, 0.1, 0.7])
    np.testing.assert_allclose(class_scores([first, second], [3, 1], 2), [0.575, 0.4, 0.325], rtol=1e-6)
    np.testing.assert_allclose(class_scores([posterior([0.3, 0.9])], [1], 2), [0.3, 0.9, 0], rtol=1e-6)
