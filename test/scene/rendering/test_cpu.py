import importlib
import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile

from s5.scene import Event, Room, Sampler, Scene, SceneConfig, render
from s5.scene.rendering.plan import plan
from s5.utils.errors import InputError

renderer = importlib.import_module("s5.scene.rendering.cpu")
RATE = 8000
GOLDEN = Path(__file__).parents[2] / "golden" / "scenes"


@pytest.fixture(autouse=True)
def _default_budgets():
    yield
    renderer.spectra.resize(renderer.FILTER_BUDGET)


@pytest.fixture
def scene(material, config) -> Scene:
    """Three events and two interferers."""
    config |= {"n_events": [3, 3], "interference": [2, 2], "interference_snr": [5, 15]}
    return Sampler(config, material).sample(5)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_golden_scenes(path):
    golden = np.load(path.with_suffix(".npz"))
    rendered = render(Scene.load(path), GOLDEN)
    tolerance = (1e-3 if "resampled" in path.stem else 1e-5) * np.abs(golden["mixture"]).max()
    assert rendered.labels == list(golden["labels"])
    assert rendered.mixture.dtype == rendered.dry.dtype == rendered.wet.dtype == np.float32
    np.testing.assert_allclose(rendered.mixture, golden["mixture"], rtol=0, atol=tolerance)
    for k in range(len(rendered.labels)):
        np.testing.assert_allclose(rendered.dry[k], golden[f"dry{k}"], rtol=0, atol=tolerance)
        np.testing.assert_allclose(rendered.wet[k], golden[f"wet{k}"], rtol=0, atol=tolerance)


def level(signal: np.ndarray, n: int | None = None) -> float:
    """10 log10 of the mean square, over n samples a channel."""
    n = n or signal.shape[-1]
    return 10 * np.log10(np.sum(np.square(signal, dtype=np.float64)) / (len(signal) * n))


def alone(scene: Scene, event: Event | None = None, **config) -> Scene:
    """The scene with one event only."""
    kinds = {"fg_events": "foreground", "int_events": "interference", "bg_events": "background"}
    lists = {key: [event] if event is not None and event.role == role else [] for key, role in kinds.items()}
    return replace(scene, config=replace(scene.config, **config), **lists)


def test_every_event_has_the_level_that_the_scene_says(scene, material):
    for event in [*scene.fg_events, *scene.int_events]:
        # Twice the length, so that the tail is not cut.
        rendered = render(alone(scene, event, duration=2 * scene.config.duration), material)
        n_source = int(event.event_duration * RATE)
        n_wet = n_source + scene.room.rir_len - 1
        assert level(rendered.mixture, n_wet) == pytest.approx(scene.config.ref_db + event.snr, abs=1e-3)
    background = render(alone(scene, scene.bg_events[0]), material)
    assert level(background.mixture) == pytest.approx(scene.config.ref_db, abs=1e-4)


def test_the_mixture_is_the_sum_of_its_parts(scene, material):
    whole = render(scene, material)
    events = [*scene.fg_events, *scene.int_events, *scene.bg_events]
    parts = [render(alone(scene, event), material) for event in events]
    np.testing.assert_allclose(
        whole.mixture, sum(p.mixture for p in parts), rtol=0, atol=1e-6 * abs(whole.mixture).max()
    )
    for k, part in enumerate(parts[:3]):
        np.testing.assert_array_equal(whole.dry[k], part.dry[0])
        np.testing.assert_array_equal(whole.wet[k], part.mixture[0])


def write_source(root: Path, name: str, samples: np.ndarray, rate: int = RATE) -> None:
    path = root / "events" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="FLOAT")


@pytest.fixture
def one_event(tmp_path, write_room):
    """Makes a scene of one event in a room of one position with the impulse response [M, N]; below tmp_path."""

    def make(samples: np.ndarray, rir: np.ndarray, onset: float = 0.0, duration: float = 1.0, **event) -> Scene:
        write_source(tmp_path, "X/x.wav", samples)
        write_room(tmp_path / "room.sofa", [[1, 0, 0]], "cartesian", rirs=np.pad(rir, ((0, 0), (0, 40)))[None])
        fields = {"source_time": 0, "event_time": onset, "event_duration": len(samples) / RATE, "snr": 10.0} | event
        x = Event("X", "X/x.wav", event_position=[[1.0, 0, 0]], role="foreground", **fields)
        config = SceneConfig(duration, RATE, 3, duration, -55, "events", None, None)
        return Scene(config, [x], [], [], Room("room.sofa", RATE, len(rir), 1, rir.shape[1] + 40))

    return make


def test_the_dry_target_keeps_6_ms_before_to_50_ms_after_the_largest_sample_both_inclusive(tmp_path, one_event):
    rir = np.zeros((2, 700))
    rir[0, [100 - 49, 100 - 48, 100, 100 + 400, 100 + 401]] = [0.11, 0.12, -1.0, 0.13, 0.14]
    rir[1, 30] = 5.0  # not the reference channel
    click = np.zeros(10)
    click[0] = 0.5
    rendered = render(one_event(click, rir), tmp_path)
    found = np.flatnonzero(np.abs(rendered.dry[0]) > 1e-7)
    np.testing.assert_array_equal(found, [100 - 48, 100, 100 + 400])
    np.testing.assert_allclose(rendered.dry[0][found], rendered.wet[0][found], rtol=1e-4)


def test_dry_is_the_source_where_the_room_is_a_delay(tmp_path, one_event):
    source = np.random.default_rng(0).standard_normal(3000)
    rir = np.zeros((4, 100))
    rir[:, 5] = [0.7, 0.1, -0.2, 0.3]
    rendered = render(one_event(source, rir, onset=0.25), tmp_path)
    start = int(0.25 * RATE) + 5
    gain = rendered.dry[0][start] / source[0]
    np.testing.assert_allclose(rendered.dry[0][start : start + 3000], gain * source, atol=1e-5 * gain)
    np.testing.assert_allclose(rendered.mixture, np.outer(rir[:, 5] / 0.7, rendered.dry[0]), atol=1e-5 * gain)
    assert not rendered.dry[0][: start - 5].any()


def test_what_reaches_past_the_end_is_cut(tmp_path, one_event):
    source = np.random.default_rng(0).standard_normal(4000)
    scene = one_event(source, np.random.default_rng(1).standard_normal((1, 300)), onset=0.75)
    short = render(scene, tmp_path)
    long = render(replace(scene, config=replace(scene.config, duration=2.0)), tmp_path)
    assert short.mixture.shape == (1, RATE)
    np.testing.assert_array_equal(short.mixture, long.mixture[:, :RATE])


def test_an_all_zero_source_stays(tmp_path, one_event):
    rendered = render(one_event(np.zeros(1000), np.ones((1, 10))), tmp_path)
    assert rendered.labels == ["X"] and not rendered.mixture.any() and not rendered.dry.any()


def test_source_and_event_times_are_truncated_to_samples(tmp_path, one_event):
    source = np.arange(1, 1001) / 1000.0
    rir = np.eye(1)
    times = {"source_time": 100.9 / RATE, "event_duration": 50.9 / RATE, "onset": 7.9 / RATE}
    rendered = render(one_event(source, rir, **times), tmp_path)
    found = np.flatnonzero(np.abs(rendered.dry[0]) > 1e-7)
    assert (found[0], len(found)) == (7, 50)
    assert rendered.dry[0][7] / rendered.dry[0][56] == pytest.approx(101 / 150, rel=1e-5)


@pytest.mark.parametrize("n", [1, 3000, 3297, 3298, 3299, 3300, 7001, 20000])
def test_convolution_by_blocks_is_the_convolution(n):
    rng = np.random.default_rng(n)
    source = rng.standard_normal(n).astype(np.float32)
    rir = rng.standard_normal((3, 800)).astype(np.float32)
    filters = renderer._Filter(scipy.fft.rfft(rir, 4096), 4096, 800)
    expected = scipy.signal.fftconvolve(source[None].astype(float), rir.astype(float), axes=1)
    found = renderer._convolve(source, filters)
    assert found.shape == expected.shape and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_short_and_long_backgrounds(scene, material):
    noise = scene.bg_events[0]
    repeated = render(alone(scene, replace(noise, source_file="short.flac", source_time=None)), material).mixture
    n = int(0.7 * RATE)
    np.testing.assert_array_equal(repeated[:, :n], repeated[:, n : 2 * n])
    cut = render(alone(scene, replace(noise, source_file="long.flac", source_time=3)), material).mixture
    file = soundfile.read(material / "raw/noise/long.flac", dtype="float32")[0].T[:, 3 * RATE : 5 * RATE]
    np.testing.assert_allclose(cut / np.abs(cut).max(), file / np.abs(file).max(), atol=1e-6)


def test_channels_rate_and_length_are_the_scenes(tmp_path, one_event):
    rendered = render(one_event(np.ones(100), np.eye(3)[:, :2] + 0.1, duration=0.3), tmp_path)
    assert rendered.mixture.shape == (3, int(0.3 * RATE))


@pytest.mark.parametrize("n_channels", [1, 2, 4, 9])
def test_the_first_channels_alone_are_those_of_the_whole(scene, material, n_channels):
    planned = plan(scene, material)
    whole, found = renderer.render_plan(planned), renderer.render_plan(planned, n_channels=n_channels)
    assert found.mixture.shape == (min(n_channels, len(whole.mixture)), whole.mixture.shape[1])
    for one, other in ((found.mixture, whole.mixture[:n_channels]), (found.dry, whole.dry), (found.wet, whole.wet)):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())


def test_first_channels_of_what_goes_by_blocks(tmp_path, one_event, monkeypatch):
    source, rir = np.random.default_rng(0).standard_normal(7000), np.random.default_rng(1).standard_normal((3, 300))
    planned = plan(one_event(source, rir), tmp_path)
    whole = renderer.render_plan(planned).mixture
    blocks = []
    monkeypatch.setattr(renderer, "LARGEST_TRANSFORM", 2000)
    monkeypatch.setattr(renderer, "_convolve", lambda *args, do=renderer._convolve: blocks.append(args) or do(*args))
    found = renderer.render_plan(planned, sources=False, n_channels=1).mixture
    assert len(blocks) == 1
    np.testing.assert_allclose(found, whole[:1], rtol=0, atol=1e-5 * np.abs(whole).max())


def test_the_interferers_dry_targets_are_those_of_any_source(scene, material):
    rendered = render(scene, material, rest="residual")
    assert rendered.dry_interference.dtype == np.float32 and len(rendered.dry_interference) == 2
    onsets = [event.event_time for event in scene.int_events]
    for event, dry in zip(scene.interferers, rendered.dry_interference, strict=True):
        as_target = replace(event, role="foreground")
        expected = render(alone(scene, as_target, foreground_dir=scene.config.interference_dir), material)
        np.testing.assert_array_equal(dry, expected.dry[0])
        assert dry.any()
    other = render(replace(scene, int_events=scene.int_events[::-1]), material, rest="residual")
    assert onsets[0] != onsets[1]
    np.testing.assert_array_equal(other.dry_interference, rendered.dry_interference)  # in onset order


@pytest.mark.parametrize("channel", [0, 2])
def test_dry_sources_and_the_rest_add_up_to_the_reference_channel(scene, material, channel):
    scene = replace(scene, rules=replace(scene.rules, reference_channel=channel))
    rendered = render(scene, material, rest="residual")
    parts = np.concatenate([rendered.dry, rendered.dry_interference, rendered.rest])
    assert parts.shape == (6, scene.config.n_samples) and parts.dtype == np.float32
    peak = np.abs(rendered.mixture).max()
    np.testing.assert_allclose(parts.sum(0), rendered.mixture[channel], rtol=0, atol=1e-6 * peak)
    # It holds the background and all reverberation.
    noise = render(scene, material, rest="noise")
    background = render(alone(scene, scene.bg_events[0]), material)
    np.testing.assert_array_equal(noise.rest, background.mixture[[channel]])
    late = rendered.wet.sum(0) - rendered.dry.sum(0)
    quiet = render(replace(scene, int_events=[]), material, rest="residual")
    np.testing.assert_allclose(quiet.rest[0] - noise.rest[0], late, rtol=0, atol=1e-6 * peak)
    assert np.abs(late).max() > 1e-3 * peak


@pytest.mark.parametrize("rest", ["residual", "noise"])
def test_further_targets_change_no_other_sample(scene, material, rest):
    plain, found = render(scene, material), render(scene, material, rest=rest)
    for name in ("mixture", "dry", "wet"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(found, name))
    assert plain.labels == found.labels and plain.dry_interference is None and plain.rest is None
    empty = render(replace(scene, fg_events=[], int_events=[]), material, rest=rest)
    assert empty.dry_interference.shape == (0, scene.config.n_samples)
    np.testing.assert_array_equal(empty.rest, empty.mixture[:1])
    with pytest.raises(ValueError, match="without the sources"):
        render(scene, material, sources=False, rest=rest)


def test_one_channel_has_the_same_further_targets(scene, material):
    planned = plan(scene, material)
    whole, found = (renderer.render_plan(planned, n_channels=n, rest="residual") for n in (None, 1))
    for name in ("dry_interference", "rest"):
        peak = np.abs(whole.mixture).max()
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=0, atol=1e-5 * peak)


def test_the_reference_channel_is_among_the_first(scene, material):
    planned = plan(scene, material)
    planned = replace(planned, rules=replace(planned.rules, reference_channel=2))
    with pytest.raises(ValueError, match="reference channel"):
        renderer.render_plan(planned, n_channels=2)


def test_kept_spectra_change_nothing_and_stay_within_their_budget(material, config):
    sampler = Sampler(config, material)
    scenes = [sampler.scene(0, item) for item in range(30)]
    renderer.spectra.resize(0)
    cold = [render(scene, material) for scene in scenes]
    renderer.spectra.resize(300_000)
    for scene, before in zip(scenes, cold, strict=True):
        after = render(scene, material)
        assert renderer.spectra.used <= 300_000
        np.testing.assert_array_equal(after.mixture, before.mixture)
        np.testing.assert_array_equal(after.dry, before.dry)
    assert renderer.spectra.used > 0


def test_trailing_zeros_of_an_impulse_response_count_for_the_level_alone(tmp_path, one_event):
    source = np.random.default_rng(0).standard_normal(500)
    rir = np.zeros((2, 4000))
    rir[:, :300] = np.random.default_rng(1).standard_normal((2, 300))
    scene = one_event(source, rir, duration=2.0)
    found = render(scene, tmp_path).mixture
    assert level(found, 500 + scene.room.rir_len - 1) == pytest.approx(-55 + 10, abs=1e-3)
    response = plan(scene, tmp_path).events[0].responses[0]
    assert renderer.load_response(response).shape == (2, 300) and renderer.full_length(response) == 4040


def _child(scene, root, out):
    out.send(render(scene, root).mixture)


def test_a_forked_process_renders_the_same(scene, material):
    mixture = render(scene, material).mixture
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_child, args=(scene, material, theirs))
    child.start()
    np.testing.assert_array_equal(ours.recv(), mixture)
    child.join()


def test_absolute_paths_and_names_with_their_folder_in_front(scene, material):
    config = scene.config
    moved = replace(
        scene,
        config=replace(config, foreground_dir=str(material / config.foreground_dir)),
        fg_events=[
            replace(event, source_file=str(material / config.foreground_dir / event.source_file))
            for event in scene.fg_events
        ],
        int_events=[replace(e, source_file=f"{config.interference_dir}/{e.source_file}") for e in scene.int_events],
    )
    np.testing.assert_array_equal(render(moved, material).mixture, render(scene, material).mixture)


def test_a_changed_file_is_read_again(tmp_path, one_event):
    scene = one_event(np.ones(1000), np.eye(1))
    first = render(scene, tmp_path).dry
    write_source(tmp_path, "X/x.wav", np.r_[np.ones(500), -np.ones(500), 0])
    assert not np.array_equal(first, render(scene, tmp_path).dry)


@pytest.mark.parametrize(
    ("break_it", "complaint"),
    [
        (lambda root: (root / "events/X/x.wav").unlink(), "x.wav: found no file"),
        (
            lambda root: (root / "events/X/x.wav").write_bytes(b"noise"),
            "x.wav: found a file that libsndfile cannot read",
        ),
        (lambda root: write_source(root, "X/x.wav", np.full(100, np.nan)), "x.wav: found samples that are not finite"),
        (lambda root: write_source(root, "X/x.wav", np.zeros(0)), "x.wav: found no sample"),
        (lambda root: (root / "room.sofa").write_bytes(b"x"), "room.sofa: found a file that HDF5 cannot read"),
    ],
)
def test_bad_material_is_refused_in_one_line(tmp_path, one_event, break_it, complaint):
    scene = one_event(np.ones(100), np.eye(1))
    break_it(tmp_path)
    with pytest.raises(InputError, match=complaint) as e:
        render(scene, tmp_path)
    assert "\n" not in str(e.value)


def test_a_position_that_the_room_lacks_is_refused(tmp_path, one_event, write_room):
    scene = one_event(np.ones(100), np.eye(1))
    write_room(tmp_path / "room.sofa", 4)
    with pytest.raises(InputError, match=r"room.sofa: found no position \[1.0, 0.0, 0.0\].*0.5 m away"):
        render(scene, tmp_path)


def test_a_background_of_other_channels_is_refused(scene, material):
    (material / "stereo").mkdir(exist_ok=True)
    soundfile.write(material / "stereo/x.wav", np.ones((RATE * 3, 2)) * 0.1, RATE)
    scene = replace(scene, config=replace(scene.config, background_dir="stereo"))
    scene.bg_events[0].source_file, scene.bg_events[0].source_time = "x.wav", 0
    with pytest.raises(InputError, match=r"x.wav: found 2 channels, expected 4"):
        render(scene, material)


def test_without_sources_the_mixture_is_the_same(material, config):
    from s5.scene import Sampler

    sampler = Sampler({**config, "n_events": [3, 3]}, root=material)
    scene = sampler.sample(1)
    whole, lean = render(scene, material), render(scene, material, sources=False)
    np.testing.assert_array_equal(whole.mixture, lean.mixture)
    assert lean.labels == whole.labels and lean.dry.shape == (0, whole.mixture.shape[1])
