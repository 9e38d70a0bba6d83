"""The simulator spatialscaper. Tests of the library run with the real one, if it is importable.

Tolerances: the library convolves in double precision, the native renderer in single, so the two agree to some 1e-7 of
the peak; 1e-6 is asked for.
"""

import importlib.util
import json
import random
import sys
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile
import yaml

from s5.bin.simulate import main
from s5.data import DataDir
from s5.scene import Sampler, Scene, open_room, render
from s5.scene import spatialscaper as backend
from s5.scene.backends import simulator
from s5.scene.placement import angles
from s5.scene.rendering.motion import fade_weights
from s5.scene.rendering.room import SofaRoom
from s5.utils.errors import InputError

RATE = 8000
TOLERANCE = 1e-6
needs_library = pytest.mark.skipif(
    importlib.util.find_spec("spatialscaper") is None,
    reason="SpatialScaper is not installed (tools/installers/install_spatialscaper.sh)",
)


@pytest.fixture
def no_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "spatialscaper", None)
    backend._library.cache_clear()
    yield
    backend._library.cache_clear()


def refusal(function, *arguments) -> str:
    with pytest.raises(InputError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_the_library_it_says_how_to_install_it(no_library):
    said = refusal(simulator, "spatialscaper")
    assert said.startswith("--simulator spatialscaper: found no SpatialScaper installed")
    installer = said.split("expected ")[1].removesuffix(" to be run")
    assert (Path(__file__).parents[2] / installer).stat().st_mode & 0o111


def test_nothing_is_written_without_it(no_library, recipe, tmp_path):
    out = tmp_path / "set"
    refusal(main, ["--config", "scenes.yaml", "--out", str(out), "--simulator", "spatialscaper"])
    assert not out.exists()


def test_a_requirement_that_is_missing_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "spatialscaper", raising=False)
    finder = type("Finder", (), {"find_spec": staticmethod(lambda name, *_: _fail(name))})
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    backend._library.cache_clear()
    assert "found no mat73, which it needs" in refusal(backend.check)
    backend._library.cache_clear()


def _fail(name: str) -> None:
    if name == "spatialscaper":
        raise ModuleNotFoundError("No module named 'mat73'", name="mat73")


def test_options_that_cannot_be_are_refused(material, config):
    config["spatialscaper"] = {"moving_probability": 1.5}
    assert "spatialscaper.moving_probability: found 1.5, expected 0 to 1" in refusal(Sampler, config, material)
    config["spatialscaper"] = {"movingprobability": 1}
    assert "spatialscaper.movingprobability: found an unknown key" in refusal(Sampler, config, material)


def test_its_options_leave_the_native_scenes_as_they_are(material, config):
    plain = Sampler(config, material).scene(0, 3)
    config["spatialscaper"] = {"moving_probability": 1.0}
    assert Sampler(config, material).scene(0, 3) == plain


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    """Two rooms in Scaper's folder layout, written by the library itself: arcs of positions at two heights."""
    sofa_utils = pytest.importorskip("spatialscaper.sofa_utils")
    root = tmp_path_factory.mktemp("scaper")
    (root / backend.LAYOUT).mkdir()
    rng = np.random.default_rng(4)
    azimuth = np.tile(np.arange(0, 360, 15.0), 2) * np.pi / 180
    height = np.repeat([0.0, 0.6], 24)
    for name, radius in (("metu_foa", 1.5), ("bomb_shelter_foa", 2.5), ("gym_mic", 2.0)):
        positions = np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), height], axis=1)
        decay = np.exp(-np.arange(1200) / 150)
        rirs = 0.2 * rng.standard_normal((48, 4, 1200)) * decay
        rirs[np.arange(48), :, rng.integers(20, 90, 48)] = rng.uniform(0.8, 1.6, (48, 4))
        path = root / backend.LAYOUT / f"{name}.sofa"
        sofa_utils.create_srir_sofa(str(path), rirs, positions, np.zeros((48, 3)), room_name=name, sr=RATE)
    return root


@pytest.fixture(params=["its rooms", "our rooms"])
def sampler(request, material, config, layout):
    """Three events, two interferers, in either kind of room."""
    config |= {"n_events": [3, 3], "interference": [2, 2], "max_event_overlap": 2, "same_class_probability": 1.0}
    if request.param == "its rooms":
        config["dirs"]["room_ir"] = str(layout / backend.LAYOUT)
    return Sampler(config, material)


def moving(sampler: Sampler, probability: float = 1.0) -> Sampler:
    sampler.config.spatialscaper.moving_probability = probability
    return sampler


def simulate_scene(sampler, item, rest="none"):
    scene = backend.draw_scene(sampler, item)
    return scene, backend.render_scene(scene, sampler.root, rest=rest)


def assert_alike(a, b) -> None:
    assert a.labels == b.labels
    for x, y in ((a.mixture, b.mixture), (a.dry, b.dry), (a.wet, b.wet)):
        assert x.shape == y.shape
        assert x.dtype == y.dtype == np.float32
        np.testing.assert_allclose(x, y, rtol=0, atol=TOLERANCE * np.abs(y).max())


@needs_library
def test_static_scenes_are_what_the_native_renderer_makes_of_their_metadata(sampler, tmp_path):
    for item in range(6):
        drawn, rendered = simulate_scene(sampler, item)
        assert all(len(event.event_position) == 1 for event in drawn.fg_events)
        drawn.save(tmp_path / "scene.json")
        scene = Scene.load(tmp_path / "scene.json")
        assert scene == drawn
        assert_alike(rendered, render(scene, sampler.root))


@needs_library
def test_so_are_scenes_with_moving_events(sampler, tmp_path):
    n_moving = 0
    for item in range(3):
        drawn, rendered = simulate_scene(moving(sampler), item)
        n_moving += sum(len(event.event_position) > 1 for event in drawn.fg_events)
        drawn.save(tmp_path / "scene.json")
        assert_alike(rendered, render(Scene.load(tmp_path / "scene.json"), sampler.root))
    assert n_moving >= 3


@needs_library
@pytest.mark.parametrize("rest", ["residual", "noise"])
def test_so_are_the_dry_interference_and_the_rest(sampler, rest):
    for item in range(2):
        scene, found = simulate_scene(moving(sampler, 0.5), item, rest)
        expected, plain = render(scene, sampler.root, rest=rest), backend.render_scene(scene, sampler.root)
        assert plain.dry_interference is None and plain.rest is None
        assert_alike(found, plain)
        peak = np.abs(expected.mixture).max()
        for name, rows in (("dry_interference", 2), ("rest", 1)):
            a, b = getattr(found, name), getattr(expected, name)
            assert a.dtype == np.float32 and len(a) == rows
            np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE * peak)


@needs_library
@pytest.mark.parametrize("rules", ["dcase2025", "dcase2026"])
def test_rooms_at_another_rate_and_the_rules_of_both_years(material, config, layout, rules, tmp_path):
    config |= {"sampling_rate": 12000, "rules": rules, "same_class_probability": 0, "n_events": [2, 2]}
    nested = rules == "dcase2026"
    if not nested:
        config["labels"] = ["Cough"]
        config["n_events"] = [1, 1]
    for room in ("raw/room_ir", str(layout / backend.LAYOUT)):
        config["dirs"] = config["dirs"] | {"room_ir": room}
        sampler = Sampler(config, material)
        drawn, rendered = simulate_scene(sampler, 1)
        drawn.save(tmp_path / "scene.json")
        assert_alike(rendered, render(Scene.load(tmp_path / "scene.json"), sampler.root))


@needs_library
def test_scaper_places_the_events_by_the_rules(sampler):
    moving(sampler, 0.5)
    snr = {"foreground": sampler.config.event_snr, "interference": sampler.config.interference_snr}
    rooms = set()
    for item in range(12):
        native, scene = sampler.scene(0, item), backend.draw_scene(sampler, item)
        rooms.add(Path(scene.room.sofa_path).name)
        positions = SofaRoom(Path(sampler.root, scene.room.sofa_path)).positions
        for mine, theirs in ((scene.fg_events, native.fg_events), (scene.int_events, native.int_events)):
            # The native scene's files and excerpts, elsewhere.
            used = [
                sorted((e.label, e.source_file, e.source_time, e.event_duration) for e in x) for x in (mine, theirs)
            ]
            assert used[0] == used[1]
            assert [e.event_time for e in mine] != [e.event_time for e in theirs]
            assert mine == sorted(mine, key=lambda event: event.event_time)
            for event in mine:
                assert 0 <= event.event_time <= scene.config.duration - event.event_duration
                assert snr[event.role][0] <= event.snr <= snr[event.role][1]
                assert all(np.isclose(positions, point).all(axis=1).any() for point in event.event_position)
            for time in np.arange(0, scene.config.duration, 0.01):
                assert sum(e.event_time <= time < e.event_time + e.event_duration for e in mine) <= 2
        for a in scene.fg_events:
            for b in scene.fg_events:
                if a is not b and a.label == b.label:
                    assert np.degrees(angles(a.event_position, b.event_position)).min() > 60
        assert scene.bg_events == native.bg_events
        assert scene.extra["simulator"]["name"] == "spatialscaper"
    assert rooms == (
        {"a.sofa", "b.sofa"} if "raw" in scene.room.sofa_path else {"metu_foa.sofa", "bomb_shelter_foa.sofa"}
    )


@needs_library
def test_a_trajectory_keeps_to_the_speed_limit(material, config, layout):
    config |= {"n_events": [2, 2], "max_event_duration": 2.0, "spatialscaper": {"moving_probability": 1.0}}
    config["dirs"]["room_ir"] = str(layout / backend.LAYOUT)
    lengths = {}
    for limit in (0.3, 3.0):
        config["spatialscaper"]["speed_limit"] = limit
        events = [e for item in range(8) for e in backend.draw_scene(Sampler(config, material), item).fg_events]
        ends = [np.linalg.norm(np.subtract(e.event_position[-1], e.event_position[0])) for e in events]
        # The drawn ends keep the limit; each end lies half a step of the grid of positions from where it was drawn.
        lengths[limit] = np.mean(ends)
        room = open_room(layout / backend.LAYOUT / "bomb_shelter_foa.sofa")
        step = np.linalg.norm(room.positions[1] - room.positions[0]) + 0.6
        assert all(end <= limit * e.event_duration + 2 * step for end, e in zip(ends, events, strict=True))
    assert lengths[0.3] < lengths[3.0]


@needs_library
def test_a_scene_depends_on_its_item_alone_and_leaves_the_global_generators_alone(sampler):
    moving(sampler, 0.5)
    scenes = [backend.draw_scene(sampler, item) for item in range(4)]
    assert len({json.dumps(scene.to_dict()) for scene in scenes}) == 4
    random.seed(7)
    np.random.seed(7)
    states = random.getstate(), str(np.random.get_state())
    assert [backend.draw_scene(sampler, item) for item in (3, 1)] == [scenes[3], scenes[1]]
    assert (random.getstate(), str(np.random.get_state())) == states
    once, again = (simulate_scene(sampler, 2)[1] for _ in range(2))
    np.testing.assert_array_equal(once.mixture, again.mixture)


@needs_library
def test_the_library_itself_makes_the_same_of_an_event(layout, material, config):
    """An unchanged Scaper's synthesize_events_and_labels makes the same of a scene's event.

    It sets another level and ends with the source: up to one gain, it is our event until then. Its labels say where the
    event is: our positions.
    """
    import spatialscaper

    config |= {"n_events": [1, 1], "interference": [0, 0]}
    config["dirs"]["room_ir"] = str(layout / backend.LAYOUT)
    config["dirs"]["noise"] = None
    sampler, compared = Sampler(config, material), 0
    for item in range(4):
        scene, rendered = simulate_scene(sampler, item)
        event = scene.fg_events[0]
        if event.source_time:
            continue  # Scaper would start at the file's beginning
        compared += 1
        room = Path(scene.room.sofa_path).name.removesuffix("_foa.sofa")
        scaper = spatialscaper.Scaper(
            2.0, str(material / "raw/sound_event"), str(layout), "foa", room, sr=RATE, DCASE_format=False
        )
        scaper.label_rate = 10
        path = str(material / "raw/sound_event" / event.source_file)
        record = spatialscaper.core.Event(
            event.label, path, 0, event.event_time, event.event_duration, event.snr, "foreground", None, None,
            event.event_position,
        )  # fmt: skip
        scaper.fg_events = [record]
        irs, _, xyz = scaper.get_room_irs_wav_xyz()
        theirs, labels = scaper.synthesize_events_and_labels(irs, xyz, np.zeros((2 * RATE, 4)))
        start = int(event.event_time * RATE)
        part = slice(start, start + int(event.event_duration * RATE))
        a, b = theirs.T[:, part], rendered.mixture[:, part]
        gain = (a * b).sum() / (b * b).sum()
        np.testing.assert_allclose(a, gain * b, atol=1e-5 * np.abs(a).max())
        x, y, z = event.event_position[0]
        direction = [np.degrees(np.arctan2(y, x)), np.degrees(np.arctan2(z, np.hypot(x, y)))]
        np.testing.assert_allclose(labels[:, 3:5], np.tile(direction, (len(labels), 1)), atol=1e-3)
    assert compared >= 2


@needs_library
@pytest.mark.parametrize(
    "n, k, length", [(4000, 1, 900), (4000, 2, 900), (12345, 7, 3000), (700, 2, 5000), (1280, 2, 1)]
)
def test_its_time_variant_convolution_is_the_sum_that_motion_describes(n, k, length):
    rng = np.random.default_rng(n)
    source, responses = rng.standard_normal(n), rng.standard_normal((5, k, length))
    found = backend.spatialize(source, responses)
    expected = np.zeros((5, n + length - 1))
    for position, weight in enumerate(fade_weights(n, k)):
        for channel in range(5):
            expected[channel] += np.convolve(source * weight, responses[channel, position])
    gain = (found * expected).sum() / (found * found).sum()
    np.testing.assert_allclose(gain * found, expected, atol=1e-12 * np.abs(expected).max())
    assert k > 1 or gain == pytest.approx(1)


@needs_library
def test_a_short_event_stays_where_it_is(tmp_path, material, config):
    folder = tmp_path / "sound_event/Knock"
    folder.mkdir(parents=True)
    soundfile.write(folder / "a.wav", np.random.default_rng(0).standard_normal(RATE // 10) / 4, RATE)
    config |= {"labels": ["Knock"], "n_events": [1, 1], "spatialscaper": {"moving_probability": 1.0}}
    config["dirs"] = {"sound_event": str(tmp_path / "sound_event"), "room_ir": str(material / "raw/room_ir")}
    config["interference"] = [0, 0]
    drawn, _ = simulate_scene(Sampler(config), 0)
    assert len(drawn.fg_events[0].event_position) == 1


@needs_library
def test_a_fixed_set_says_that_it_was_made_by_it(recipe, tmp_path):
    config, out = yaml.safe_load(Path("scenes.yaml").read_text()), tmp_path / "set"
    config |= {"n_events": [1, 2], "spatialscaper": {"moving_probability": 0.5}}
    (tmp_path / "scenes.yaml").write_text(yaml.safe_dump(config))
    arguments = ["--config", str(tmp_path / "scenes.yaml"), "--out", str(out), "--simulator", "spatialscaper"]
    main([*arguments, "--num_scenes", "2"])
    main([*arguments, "--num_scenes", "4"])
    assert json.loads((out / "simulate.json").read_text())["simulator"] == "spatialscaper"
    data = DataDir.load(out)
    assert len(data.utts) == 4
    moved = 0
    for utt in data.utts:
        scene = Scene.load(data.scene_path(utt))
        assert scene.extra["simulator"]["name"] == "spatialscaper"
        moved += sum(len(event.event_position) > 1 for event in scene.fg_events)
        rendered = render(scene)
        assert data.labels[utt] == tuple(rendered.labels)
        n = len(rendered.dry)
        for written, expected in ((data.mixture(utt)[0], rendered.mixture), (data.sources(utt)[:n], rendered.dry)):
            np.testing.assert_allclose(written, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())
    assert moved > 0
    before = {path: path.stat().st_mtime_ns for path in (out / "wav").iterdir()}
    main([*arguments, "--num_scenes", "4"])
    assert {path: path.stat().st_mtime_ns for path in (out / "wav").iterdir()} == before


@needs_library
def test_what_scaper_cannot_place_is_refused_in_one_line(material, config, monkeypatch):
    config |= {"n_events": [2, 2], "same_class_probability": 1, "interference": [0, 0]}
    scene = Sampler(config, material).sample(0)
    assert len(set(scene.labels)) == 1
    apart = Sampler(config | {"same_class_min_angle": 179}, material)
    seconds = 0.9 * sum(event.event_duration for event in scene.fg_events)
    one_by_one = {"max_event_overlap": 1, "duration": seconds, "max_event_duration": seconds}
    crowded = Sampler(config | one_by_one, material)
    # Drawn under the rules above: what Scaper places, the native sampler mostly can too.
    monkeypatch.setattr(Sampler, "scene", lambda *_: scene)
    said = refusal(backend.draw_scene, apart, 0)
    assert (
        f"(no place 179 degrees from the other events of {scene.labels[0]}), expected limits that allow a placement"
        in said
    )
    assert "(no onset under the overlap limit)" in refusal(backend.draw_scene, crowded, 0)


@needs_library
def test_rooms_that_it_cannot_read_are_refused(layout, material, config, write_room, tmp_path):
    def draw(folder: Path) -> None:
        config["dirs"]["room_ir"] = str(folder)
        config["n_events"] = [1, 1]
        backend.draw_scene(Sampler(config, material), 0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spherical = tmp_path / "spherical" / backend.LAYOUT
        write_room(spherical / "metu_foa.sofa")
        assert f"{spherical}/metu_foa.sofa: found " in refusal(draw, spherical)
    other = tmp_path / "other" / backend.LAYOUT
    other.mkdir(parents=True)
    (other / "gym_mic.sofa").write_bytes((layout / backend.LAYOUT / "gym_mic.sofa").read_bytes())
    assert refusal(draw, other) == f"{other}: found no room, expected files <room>_foa.sofa"
    # What h5py reads and the library's check of the format does not let pass.
    (other / "gym_foa.sofa").write_bytes((layout / backend.LAYOUT / "gym_mic.sofa").read_bytes())
    with h5py.File(other / "gym_foa.sofa", "a") as file:
        del file.attrs["Conventions"]
    assert f"{other}/gym_foa.sofa: found a file that SpatialScaper cannot read" in refusal(draw, other)
