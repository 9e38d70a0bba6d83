import numpy as np
import pytest
from PIL import Image

from s5.utils import spectrogram


@pytest.mark.parametrize(("fs", "seconds"), [(16000, 4), (32000, 10), (8000, 0.5)])
def test_tone_stands_at_its_frequency_and_time(tmp_path, fs, seconds):
    hz = fs / 8  # a quarter of the way up
    t = np.arange(int(fs * seconds)) / fs
    power = spectrogram.power(np.sin(2 * np.pi * hz * t) * (t > seconds / 2), fs)
    assert power.shape[1] <= 480
    spectrogram.save_png(tmp_path / "a.png", power, power.max())
    with Image.open(tmp_path / "a.png") as image:
        steps = np.array(image).astype(int)
    rows, columns = steps.shape
    bright = steps[:, int(0.75 * columns)]
    assert (rows - bright.argmax()) / rows == pytest.approx(0.25, abs=0.02)
    assert steps[:, : int(0.45 * columns)].max() == 0
    assert bright.max() == steps.max() == 63


def test_colour_is_the_level_below_the_reference(tmp_path):
    power = np.tile(10.0 ** (-np.array([0, 1, 3.5, 7, 9])), (4, 1)).astype(np.float32)  # 0, -10, -35, -70, -90 dB
    spectrogram.save_png(tmp_path / "a.png", power, 1.0)
    with Image.open(tmp_path / "a.png") as image:
        assert np.array(image)[0].tolist() == [63, 54, 32, 0, 0]


def test_silence_is_dark(tmp_path):
    power = spectrogram.power(np.zeros(4000, np.float32), 8000)
    spectrogram.save_png(tmp_path / "a.png", power, float(power.max()))
    with Image.open(tmp_path / "a.png") as image:
        assert not np.array(image).any()


def test_colour_scale_gets_lighter_in_even_steps():
    lightness = spectrogram.colours(64) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > 0).all()


def test_envelope_is_the_mean_power_of_equal_parts():
    waveform = np.repeat([0.0, 2.0, -1.0, 0.5], 250).astype(np.float32)
    np.testing.assert_allclose(spectrogram.envelope(waveform, 4), [0, 4, 1, 0.25])
    np.testing.assert_allclose(spectrogram.envelope(waveform, 1), [(4 + 1 + 0.25) / 4])
    parts = spectrogram.envelope(np.ones(1003), 240)
    assert parts.shape == (240,) and (parts == 1).all()
    assert spectrogram.envelope(np.ones(3)).shape == (3,)


def test_level_ends_at_the_range():
    np.testing.assert_allclose(spectrogram.level(np.array([0, 1e-9, 0.01, 1, 10]), 1.0, 60), [-60, -60, -20, 0, 10])
    np.testing.assert_allclose(spectrogram.level(np.zeros(2), 1.0, 60), [-60, -60])
