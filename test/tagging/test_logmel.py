"""The log-mel spectrogram beside librosa's, and its two scales."""

import librosa
import numpy as np
import pytest
import torch

from s5.tagging.logmel import LogMel, mel_level


@pytest.fixture
def waveform():
    return 0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)


def test_the_powers_are_those_of_librosa(waveform):
    found = LogMel(16000, 80)(torch.from_numpy(waveform)[None])[0].exp().numpy()
    expected = librosa.feature.melspectrogram(
        y=waveform, sr=16000, n_fft=400, hop_length=160, n_mels=80, fmin=50, pad_mode="reflect"
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_both_logarithms_tell_the_same_level(waveform):
    batch = torch.from_numpy(waveform)[None]
    natural, decibel = (LogMel(16000, 80, decibel=decibel)(batch) for decibel in (False, True))
    torch.testing.assert_close(10 / np.log(10) * natural, decibel, rtol=0, atol=0.01)


def test_digital_silence_is_a_finite_floor():
    silence = torch.zeros(1, 4000)
    assert (LogMel(16000, 8, decibel=True)(silence) == -100).all()
    assert LogMel(16000, 8)(silence).isfinite().all()


def test_half_precision_is_computed_in_float32(waveform):
    batch = torch.from_numpy(waveform)[None].bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = LogMel(16000, 80)(batch)
    assert torch.equal(found, LogMel(16000, 80)(batch.float()))


def test_a_tone_is_loudest_in_the_band_of_its_frequency():
    tone = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    level, centre = mel_level(tone, 16000, 80)
    loudest = level[:, 50].argmax()
    assert level.max() == 0 and abs(centre[loudest] - 1000) < 30
