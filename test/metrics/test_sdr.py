"""Facts of the SDR."""

import numpy as np
import pytest

from s5.metrics import pairwise_sdr, sdr, sdri
from s5.metrics.sdr import PIECE


def test_level_is_that_of_the_error():
    reference = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    for level in (0.0, 20.0, 60.0):
        estimate = reference * np.float32(1 + 10 ** (-level / 20))
        assert sdr(estimate, reference) == pytest.approx(level, abs=0.01)


def test_no_mean_is_removed():
    reference = np.ones(100, dtype=np.float32)
    assert sdr(reference - 1, reference) == pytest.approx(0.0, abs=1e-6)


def test_float32_epsilon_bounds_silence():
    """Official data keeps sources that are all zero: the value is finite, and that of torchmetrics in float32."""
    zeros, ones = np.zeros(100), np.ones(100)
    eps = np.finfo(np.float32).eps
    assert sdr(zeros, zeros) == 0.0
    assert sdr(ones, zeros) == pytest.approx(10 * np.log10(eps / 100), abs=1e-6)
    assert sdr(ones, ones) == pytest.approx(10 * np.log10(100 / eps), abs=1e-6)


def test_improvement_of_the_mixture_itself_is_zero():
    rng = np.random.default_rng(0)
    reference, mixture = rng.standard_normal((2, 800))
    assert sdri(mixture, reference, mixture) == 0.0
    assert sdri(reference, reference, mixture) > 90


def test_pairs_are_the_single_values():
    rng = np.random.default_rng(1)
    estimate, reference = rng.standard_normal((3, 400)), rng.standard_normal((2, 400))
    matrix = pairwise_sdr(estimate, reference)
    assert matrix.shape == (2, 3)
    assert matrix.tolist() == [[sdr(e, s) for e in estimate] for s in reference]
    assert pairwise_sdr([], reference).shape == (2, 0)


@pytest.mark.parametrize(
    ("estimate", "message"),
    [(np.zeros(3), "samples"), (np.zeros((1, 4)), "shape"), (np.full(4, np.nan), "not finite")],
)
def test_wrong_waveforms_are_refused(estimate, message):
    with pytest.raises(ValueError, match=message):
        sdr(estimate, np.zeros(4))


@pytest.mark.parametrize("length", [1, PIECE - 1, PIECE, 2 * PIECE + 7])
def test_length_of_the_pieces_plays_no_part(length):
    """Waveforms are worked on piece by piece; any length gives the formula's value over the whole."""
    rng = np.random.default_rng(2)
    reference, estimate = rng.standard_normal((2, length)), rng.standard_normal((3, length))
    error = reference[:, None] - estimate
    expected = 10 * np.log10((reference**2).sum(-1)[:, None] / (error**2).sum(-1))
    np.testing.assert_allclose(pairwise_sdr(estimate, reference), expected, atol=1e-4)


def test_good_estimates_of_long_float32_waveforms_keep_their_level():
    """320,000 samples at 80 dB: sums in single precision would lose the error's last digits."""
    reference = np.random.default_rng(3).standard_normal(320000, dtype=np.float32)
    error = np.float32(1e-4) * np.random.default_rng(4).standard_normal(320000, dtype=np.float32)
    exact = 10 * np.log10(np.sum(reference**2.0) / np.sum((reference - (reference + error)).astype(float) ** 2))
    assert sdr(reference + error, reference) == pytest.approx(exact, abs=1e-3)
