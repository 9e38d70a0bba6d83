"""Colours of sources and rooms and blends of two recordings, from the sampler to both renderers."""

import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.fft
import scipy.signal
import soundfile

from s5.scene import Sampler, Scene, render
from s5.scene.rendering.gpu import DeviceRenderer
from s5.scene.rendering.plan import plan
from s5.scene.rendering.room import open_room
from s5.scene.rendering.variation import BANDS, colour_filter, filtered
from s5.utils.errors import InputError

RATE = 8000
ALL = {"colour": 12.0, "room_colour": 9.0, "blend": 1.0}
GAINS = [6.0, 3.0, 0.0, -4.0, 2.0, 8.0, 5.0]


def one(scene: Scene, **extra) -> Scene:
    """A scene of the first event alone, with other extra keys; long enough for its tail."""
    event = replace(scene.fg_events[0], event_time=0.1, extra=extra)
    config = replace(scene.config, duration=2 * scene.config.duration)
    return replace(scene, config=config, fg_events=[event], int_events=[], bg_events=[])


@pytest.fixture
def scene(material, config) -> Scene:
    return Sampler(config | {"labels": ["Speech"], "n_events": [1, 1], "interference": [1, 1]}, material).sample(1)


@pytest.mark.parametrize("rate", [16000, 32000])
def test_a_colours_filter_has_its_gains_and_a_minimum_phase(rate):
    taps = colour_filter(tuple(GAINS), rate)
    frequencies, response = scipy.signal.freqz(taps, worN=1 << 14, fs=rate)
    gains = np.interp(BANDS[1:6], frequencies, 20 * np.log10(np.abs(response)))
    np.testing.assert_allclose(gains, GAINS[1:6], atol=1.0)
    # Of all filters with these magnitudes it has the largest first sample: their geometric mean (Jensen's formula).
    assert np.log(taps[0]) == pytest.approx(np.mean(np.log(np.abs(scipy.fft.fft(taps, 1 << 15)))), abs=1e-4)


def test_a_sources_colour_is_in_the_wet_signal_and_in_the_dry_target_alike(scene, material):
    plain, coloured = render(one(scene), material), render(one(scene, colour=GAINS), material)
    taps = colour_filter(tuple(GAINS), RATE)
    expected = filtered(plain.dry[0], taps, scipy.fft)
    end = int((0.1 + scene.fg_events[0].event_duration) * RATE)  # the filter's own tail is cut with the recording
    scale = coloured.dry[0][:end] @ expected[:end] / np.square(expected[:end]).sum()
    peak = np.abs(coloured.dry[0]).max()
    np.testing.assert_allclose(coloured.dry[0][:end], scale * expected[:end], atol=1e-4 * peak)
    expected = scale * filtered(plain.mixture, taps, scipy.fft)
    np.testing.assert_allclose(coloured.mixture[:, :end], expected[:, :end], atol=1e-4 * peak)
    levels = [np.square(x.mixture, dtype=np.float64).sum() for x in (plain, coloured)]
    assert levels[1] == pytest.approx(levels[0], rel=1e-4)  # the event's level stays


def test_a_rooms_colour_is_in_the_reverberation_alone(scene, material):
    gains = [-12.0] * len(BANDS)
    scene = replace(scene, room=replace(scene.room, direct_range_ms=[1, 2]))
    plain, dull = render(one(scene), material), render(replace(one(scene), extra={"room_colour": gains}), material)
    scale = np.linalg.norm(dull.dry[0]) / np.linalg.norm(plain.dry[0])
    assert scale > 1.01  # a weaker tail: more of the level is direct
    np.testing.assert_allclose(dull.dry[0], scale * plain.dry[0], atol=1e-5 * np.abs(dull.dry).max())
    tails = [x.wet[0] - x.dry[0] for x in (plain, dull)]
    np.testing.assert_allclose(tails[1], scale * 10 ** (-12 / 20) * tails[0], atol=1e-4 * np.abs(dull.wet).max())


def test_a_blend_adds_a_second_recording_of_the_source(scene, material):
    event = scene.fg_events[0]
    path = material / "raw/sound_event/Speech/voice0"
    second = {"source_file": "Speech/voice0/1.flac", "source_time": 0.2, "event_time": 0.05, "event_duration": 0.3}
    fields = {"source_file": "Speech/voice0/2.flac", "source_time": 0.0, "event_duration": 1.0}
    scene = replace(scene, fg_events=[replace(event, **fields)])
    found = render(one(scene, blend={**second, "snr": -6.0}), material)
    first, other = (soundfile.read(path / f"{i}.flac")[0] for i in (2, 1))
    first, other = first[:RATE], other[int(0.2 * RATE) : int(0.5 * RATE)]
    whole = first / np.std(first)
    whole[400 : 400 + len(other)] += 10 ** (-6 / 20) * other / np.std(other)
    soundfile.write(material / "raw/sound_event/Speech/blended.wav", whole / 10, RATE, subtype="FLOAT")
    made = replace(scene, fg_events=[replace(scene.fg_events[0], source_file="Speech/blended.wav")])
    expected = render(one(made), material)
    (material / "raw/sound_event/Speech/blended.wav").unlink()
    for a, b in ((found.mixture, expected.mixture), (found.dry, expected.dry)):
        np.testing.assert_allclose(a, b, atol=2e-3 * np.abs(b).max())


def test_both_renderers_agree(material, config):
    sampler = Sampler({**config, **ALL, "interference": [0, 2], "n_events": [1, 3]}, material)
    scenes = [sampler.scene(0, item) for item in range(16)]
    assert any("blend" in event.extra for scene in scenes for event in scene.fg_events)
    assert any(event.extra["colour"] for scene in scenes for event in scene.int_events)
    device = DeviceRenderer("cpu", 64)
    for _ in range(2):  # what stays in the caches is free of colour
        made = device.render([plan(scene, material) for scene in scenes], 3, rest="noise", n_interference=2)
        for i, scene in enumerate(scenes):
            expected = render(scene, material, rest="noise")
            tolerance = 1e-4 * np.abs(expected.mixture).max()
            np.testing.assert_allclose(made.mixture[i], expected.mixture, rtol=0, atol=tolerance)
            np.testing.assert_allclose(made.dry[i, : len(expected.dry)], expected.dry, rtol=0, atol=tolerance)
            interference = made.dry_interference[i, : len(scene.int_events)]
            np.testing.assert_allclose(interference, expected.dry_interference, rtol=0, atol=tolerance)


def test_a_moving_event_with_variations(material, config):
    sampler = Sampler({**config, **ALL, "labels": ["Speech"], "n_events": [1, 1]}, material)
    scene = next(s for s in map(sampler.sample, range(20)) if s.room.sofa_path.endswith("a.sofa"))
    positions = open_room(str(material / scene.room.sofa_path)).positions[[0, 5, 9]].tolist()
    scene = replace(scene, fg_events=[replace(scene.fg_events[0], event_position=positions)])
    made, expected = DeviceRenderer("cpu", 64).render([plan(scene, material)]), render(scene, material)
    tolerance = 1e-4 * np.abs(expected.mixture).max()
    np.testing.assert_allclose(made.mixture[0], expected.mixture, rtol=0, atol=tolerance)
    np.testing.assert_allclose(made.dry[0], expected.dry, rtol=0, atol=tolerance)


def test_the_sampler_draws_variations_beside_the_same_scenes(material, config):
    plain, varied = Sampler(config, material), Sampler(config | ALL, material)
    assert plain.fingerprint != varied.fingerprint
    assert plain.fingerprint == Sampler(config | dict.fromkeys(ALL, 0.0), material).fingerprint
    n_blends = n_alone = 0
    for seed in range(60):
        scene, other = plain.sample(seed), varied.sample(seed)
        assert Scene.from_dict(json.loads(json.dumps(other.to_dict()))) == other
        assert len(other.extra["room_colour"]) == len(BANDS) and np.abs(other.extra["room_colour"]).max() <= 9
        for event in [*other.fg_events, *other.int_events]:
            assert len(event.extra["colour"]) == len(BANDS) and 0 < np.abs(event.extra["colour"]).max() <= 12
        for event in other.fg_events:
            folder, blend = event.source_file.rpartition("/")[0], event.extra.get("blend")
            n_blends += blend is not None
            if event.label != "Speech":
                assert blend is None  # one recording a kit, and coughs of unknown people
                n_alone += 1
                continue
            assert blend["source_file"].rpartition("/")[0] == folder and blend["source_file"] != event.source_file
            assert blend["event_time"] + blend["event_duration"] <= event.event_duration + 1e-9
            assert -12 <= blend["snr"] <= 0
        bare = [[replace(e, extra={}) for e in events] for events in (other.fg_events, other.int_events)]
        assert replace(other, fg_events=bare[0], int_events=bare[1], extra={}) == scene
    assert n_blends > 20 and n_alone > 20


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"blend": 1.5}, "key blend: found 1.5, expected 0 to 1"),
        ({"colour": -1.0}, "key colour: found -1.0, expected 0 to 40 dB"),
        ({"room_colour": 50.0}, "key room_colour: found 50.0"),
    ],
)
def test_impossible_keys_are_refused(material, config, keys, complaint):
    with pytest.raises(InputError, match=complaint):
        Sampler(config | keys, material)


def test_impossible_variations_of_a_scene_are_refused(scene, material):
    with pytest.raises(InputError, match=r"event: key colour: found \[1\], expected 7 gains in dB"):
        plan(one(scene, colour=[1]), material)
    with pytest.raises(InputError, match=r"scene: key room_colour: found \[1000, .*expected 7 gains"):
        plan(replace(scene, extra={"room_colour": [1000] + [0] * 6}), material)
    with pytest.raises(InputError, match=r"event.blend: found no key source_time"):
        plan(one(scene, blend={"source_file": "Speech/voice0/1.flac"}), material)
    blend = {"source_file": "Speech/voice0/1.flac", "source_time": 0, "event_time": 0, "event_duration": 0, "snr": 0}
    with pytest.raises(InputError, match=r"event.blend: found .*expected no negative time and a positive duration"):
        plan(one(scene, blend=blend), material)
