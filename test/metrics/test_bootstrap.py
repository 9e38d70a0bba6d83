"""Facts of the intervals: coverage, pairing, seeds."""

import numpy as np
import pytest

from s5.metrics import Bootstrap
from s5.metrics.terms import PartialSums


def mean_of(values):
    values = np.asarray(values, dtype=float)[:, None]
    return PartialSums(("mean",), values, np.ones_like(values))


def test_interval_of_a_mean_is_that_of_its_standard_error():
    values = np.random.default_rng(0).standard_normal(400)
    low, high = Bootstrap(4000).intervals(mean_of(values))["mean"]
    error = values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.15 * error)


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(200):
        low, high = Bootstrap(300, 80.0, seed).intervals(mean_of(rng.random(50)))["mean"]
        held += low <= 0.5 <= high
    assert 0.70 <= held / 200 <= 0.90


def test_mixtures_are_drawn_not_sources():
    """A mixture of four sources stays together: its spread is that of one draw, not of four."""
    right = np.repeat([0.0, 4.0], 50)
    of_mixtures = PartialSums(("accuracy",), right[:, None], np.full((100, 1), 4.0))
    of_sources = PartialSums(("accuracy",), np.repeat(right / 4, 4)[:, None], np.ones((400, 1)))
    wide, narrow = (np.ptp(Bootstrap().intervals(terms)["accuracy"]) for terms in (of_mixtures, of_sources))
    assert wide == pytest.approx(2 * narrow, rel=0.15)


def test_same_seed_same_interval():
    terms = mean_of(np.random.default_rng(2).random(30))
    assert Bootstrap(seed=5).intervals(terms) == Bootstrap(seed=5).intervals(terms)
    assert Bootstrap(seed=5).intervals(terms) != Bootstrap(seed=6).intervals(terms)


def test_many_mixtures_are_drawn_in_parts(monkeypatch):
    terms = mean_of(np.random.default_rng(3).random(50))
    monkeypatch.setattr("s5.metrics.bootstrap._DRAWS_AT_ONCE", 120)  # two resamples at once
    low, high = Bootstrap(501).intervals(terms)["mean"]
    assert low < terms.values()["mean"] < high


def test_what_counts_in_one_mixture_only_has_no_interval():
    terms = PartialSums(("some", "none"), np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert Bootstrap().intervals(terms) == {"some": None, "none": None}
    assert terms.values() == {"some": 1.0, "none": None}


def test_no_mixture_at_all():
    assert Bootstrap().intervals(mean_of([])) == {"mean": None}


def test_a_pair_of_systems_is_told_apart_where_each_alone_is_not():
    """What makes a mixture hard for both cancels: 0.5 dB is seen among mixtures that differ by 10 dB."""
    rng = np.random.default_rng(4)
    hard = 10 * rng.standard_normal(100)
    first, second = mean_of(hard), mean_of(hard + 0.5 + 0.5 * rng.standard_normal(100))
    bootstrap = Bootstrap()
    (low, high), (other_low, other_high) = (bootstrap.intervals(x)["mean"] for x in (first, second))
    assert low < other_high and other_low < high
    found = bootstrap.differences(first, second)["mean"]
    assert found.ahead == 1 and found.gained == pytest.approx(0.5, abs=0.15)
    assert bootstrap.differences(second, first)["mean"].ahead == -1
    assert bootstrap.differences(first, first)["mean"].interval == (0.0, 0.0)
    assert bootstrap.differences(first, first)["mean"].ahead == 0


def test_other_mixtures_are_refused():
    with pytest.raises(ValueError, match="expected"):
        Bootstrap().differences(mean_of([1, 2]), mean_of([1, 2, 3]))


@pytest.mark.parametrize("options", [{"resamples": 0}, {"level": 100.0}, {"level": 0.0}])
def test_senseless_options_are_refused(options):
    with pytest.raises(ValueError, match="expected at least one resample"):
        Bootstrap(**options)
