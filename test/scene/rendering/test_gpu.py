"""The device renderer makes the CPU renderer's samples; tested on the CPU as the device."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from s5.scene import Sampler, Scene, render
from s5.scene.rendering.gpu import DeviceRenderer
from s5.scene.rendering.plan import plan
from s5.scene.rendering.rules import DCASE2025
from s5.utils.errors import InputError

GOLDEN = Path(__file__).parents[2] / "golden" / "scenes"
RATE = 8000


def compare(scenes, root, renderer=None, n_slots=3, **options):
    """Renders a batch on both; the largest deviation is 1e-4 of each scene's peak."""
    renderer = renderer or DeviceRenderer("cpu", 64)
    made = renderer.render([plan(scene, root) for scene in scenes], n_slots, **options)
    assert made.dry.shape == (len(scenes), n_slots, made.mixture.shape[2])
    for scene, mixture, dry in zip(scenes, made.mixture.numpy(), made.dry.numpy(), strict=True):
        expected = render(scene, root)
        tolerance = 1e-4 * np.abs(expected.mixture).max()
        np.testing.assert_allclose(mixture, expected.mixture, rtol=0, atol=tolerance)
        if n_slots:
            np.testing.assert_allclose(dry[: len(expected.dry)], expected.dry, rtol=0, atol=tolerance)
            assert not dry[len(expected.dry) :].any()
    return made


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_golden_scenes(path):
    golden = np.load(path.with_suffix(".npz"))
    made = compare([Scene.load(path)], GOLDEN)
    atol = 1e-4 * np.abs(golden["mixture"]).max() if "resampled" not in path.stem else 1e-3
    np.testing.assert_allclose(made.mixture[0], golden["mixture"], rtol=0, atol=atol)


def test_a_batch_of_the_samplers_scenes(material, config):
    sampler = Sampler({**config, "interference": [0, 2]}, material)
    scenes = [sampler.scene(0, item) for item in range(24)]
    assert {len(scene.fg_events) for scene in scenes} == {0, 1, 2, 3}
    assert any(len(set(scene.labels)) < len(scene.labels) for scene in scenes)
    compare(scenes, material)


@pytest.mark.parametrize(("cache_mb", "workspace_mb"), [(0, 1), (1, 1), (64, 512)])
def test_neither_cache_nor_steps_change_the_samples(material, config, cache_mb, workspace_mb):
    sampler = Sampler({**config, "n_events": [3, 3]}, material)
    scenes = [sampler.scene(0, item) for item in range(8)]
    renderer = DeviceRenderer("cpu", cache_mb, workspace_mb)
    for _ in range(2):
        compare(scenes, material, renderer)
        assert renderer.cache.used <= cache_mb << 20


def test_what_is_on_the_device_is_not_read_again(material, config):
    sampler = Sampler({**config, "n_events": [3, 3]}, material)
    plans = [plan(sampler.scene(0, item), material) for item in range(4)]
    renderer = DeviceRenderer("cpu", 64)
    loaded = renderer.load(plans)
    assert len(loaded) > 8
    first = renderer.render(plans, loaded=loaded)
    assert renderer.load(plans) == {}
    np.testing.assert_array_equal(renderer.render(plans, loaded={}).mixture, first.mixture)


def test_what_left_the_device_after_it_was_found_there_is_read(material, config):
    sampler = Sampler({**config, "n_events": [3, 3]}, material)
    plans = [plan(sampler.scene(0, item), material) for item in range(4)]
    renderer = DeviceRenderer("cpu", 64)
    first = renderer.render(plans)
    loaded = renderer.load(plans)
    renderer.cache.resize(0)
    np.testing.assert_array_equal(renderer.render(plans, loaded=loaded).mixture, first.mixture)


def test_sources_and_backgrounds_of_another_rate(material, config):
    scenes = [Sampler({**config, "sampling_rate": 12000}, material).scene(0, item) for item in range(6)]
    compare(scenes, material)


def test_an_all_zero_source_and_no_targets(material, config, tmp_path):
    sampler = Sampler({**config, "n_events": [2, 2]}, material)
    scene = sampler.scene(0, 1)
    soundfile.write(tmp_path / "zero.wav", np.zeros(RATE), RATE)
    event = replace(scene.fg_events[0], source_file=str(tmp_path / "zero.wav"), source_time=0, event_duration=1.0)
    scene = replace(scene, config=replace(scene.config, foreground_dir=""), fg_events=[event])
    made = compare([scene, replace(scene, fg_events=[])], material)
    assert not made.dry.any() and made.mixture.any()
    compare([sampler.scene(0, 1)], material, n_slots=0)


def test_short_backgrounds_by_both_rules(material, config):
    scene = Sampler(config, material).scene(0, 0)
    noise = replace(scene.bg_events[0], source_file="short.flac", source_time=None)
    for rules in (scene.rules, DCASE2025):
        compare([replace(scene, rules=rules, bg_events=[noise])], material)


def test_moving_events(material, config):
    sampler = Sampler({**config, "n_events": [2, 2], "interference": [1, 1]}, material)
    scenes = [sampler.scene(0, item) for item in range(3)]
    ring = [scene for scene in scenes if scene.room.sofa_path.endswith("a.sofa")]
    assert ring
    scene = ring[0]
    positions = [event.event_position[0] for event in (*scene.fg_events, *scene.int_events)]
    moving = replace(
        scene,
        fg_events=[replace(scene.fg_events[0], event_position=positions), scene.fg_events[1]],
        int_events=[replace(scene.int_events[0], event_position=positions[::-1])],
    )
    compare([moving, *scenes], material)
    found, expected = DeviceRenderer("cpu").render([plan(moving, material)], rest="noise"), render(moving, material)
    dry = render(moving, material, rest="noise").dry_interference
    tolerance = 1e-4 * np.abs(expected.mixture).max()
    np.testing.assert_allclose(found.dry_interference[0], dry, rtol=0, atol=tolerance)
    assert np.abs(dry).max() > 100 * tolerance


@pytest.mark.parametrize("rest", ["residual", "noise"])
@pytest.mark.parametrize("workspace_mb", [1, 512])
def test_dry_interference_and_the_rest(material, config, rest, workspace_mb):
    sampler = Sampler({**config, "interference": [0, 2]}, material)
    scenes = [sampler.scene(0, item) for item in range(12)]
    assert {len(scene.int_events) for scene in scenes} == {0, 1, 2}
    plans = [plan(scene, material) for scene in scenes]
    renderer = DeviceRenderer("cpu", 64, workspace_mb)
    made, plain = renderer.render(plans, 3, rest=rest, n_interference=3), renderer.render(plans, 3)
    np.testing.assert_array_equal(made.mixture, plain.mixture)
    assert plain.dry_interference is None and plain.rest is None
    n = made.mixture.shape[2]
    assert made.dry.shape == (12, 3, n) and made.dry_interference.shape == (12, 3, n) and made.rest.shape == (12, 1, n)
    assert renderer.render(plans, rest=rest).dry_interference.shape == (12, 2, n)
    for i, scene in enumerate(scenes):
        expected = render(scene, material, rest=rest)
        tolerance = 1e-4 * np.abs(expected.mixture).max()
        n_interferers = len(scene.int_events)
        assert not made.dry_interference[i, n_interferers:].any()
        for found, wanted in (
            (made.dry[i, : len(expected.dry)], expected.dry),
            (made.dry_interference[i, :n_interferers], expected.dry_interference),
            (made.rest[i], expected.rest),
        ):
            np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance)
    with pytest.raises(ValueError, match="too few for rest"):
        renderer.render(plans, 3, rest=rest, n_interference=1)
    with pytest.raises(ValueError, match="too few for rest"):
        renderer.render(plans, 0, rest=rest)


def test_a_direct_part_that_reaches_past_the_response(material, config):
    scene = Sampler({**config, "n_events": [2, 2], "direct_range_ms": [6, 5000]}, material).scene(0, 0)
    compare([scene], material)


def test_bad_material_is_refused_in_one_line(material, config, tmp_path):
    scene = Sampler({**config, "n_events": [1, 1]}, material).scene(0, 0)
    samples = np.zeros(RATE * 2)
    samples[-1] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, RATE, subtype="FLOAT")
    event = replace(scene.fg_events[0], source_file=str(tmp_path / "nan.wav"), source_time=0, event_duration=1.5)
    scene = replace(scene, config=replace(scene.config, foreground_dir=""), fg_events=[event])
    with pytest.raises(InputError, match=r"nan.wav: found samples that are not finite"):
        DeviceRenderer("cpu").render([plan(scene, material)])


def test_scenes_of_one_batch_have_one_shape(material, config):
    plans = [plan(Sampler({**config, "duration": d}, material).scene(0, 0), material) for d in (2.0, 3.0)]
    with pytest.raises(ValueError, match="in one batch"):
        DeviceRenderer("cpu").render(plans)
