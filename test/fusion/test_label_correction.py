"""Refinement and label correction on a small world in which separation and tagging are known functions.

Classes 0 to 3; a separated source is a waveform of constant value: the class that can be heard in it.
"""

import numpy as np
import pytest

from s5.fusion import CandidateConfig, RefineConfig, refinement
from s5.utils.errors import InputError

SILENCE = 4
K = 3


class World:
    """Separation and tagging where ``heard[label]`` is the class that the source of a query label sounds like."""

    def __init__(self, heard, sure=0.8):
        self.heard, self.sure, self.queries = heard, sure, []

    def separate(self, labels):
        assert len(labels) <= K
        self.queries.append(labels)
        return np.array([[self.heard.get(c, SILENCE)] * 5 for c in labels], np.float32)

    def rescore(self, sources):
        scores = np.full((len(sources), SILENCE + 1), 0.05)
        for row, source in zip(scores, sources, strict=True):
            row[int(source[0])] = self.sure + 0.01 * int(source[0])
        return scores


def run(world, labels, scores, **config):
    distinct = config.pop("distinct", False)
    scores = np.array([*scores, 0.0])
    steps, answer = refinement(labels, scores, RefineConfig(**config), K, distinct), None
    while True:
        try:
            request = steps.send(answer)
        except StopIteration as end:
            return end.value
        answer = world.separate(request) if isinstance(request, tuple) else world.rescore(request)


FLAT = [0.6, 0.5, 0.4, 0.3]


def test_a_label_that_its_source_contradicts_is_removed_and_the_rest_separated_again():
    world = World({0: 0, 1: 0})
    refined = run(world, [0, 1], FLAT)
    assert refined.index == [0]
    assert world.queries == [(0, 1), (0,)]
    counts = refined.counts
    assert (counts.removed, counts.restored, counts.changed, counts.queries, counts.tagged) == (1, 0, 1, 2, 2)


def test_labels_that_are_confirmed_stay_as_they_are_without_another_query():
    world = World({2: 2, 0: 0})
    refined = run(world, [2, 0], FLAT)
    assert refined.index == [2, 0] and world.queries == [(2, 0)] and refined.counts.changed == 0
    np.testing.assert_array_equal(refined.sources[:, 0], [2, 0])
    np.testing.assert_allclose(refined.probability, [0.82, 0.8])


def test_verification_drops_slots_and_separates_nothing_again():
    world = World({0: 0, 1: 2})
    refined = run(world, [1, 0], FLAT, separate_again=False)
    assert refined.index == [0] and world.queries == [(1, 0)]
    np.testing.assert_array_equal(refined.sources, np.zeros((1, 5)))


def test_correction_of_park2025_tries_candidates_and_restores_what_was_missed():
    # Fig. 2: top three {A, B, C}, D above the threshold; A, B and D are there, C is not.
    world = World({0: 0, 1: 1, 2: 0, 3: 3})
    refined = run(world, [0, 1, 2], [0.9, 0.8, 0.7, 0.55], candidates=CandidateConfig(), n_min=1, distinct=True)
    assert world.queries == [(0, 1, 2), (3,), (3, 1, 0)]  # K at a time, then the confirmed ones by their new scores
    assert refined.index == [3, 1, 0]
    assert (refined.counts.removed, refined.counts.restored) == (1, 1)


def test_candidates_are_the_top_three_and_all_above_the_threshold():
    world = World({})
    run(world, [0], [0.9, 0.2, 0.3, 0.1], candidates=CandidateConfig())
    assert world.queries == [(0,), (0, 2, 1)]
    world = World({})
    run(world, [0], [0.9, 0.2, 0.3, 0.1], candidates=CandidateConfig(top=1, threshold=0.3))
    assert world.queries == [(0,), (0, 2)]


def test_if_nothing_is_confirmed_the_top_label_stays_where_there_has_to_be_one():
    refined = run(World({0: 1, 1: 2, 2: 0}), [1, 0], FLAT, candidates=CandidateConfig(), n_min=1)
    assert refined.index == [0] and refined.probability == [0.6]
    assert run(World({0: 1, 1: 2, 2: 0}), [1, 0], FLAT, candidates=CandidateConfig()).index == []


def test_at_most_k_labels_stay_those_with_the_highest_scores():
    world = World({c: c for c in range(4)})
    refined = run(world, [0, 1, 2], [0.9, 0.9, 0.9, 0.9], candidates=CandidateConfig())
    assert refined.index == [3, 2, 1]
    assert refined.probability == pytest.approx([0.83, 0.82, 0.81])


def test_refinement_relabels_until_the_labels_stay():
    world = World({0: 1, 1: 2, 2: 2})
    refined = run(world, [0], FLAT, disagreement="relabel", loops=5)
    assert refined.index == [2] and world.queries == [(0,), (1,), (2,)]
    assert (refined.counts.loops, refined.counts.unsettled) == (3, 0)
    assert (refined.counts.removed, refined.counts.restored) == (1, 1)


def test_the_number_of_loops_is_bounded_and_a_circle_ends():
    world = World({0: 1, 1: 2, 2: 3, 3: 3})
    refined = run(world, [0], FLAT, disagreement="relabel", loops=2)
    assert refined.index == [2] and (refined.counts.loops, refined.counts.unsettled) == (2, 1)
    circle = World({0: 1, 1: 0})
    refined = run(circle, [0], FLAT, disagreement="relabel", loops=50)
    assert refined.counts.loops == 2 and circle.queries == [(0,), (1,)]


def test_two_sources_of_a_class_survive_and_distinct_labels_are_merged():
    world = World({0: 0, 1: 0})
    assert run(world, [0, 0], FLAT).index == [0, 0]
    assert run(world, [0, 1], FLAT, disagreement="relabel").index == [0, 0]
    assert run(world, [0, 1], FLAT, disagreement="relabel", distinct=True).index == [0]


def test_a_candidate_that_is_not_confirmed_is_dropped_not_relabelled():
    # The source of candidate 1 is class 0 again, which is there already under its own label.
    world = World({0: 0, 1: 0, 2: 3, 3: 3})
    refined = run(world, [0], [0.9, 0.8, 0.0, 0.0], disagreement="relabel", candidates=CandidateConfig(top=0))
    assert refined.index == [0] and (0, 1) in world.queries
    # A label of the vote is given the new name.
    refined = run(world, [2], [0.0, 0.0, 0.9, 0.0], disagreement="relabel", candidates=CandidateConfig(top=0))
    assert refined.index == [3]


def test_silent_sources_are_removed_in_both_ways():
    assert run(World({0: 0}), [0, 1], FLAT).index == [0]
    assert run(World({0: 0}), [0, 1], FLAT, disagreement="relabel").index == [0]


def test_the_mixtures_own_scores_can_outweigh_those_of_a_source():
    world = World({0: 1}, sure=0.3)
    assert run(world, [0], [0.9, 0.1, 0.0, 0.0]).index == []
    # 0.5 * 0.05 + 0.5 * 0.9 for class 0 against 0.5 * 0.31 + 0.5 * 0.1 for class 1
    refined = run(world, [0], [0.9, 0.1, 0.0, 0.0], mixture_weight=0.5)
    assert refined.index == [0] and refined.probability == pytest.approx([0.475])


def test_nothing_to_refine_runs_nothing():
    world = World({})
    refined = run(world, [], FLAT)
    assert refined.index == [] and refined.sources.shape[0] == 0 and not world.queries


@pytest.mark.parametrize("bad", [{"loops": 0}, {"loops": 2, "separate_again": False}, {"mixture_weight": 2}])
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        RefineConfig(**bad)
