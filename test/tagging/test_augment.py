"""Augmentation of log-mel spectrograms, and the contrast bands."""

import math

import torch

from s5.tagging.augment import LogMelAugment
from s5.tagging.m2d import M2DEncoder

STD = torch.tensor(2.0)


def test_nothing_changes_outside_training():
    mel = torch.randn(2, 80, 50)
    assert LogMelAugment(6, mel_shift=3).eval()(mel, STD) is mel


def test_the_equaliser_is_constant_in_time_smooth_and_bounded():
    torch.manual_seed(0)
    mel = torch.randn(4, 80, 50)
    gain = LogMelAugment(filter_db=6).train()(mel, STD) - mel
    torch.testing.assert_close(gain, gain[..., :1].expand_as(gain), atol=1e-5, rtol=0)
    bound = 6 * math.log(10) / 10 / STD
    assert gain.abs().max() <= bound + 1e-5
    assert gain[..., 0].diff(dim=1).abs().max() < bound / 5  # 80 bands between 6 points
    assert not torch.allclose(gain[0], gain[1])


def test_a_shift_moves_bands_as_a_whole():
    torch.manual_seed(0)
    mel = torch.arange(80.0)[None, :, None].expand(16, -1, 3)
    shifted = LogMelAugment(mel_shift=4).train()(mel, STD)
    shifts = (mel - shifted)[:, 10:70]
    assert (shifts == shifts[:, :1]).all() and set(shifts[:, 0, 0].tolist()) <= set(range(-4, 5))
    assert len(set(shifts[:, 0, 0].tolist())) > 3


def test_contrast_bands_ignore_a_steady_filter():
    encoder = M2DEncoder(16000, (80, 101), (80, 4), dim=8, depth=1, heads=2, contrast=True)
    seen = []
    encoder._encode = lambda mel: seen.append(mel) or mel
    noise = torch.randn(1, 16000)
    encoder(noise)
    encoder(3 * noise)
    first, second = seen
    assert first.shape[1:3] == (2, 80)
    torch.testing.assert_close(first[:, 1], second[:, 1], atol=1e-3, rtol=0)
    assert (second[:, 0] - first[:, 0]).min() > 0.3
