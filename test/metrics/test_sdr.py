"""Facts of the SDR."""

import numpy as np
import pytest

from s5.metrics import pairwise_sdr, sdr, sdri


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
