"""The transform that separators share."""

import pytest
import torch

from s5.separation.stft import istft, stft


@pytest.mark.parametrize("length", [1, 30, 64, 65, 700, 1000])
@pytest.mark.parametrize("sizes", [(64, 16), (64, 32), (48, 20)])
def test_there_and_back(length, sizes):
    x = torch.randn(2, 3, length, generator=torch.Generator().manual_seed(0))
    spectrum = stft(x, *sizes)
    assert spectrum.shape == (2, 3, length // sizes[1] + 1, sizes[0] // 2 + 1)
    torch.testing.assert_close(istft(spectrum, *sizes, length), x, rtol=1e-4, atol=1e-5)


def test_a_tone_stands_in_its_bin_at_its_level():
    x = 0.5 * torch.cos(2 * torch.pi * 10 / 64 * torch.arange(640))
    magnitude = stft(x, 64, 32)[5].abs()
    assert magnitude.argmax() == 10
    assert magnitude[10] == pytest.approx(0.5 * 32 / 2, rel=1e-3)  # amplitude / 2 times the sum of the window
