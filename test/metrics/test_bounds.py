"""Floors and ceilings of the metrics: exact small cases."""

import numpy as np
import pytest

from s5.metrics import BOUNDS, best_gain, bound_estimates, ideal_mask, score_bounds, sdr

FS = 16000
RNG = np.random.default_rng(0)
NOISE = RNG.standard_normal((3, FS)).astype(np.float32)


def tone(hz, fs=FS, seconds=1.0):
    return np.sin(2 * np.pi * hz * np.arange(round(fs * seconds)) / fs).astype(np.float32)


def figures(labels, ref, mixture, fs=FS, **options):
    rows = score_bounds("a", labels, ref, mixture, fs, **options)
    assert list(rows) == list(BOUNDS)
    return {name: row["CAPI-SDRi"] for name, row in rows.items()}


def test_a_mixture_that_is_twice_its_only_source():
    found = figures(["Cough"], NOISE[:1], 2 * NOISE[0])
    assert found["best gain"] > 100
    assert found["ideal mask"] > 100
    # |s|^2 / |2 s - s|^2 = 1: the mixture has 0 dB, as silence has.
    assert found["silence"] == pytest.approx(0, abs=1e-6)
    assert found["mixture"] == 0


@pytest.mark.parametrize("gain", [0.1, 3.0, 10.0])
def test_silence_improves_on_a_loud_mixture_by_what_the_mixture_has_below_0_db(gain):
    found = figures(["Cough"], NOISE[:1], NOISE[0] + gain * NOISE[1])
    rest = gain**2 * float(NOISE[1] @ NOISE[1]) / float(NOISE[0] @ NOISE[0])
    assert found["silence"] == pytest.approx(10 * np.log10(rest), abs=1e-3)
    assert found["mixture"] == 0


def test_the_best_gain_of_two_independent_sources_of_equal_level_is_a_half():
    ref = np.stack([tone(500), tone(4000)])
    gained = best_gain(ref, ref.sum(axis=0))
    assert np.allclose(gained, 0.5 * ref.sum(axis=0), atol=1e-4)
    # The mixture at 0 dB has |s|^2 / |s / 2 - n / 2|^2 = 2.
    assert figures(["Cough", "Pour"], ref, ref.sum(axis=0))["best gain"] == pytest.approx(10 * np.log10(2), abs=1e-2)


@pytest.mark.parametrize("change", [0.8, 0.99, 1.01, 1.2, -1.0])
def test_no_other_gain_is_better(change):
    mixture = NOISE.sum(axis=0)
    best = best_gain(NOISE, mixture)
    for est, ref in zip(best, NOISE, strict=True):
        assert sdr(change * est, ref) < sdr(est, ref)


def test_the_ideal_mask_of_disjoint_bands_is_near_perfect():
    ref = np.stack([tone(500), tone(4000)])
    found = figures(["Cough", "Cough"], ref, ref.sum(axis=0))
    assert found["ideal mask"] > 30
    assert found["best gain"] < 4


def test_the_ideal_mask_of_sources_that_overlap_everywhere_is_between_best_gain_and_perfect():
    found = figures(["Cough", "Pour"], NOISE[:2], NOISE[:2].sum(axis=0))
    assert found["best gain"] + 1 < found["ideal mask"] < 15


@pytest.mark.parametrize("fs", [8000, 32000, 44100])
def test_the_window_follows_the_sampling_rate(fs):
    def mixture_at(rate):
        ref = np.stack([tone(500, rate), tone(560, rate)])  # closer than a bin of a short window
        return figures(["Cough", "Pour"], ref, ref.sum(axis=0), rate)

    assert mixture_at(fs)["ideal mask"] == pytest.approx(mixture_at(FS)["ideal mask"], abs=0.3)
    assert mixture_at(FS)["ideal mask"] < 25


@pytest.mark.parametrize("length", [1, 2, 255, 256, 257, 512, 1000])
def test_a_mask_of_one_is_the_mixture_at_any_length(length):
    mixture = NOISE[0, :length]
    found = ideal_mask(np.stack([mixture, 0 * mixture]), mixture, FS)
    assert found.shape == (2, length) and found.dtype == np.float32
    assert np.allclose(found[0], mixture, atol=1e-5)
    assert not found[1].any()


def test_silent_mixtures_and_silent_references(recwarn):
    zeros = np.zeros((1, 1000), np.float32)
    for ref, mixture in ((zeros, zeros[0]), (zeros, NOISE[0, :1000]), (NOISE[:1, :1000], zeros[0])):
        estimates = bound_estimates(ref, mixture, FS)
        assert all(np.isfinite(est).all() for est in estimates.values())
    assert not best_gain(NOISE[:1, :1000], zeros[0]).any()
    assert not recwarn.list


def test_the_labels_are_the_true_ones_and_an_empty_mixture_has_no_figure():
    labels = ["Pour", "Cough", "Pour"]
    for row in score_bounds("a", labels, NOISE, NOISE.sum(axis=0), FS, scene={"room": "r"}).values():
        assert row["est_labels"] == row["ref_labels"] == labels
        assert (row["tp"], row["fp"], row["fn"], row["scene"]) == (3, 0, 0, {"room": "r"})
    assert set(figures([], np.zeros((0, FS), np.float32), NOISE[0]).values()) == {None}
    assert set(figures([], [], NOISE[0]).values()) == {None}


def test_options_of_the_metric_change_nothing():
    labels = ["Pour", "Cough", "Pour"]
    usual = figures(labels, NOISE, NOISE.sum(axis=0))
    options = {"select": "sdri", "penalty_fn": -3, "penalty_fp": -3}
    assert figures(labels, NOISE, NOISE.sum(axis=0), **options) == pytest.approx(usual)


def test_arrays_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="ref"):
        bound_estimates(NOISE[0], NOISE[0], FS)
    with pytest.raises(ValueError, match="mixture"):
        bound_estimates(NOISE, NOISE, FS)
    with pytest.raises(ValueError, match="ref: 100 samples, expected the mixture's 16000"):
        bound_estimates(NOISE[:, :100], NOISE[0], FS)


def test_the_mask_is_the_share_of_the_power():
    """A mixture of a source and three times itself as background: M = 1 / (1 + 9), whatever the frame."""
    mixture = 4 * NOISE[0]
    assert np.allclose(ideal_mask(NOISE[:1], mixture, FS)[0], mixture / 10, atol=1e-5)
    # The second reference takes its share: 1 / (1 + 4 + 1).
    both = ideal_mask(np.stack([NOISE[0], 2 * NOISE[0]]), mixture, FS)
    assert np.allclose(both, np.stack([mixture / 6, 4 * mixture / 6]), atol=1e-5)
