"""What mask sharpening promises, whatever the separator."""

import numpy as np
import pytest
import torch

from s5.separation.sharpen import sharpen, sharpen_spectrum
from s5.utils.errors import InputError


def spectra(seed=0):
    """Estimates [3, 20, 33] that are softer, louder and silent against a mixture [20, 33]."""
    g = torch.Generator().manual_seed(seed)
    mixture = torch.randn(20, 33, dtype=torch.cfloat, generator=g)
    share = torch.rand(3, 20, 33, generator=g) * torch.tensor([1.0, 1.5, 0.0])[:, None, None]
    return share * mixture * torch.exp(1j * torch.rand(3, 20, 33, generator=g)), mixture


@pytest.mark.parametrize("strength", [0.01, 0.5, 1.0, 5.0, 100.0])
def test_no_bin_gets_more_energy_than_the_mixture(strength):
    estimate, mixture = spectra()
    sharp = sharpen_spectrum(estimate, mixture, strength)
    limit = torch.maximum(estimate.abs(), mixture.abs().expand_as(estimate))
    assert (sharp.abs() <= limit * (1 + 1e-5)).all()
    louder = estimate.abs() > mixture.abs()
    torch.testing.assert_close(sharp[louder], estimate[louder])
    assert torch.isfinite(sharp.abs()).all() and sharp[2].abs().max() == 0


def test_masks_above_one_half_rise_and_below_fall_and_phases_stay():
    estimate, mixture = spectra()
    sharp = sharpen_spectrum(estimate, mixture, 0.7)
    mask = estimate.abs() / mixture.abs()
    assert (sharp.abs() >= estimate.abs() - 1e-6)[(mask > 0.5) & (mask < 1)].all()
    assert (sharp.abs() <= estimate.abs() + 1e-6)[mask < 0.5].all()
    torch.testing.assert_close((sharp / sharp.abs())[:2], (estimate / estimate.abs())[:2])


def test_the_logit_of_the_mask_is_scaled():
    mask = torch.linspace(0.05, 0.95, 19)
    sharp = sharpen_spectrum(mask.to(torch.cfloat), torch.ones(19, dtype=torch.cfloat), 0.8).abs()
    torch.testing.assert_close(sharp.logit(), 1.8 * mask.logit(), rtol=1e-4, atol=1e-4)


def test_a_great_strength_gives_a_binary_mask():
    estimate, mixture = spectra()
    mask = sharpen_spectrum(estimate[:1], mixture, 1e4).abs() / mixture.abs()
    far = (estimate[:1].abs() / mixture.abs() - 0.5).abs() > 0.01
    torch.testing.assert_close(mask[far], mask[far].round(), atol=1e-3, rtol=0)


def test_strength_zero_is_the_identity_and_small_ones_are_near():
    rng = np.random.default_rng(0)
    estimates, mixture = rng.standard_normal((2, 3, 3000)), 2 * rng.standard_normal((2, 3000))
    np.testing.assert_array_equal(sharpen(estimates, mixture, 0.0), estimates)
    np.testing.assert_allclose(sharpen(estimates, mixture, 1e-6), estimates, atol=1e-4)
    assert np.abs(sharpen(estimates, mixture, 1.0) - estimates).max() > 0.1


def test_arrays_and_tensors_of_any_length_and_silent_slots():
    g = torch.Generator().manual_seed(1)
    for length in (100, 2000, 5001):
        mixture = torch.randn(length, generator=g)
        estimates = 0.4 * torch.stack([mixture, mixture.roll(7), 0 * mixture])
        sharp = sharpen(estimates, mixture, 1.5)
        assert isinstance(sharp, torch.Tensor) and sharp.shape == (3, length) and sharp[2].abs().max() == 0
        array = sharpen(estimates.numpy(), mixture.numpy(), 1.5)
        assert isinstance(array, np.ndarray) and array.dtype == np.float32
        np.testing.assert_allclose(array, sharp.numpy(), atol=1e-6)


def test_what_a_mask_leaves_of_an_interferer_goes():
    t = torch.arange(16000) / 16000
    target, other = torch.sin(2 * torch.pi * 440 * t), torch.sin(2 * torch.pi * 1700 * t)
    estimate, mixture = 0.9 * target + 0.2 * other, target + other

    def error(x):
        return (x - target).square().mean()

    assert error(sharpen(estimate[None], mixture, 1.0)[0]) < 0.3 * error(estimate)


@pytest.mark.parametrize("strength", [-0.1, float("nan"), float("inf")])
def test_refuses_other_strengths_and_lengths(strength):
    with pytest.raises(InputError, match="strength"):
        sharpen(np.zeros((1, 100)), np.zeros(100), strength)
    with pytest.raises(InputError, match="100 samples, expected 90"):
        sharpen(np.zeros((1, 100)), np.zeros(90), 1.0)
