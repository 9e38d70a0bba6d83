"""The transform that separators share."""

import pytest
import torch

from s5.separation.stft import istft, stft

SIZES = [(64, 16), (64, 32), (48, 20), (64, 10)]
"""Hops of a quarter and of half a window, and what 1024 and 160 are like, at a sixteenth of the size."""


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("pad_mode", ["reflect", "constant"])
@pytest.mark.parametrize("sizes", SIZES)
def test_there_and_back(sizes, pad_mode):
    for length in [1, 2, 30, *range(60, 70), *range(700, 700 + sizes[1])]:
        x = noise(2, 3, length)
        spectrum = stft(x, *sizes, pad_mode=pad_mode)
        assert spectrum.shape == (2, 3, -(-length // sizes[1]) + 1, sizes[0] // 2 + 1)
        torch.testing.assert_close(istft(spectrum, *sizes, length), x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [1, 159, 31840, *range(31999, 32010), 32159])
def test_there_and_back_at_the_official_size(length):
    x = noise(1, length)
    torch.testing.assert_close(istft(stft(x, 1024, 160), 1024, 160, length), x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sizes", [*SIZES, (1024, 512)])
def test_masks_that_fit_nothing_make_no_click_at_the_end(sizes):
    """Phases at random, as of an untrained network: whatever the length, the end is about as loud as the rest."""
    n_fft, hop = sizes
    for length in range(5 * n_fft, 5 * n_fft + hop, max(1, hop // 32)):
        spectrum = stft(noise(1, length), n_fft, hop)
        turned = spectrum * torch.exp(2j * torch.pi * noise(*spectrum.shape))
        x = istft(turned, n_fft, hop, length)[0]
        assert x[-hop:].abs().max() < 3 * x[:-hop].abs().max(), length


@pytest.mark.parametrize("length", [640, 6400])
def test_lengths_of_whole_hops_are_transformed_as_torch_does(length):
    x, window = noise(2, length), torch.hann_window(64)
    for pad_mode in ("reflect", "constant"):
        theirs = torch.stft(x, 64, 32, window=window, pad_mode=pad_mode, return_complex=True).mT
        assert torch.equal(stft(x, 64, 32, pad_mode=pad_mode), theirs)


def test_a_tone_stands_in_its_bin_at_its_level():
    x = 0.5 * torch.cos(2 * torch.pi * 10 / 64 * torch.arange(640))
    magnitude = stft(x, 64, 32)[5].abs()
    assert magnitude.argmax() == 10
    assert magnitude[10] == pytest.approx(0.5 * 32 / 2, rel=1e-3)  # amplitude / 2 times the sum of the window
