"""Onset rules under an overlap limit; the statistics as a whole are compared in test_statistics.py."""

from dataclasses import dataclass

import numpy as np
import pytest

from s5.scene.placement import RejectedDraw, onset_2025, onset_2026


@dataclass
class Sounding:
    event_time: float
    event_duration: float


OTHERS = [Sounding(2.0, 2.0), Sounding(3.0, 2.0)]  # the limit of 2 is reached from 3 to 4


def test_a_free_stretch_is_chosen_first_then_a_place_in_it():
    """As in SpAudSyn, the short stretch [0, 3] is as likely as the long one, [4, 10]."""
    rng = np.random.default_rng(0)
    onsets = np.array([onset_2026(rng, 10.0, 1.0, OTHERS, 2) for _ in range(4000)])
    assert onsets.max() <= 9 and not ((onsets > 2) & (onsets < 4)).any()
    assert abs((onsets < 2).mean() - 1 / 2) < 0.03
    assert abs(onsets[onsets < 2].mean() - 1.0) < 0.05 and abs(onsets[onsets >= 4].mean() - 6.5) < 0.1


def test_below_the_limit_every_onset_is_as_likely():
    rng = np.random.default_rng(0)
    onsets = np.array([onset_2026(rng, 10.0, 1.0, OTHERS, 3) for _ in range(4000)])
    assert np.histogram(onsets, 9, (0, 9))[0].min() > 360


def test_an_event_that_fits_nowhere_is_impossible():
    rng = np.random.default_rng(0)
    others = [Sounding(1.0, 1.0), Sounding(3.0, 1.0)]
    for onset in (onset_2026, onset_2025):
        with pytest.raises(RejectedDraw, match=r"no onset for 1.2 s under the overlap limit of 1"):
            onset(rng, 5.0, 1.2, others, 1)
    assert 0 <= onset_2026(rng, 5.0, 0.9, others, 1) <= 4.1
    with pytest.raises(RejectedDraw):
        onset_2026(rng, 5.0, 5.0, others[:1], 1)


def test_2025_looks_every_tenth_of_a_second_with_a_tenth_around_the_others():
    rng = np.random.default_rng(0)
    onsets = np.array([onset_2025(rng, 10.0, 1.0, OTHERS, 2) for _ in range(4000)])
    # 2 of the others sound from 3 to 4, for the rule from 2.9 to 4.1; it sees the event until 0.1 s before its end.
    assert not ((onsets > 2.001) & (onsets <= 4.1)).any()
    assert abs((onsets < 2.001).mean() - 2 / 6.9) < 0.03  # uniform over all that is left
