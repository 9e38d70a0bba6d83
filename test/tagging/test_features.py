"""Auxiliary features: librosa's values, frame by frame."""

import numpy as np
import pytest
import torch

from s5.tagging.features import Chroma, SpectralRolloff, chroma_filters
from s5.utils.errors import InputError

librosa = pytest.importorskip("librosa")


def signals(rate):
    """Noise, gliding tones after a silence, brown noise, digital silence: [4, 2 s] float32."""
    rng, t = np.random.default_rng(0), np.arange(2 * rate) / rate
    tones = 0.1 * np.sin(2 * np.pi * 440 * t) + 0.05 * np.sin(2 * np.pi * 660 * t * (1 + t / 20))
    tones += 1e-4 * rng.standard_normal(len(t))
    tones[: rate // 2] = 0
    noise = 0.1 * rng.standard_normal(len(t))
    brown = 1e-3 * rng.standard_normal(len(t)).cumsum()
    return np.stack([noise, tones, brown, 0 * t]).astype(np.float32)


@pytest.mark.parametrize(("rate", "n_fft", "hop"), [(32000, 800, 320), (16000, 400, 160)])
def test_equal_to_librosa(rate, n_fft, hop):
    """Roll-off to the bin in all but one frame of a thousand (sums in another order), chroma to 1e-5."""
    waves = signals(rate)
    rolloff = SpectralRolloff(rate).extract(torch.from_numpy(waves)).numpy()  # 25 and 10 ms by default
    chroma = Chroma(rate, n_fft, hop).extract(torch.from_numpy(waves)).numpy()
    for wave, ours, classes in zip(waves, rolloff, chroma, strict=True):
        theirs = librosa.feature.spectral_rolloff(y=wave, sr=rate, n_fft=n_fft, hop_length=hop, roll_percent=0.85)[0]
        off = np.abs(ours - theirs) / (rate / n_fft)
        assert off.max() <= 1.01 and (off > 0.01).mean() <= 1e-3
        theirs = librosa.feature.chroma_stft(y=wave, sr=rate, n_fft=n_fft, hop_length=hop, tuning=0.0)
        np.testing.assert_allclose(classes, theirs, atol=1e-5)


def test_roll_off_of_energy_is_librosas_of_the_power_spectrum():
    wave = signals(16000)[0]
    power = np.abs(librosa.stft(wave, n_fft=400, hop_length=160)) ** 2
    theirs = librosa.feature.spectral_rolloff(S=power, sr=16000, n_fft=400, roll_percent=0.5)[0]
    ours = SpectralRolloff(16000, 400, 160, roll_percent=0.5, power=2.0).extract(torch.from_numpy(wave)[None])[0]
    assert (np.abs(ours.numpy() - theirs) > 0.01).mean() <= 1e-3


def test_filters_are_librosas():
    for rate, n_fft, n_chroma in ((32000, 800, 12), (16000, 1024, 12), (32000, 800, 24)):
        theirs = librosa.filters.chroma(sr=rate, n_fft=n_fft, tuning=0.0, n_chroma=n_chroma)
        np.testing.assert_allclose(chroma_filters(rate, n_fft, n_chroma), theirs, atol=1e-6)


def test_an_octave_leaves_chroma_as_it_is_and_raises_the_roll_off():
    t = torch.arange(32000) / 32000
    tones = torch.stack([torch.sin(2 * torch.pi * f * t) for f in (880.0, 1760.0)])
    chroma = Chroma(32000).extract(tones)[:, :, 20:-20].mean(-1)
    assert chroma.argmax(-1).tolist() == [9, 9]
    rolloff = SpectralRolloff(32000).extract(tones)[:, 20:-20].mean(-1)
    assert rolloff[1] - rolloff[0] == pytest.approx(880, abs=80)


@pytest.mark.parametrize("kind", [SpectralRolloff, Chroma])
def test_embedding_is_one_vector_that_learns(kind):
    feature = kind(16000, 400, 160, width=32).train()
    with torch.autocast("cpu", torch.bfloat16):
        embedding = feature(0.1 * torch.randn(3, 16000))
    assert embedding.shape == (3, 32)
    embedding.float().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in feature.parameters())
    assert not any("window" in key or "filters" in key for key in feature.state_dict())


def test_bfloat16_does_not_touch_the_frames():
    feature, waves = Chroma(16000, 400, 160), torch.from_numpy(signals(16000))
    seen = []
    feature.embed = lambda frames: seen.append(frames)
    feature(waves)
    with torch.autocast("cpu", torch.bfloat16):
        feature(waves)
    assert torch.equal(*seen)


def test_unfit_arguments_are_refused():
    with pytest.raises(InputError, match="roll_percent: found 85"):
        SpectralRolloff(16000, roll_percent=85)
    with pytest.raises(InputError, match="hop_length: found 900"):
        Chroma(16000, hop_length=900)
