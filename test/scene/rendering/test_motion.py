"""The native renderer's moving events; test_spatialscaper.py compares them with the library."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.signal
import soundfile

from s5.scene import Event, Room, Scene, SceneConfig, render
from s5.scene.rendering.motion import HOP, fade_weights
from s5.utils.errors import InputError

RATE = 8000


@pytest.mark.parametrize("n, k", [(1, 1), (300, 1), (512, 2), (5000, 2), (12345, 7), (8000, 10), (4000, 15)])
def test_a_source_is_split_completely_and_passes_its_positions_in_order(n, k):
    weights = fade_weights(n, k)
    assert weights.shape == (k, n)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-12)
    # At most two neighbours sound at a time, and the source goes from the first to the last.
    assert (weights > 0).sum(axis=0).max() <= 3
    assert (np.diff(np.arange(k) @ weights) > -1e-12).all()
    assert weights[0, 0] == 1
    assert weights[-1, -1] > 0.5


def test_more_positions_than_frames_are_refused():
    with pytest.raises(InputError, match=f"found 9 positions in 1000 samples, expected at most one in {HOP} samples"):
        fade_weights(1000, 9)


@pytest.fixture
def moving(tmp_path, write_room):
    """Makes a scene of one event that passes three positions of a room with these impulse responses [3, 4, N]."""

    def make(rirs: np.ndarray) -> Scene:
        positions = [[1.0, 0, 0], [0, 1.0, 0], [-1.0, 0, 0.5]]
        write_room(tmp_path / "room.sofa", positions, "cartesian", rirs=rirs)
        source = np.random.default_rng(2).standard_normal(4 * HOP * 8).astype(np.float32)
        path = tmp_path / "events/X/x.wav"
        path.parent.mkdir(parents=True)
        soundfile.write(path, source / np.abs(source).max(), RATE, subtype="FLOAT")
        event = Event("X", "X/x.wav", 0, 0.125, len(source) / RATE, positions, 10.0, "foreground")
        config = SceneConfig(2.0, RATE, 3, 2.0, -55, "events", None, None)
        return Scene(config, [event], [], [], Room("room.sofa", RATE, 4, 3, rirs.shape[2]))

    return make


def source_of(root) -> np.ndarray:
    return soundfile.read(root / "events/X/x.wav")[0]


def test_positions_that_sound_alike_are_as_one(tmp_path, moving):
    rir = np.random.default_rng(0).standard_normal((1, 4, 500)) * np.exp(-np.arange(500) / 100)
    scene = moving(np.repeat(rir, 3, axis=0))
    still = replace(scene, fg_events=[replace(scene.fg_events[0], event_position=[[0, 1.0, 0]])])
    a, b = render(scene, tmp_path), render(still, tmp_path)
    for x, y in ((a.mixture, b.mixture), (a.dry, b.dry), (a.wet, b.wet)):
        np.testing.assert_allclose(x, y, rtol=0, atol=2e-6 * np.abs(y).max())


def test_each_position_is_heard_when_the_sound_leaves_it(tmp_path, moving):
    """Three rooms that only delay, each in a channel of its own: the channels hold the source's three parts."""
    rirs = np.zeros((3, 4, 900))
    delays = [10, 300, 700]
    for k, delay in enumerate(delays):
        rirs[k, 0, 5] = rirs[k, k + 1, delay] = 1.0
    rendered = render(moving(rirs), tmp_path)
    source, onset = source_of(tmp_path), RATE // 8
    weights = fade_weights(len(source), 3)
    gain = rendered.wet[0, onset + 5] / source[0]
    for k, delay in enumerate(delays):
        heard = rendered.mixture[k + 1, onset + delay : onset + delay + len(source)]
        np.testing.assert_allclose(heard, gain * weights[k] * source, atol=2e-6 * np.abs(gain))
    # The reference channel does not change on the way.
    heard = rendered.mixture[0, onset + 5 : onset + 5 + len(source)]
    np.testing.assert_allclose(heard, gain * source, atol=2e-6 * np.abs(gain))


def test_the_dry_target_takes_the_direct_path_of_each_position(tmp_path, moving):
    rng = np.random.default_rng(1)
    rirs = 0.05 * rng.standard_normal((3, 4, 1500))
    peaks = [60, 200, 900]
    for k, peak in enumerate(peaks):
        rirs[k, :, peak] = (-1) ** k * 2.0
    rendered = render(moving(rirs), tmp_path)
    source, onset = source_of(tmp_path), RATE // 8
    expected = np.zeros((2, RATE * 2))
    for k, (peak, weight) in enumerate(zip(peaks, fade_weights(len(source), 3), strict=True)):
        rir = rirs[k] / np.sqrt(np.square(rirs[k]).sum(axis=1).mean())
        lag = np.arange(1500) - peak
        direct = np.where((lag >= -0.006 * RATE) & (lag <= 0.05 * RATE), rir[0], 0)
        for row, response in zip(expected, (rir[0], direct), strict=True):
            part = scipy.signal.fftconvolve(source * weight, response)
            row[onset : onset + len(part)] += part[: len(row) - onset]
    gain = rendered.wet[0] @ expected[0] / (expected[0] @ expected[0])
    np.testing.assert_allclose(rendered.wet[0], gain * expected[0], atol=1e-5 * np.abs(rendered.wet).max())
    np.testing.assert_allclose(rendered.dry[0], gain * expected[1], atol=1e-5 * np.abs(rendered.dry).max())


def test_it_has_the_level_that_the_scene_says(tmp_path, moving):
    rirs = np.random.default_rng(3).standard_normal((3, 4, 400)) * np.exp(-np.arange(400) / 50)
    rendered = render(moving(rirs), tmp_path)
    n = len(source_of(tmp_path)) + 399
    power = np.square(rendered.mixture, dtype=np.float64).sum() / (4 * n)
    assert 10 * np.log10(power) == pytest.approx(-55 + 10, abs=1e-3)


def test_a_moving_scene_is_written_and_read_again(tmp_path, moving):
    scene = moving(np.ones((3, 4, 50)))
    scene.save(tmp_path / "scene.json")
    assert Scene.load(tmp_path / "scene.json") == scene
