import numpy as np
import pytest
from PIL import Image

from s5.report import spectrogram


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
