"""A labelled target is never silent: a file must sound after the mix-down and the cut."""

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile
import yaml

from s5.bin.simulate import main
from s5.data import DataDir
from s5.scene import Sampler, Scene, audio, render
from s5.scene.bad_audio import examine
from s5.tasks.data import VirtualScenes
from s5.utils.errors import InputError

RATE = 8000


@pytest.fixture
def recipe(tmp_path, monkeypatch, write_room):
    """A recipe folder whose only label, Bell, has two good files."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write("Bell", name, noise(1.0))
    soundfile.write("raw/noise.wav", noise(3.0, 4), RATE)
    write_room(tmp_path / "raw/room_ir/a.sofa")
    dirs = {"sound_event": "raw/sound_event", "room_ir": "raw/room_ir"}
    config = {"labels": ["Bell"], "sampling_rate": RATE, "duration": 5.0, "max_event_duration": 4.0, "dirs": dirs}
    Path("a.yaml").write_text(yaml.safe_dump(config | {"n_events": [1, 2], "num_scenes": 12}))
    return tmp_path


def noise(seconds, channels=1):
    return 0.1 * np.random.default_rng(0).standard_normal((int(seconds * RATE), channels))


def write(label, name, samples, subtype="FLOAT", suffix=".wav"):
    path = Path(f"raw/sound_event/{label}/{name}{suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE, subtype=subtype)
    return path


def simulate(*options, out="data/test"):
    main(["--config", "a.yaml", "--out", out, *options])
    return DataDir.load(out) if "--virtual" not in options else VirtualScenes(out)


def opposed(bits):
    """A stereo signal whose channels are each other's negative, but for the rounding (dithered, as recorders do)."""
    x = noise(1.0)[:, 0]
    both = np.stack([x, -x], axis=1)
    if bits == 16:
        dither = np.random.default_rng(1).uniform(-0.5, 0.5, (2, *both.shape)).sum(0)
        return np.round(both * 2**15 + dither) / 2**15
    return both


SILENT = {
    "zeros": (np.zeros(RATE), "FLOAT", "only zeros"),
    "faint": (1e-25 * noise(1.0), "FLOAT", "no sound above the rounding of its samples"),
    "dither": (np.random.default_rng(0).integers(-2, 3, RATE) / 2**15, "PCM_16", "no sound above the rounding of its"),
    "opposed": (opposed(32), "FLOAT", "channels that cancel each other when they are mixed down"),
    "opposed24": (opposed(24), "PCM_24", "channels that cancel each other"),
    "opposed16": (opposed(16), "PCM_16", "channels that cancel each other"),
}


@pytest.mark.parametrize("kind", SILENT)
@pytest.mark.parametrize("options", [(), ("--virtual",)], ids=["fixed", "virtual"])
def test_a_file_that_is_silent_as_a_source_is_bad_audio(recipe, kind, options):
    samples, subtype, reason = SILENT[kind]
    write("Bell", "bad", samples, subtype)
    with pytest.raises(InputError, match=rf"Bell/bad.wav: found {reason}"):
        simulate(*options)
    simulate(*options, "--on_bad_audio", "skip")
    assert Path("data/test/bad_audio.tsv").read_text().startswith(f"raw/sound_event/Bell/bad.wav\t{reason}")
    if options:
        scenes = [VirtualScenes("data/test")[1, i][1]["dry"] for i in range(12)]
        assert all(np.abs(dry).max() > 1e-4 for dry in scenes)
    # SpAudSyn takes such files.
    assert simulate(*options, "--on_bad_audio", "keep", out="data/kept")


@pytest.mark.parametrize("gain", [1e-3, 1.0])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_a_quiet_recording_sounds_and_so_do_channels_that_differ(tmp_path, gain, subtype):
    soundfile.write(tmp_path / "a.wav", gain * noise(1.0, 2), RATE, subtype=subtype)
    found = examine(str(tmp_path / "a.wav"))
    assert not found.bad and not found.silent_source and found.channels == 2


def test_a_source_is_the_mean_of_its_channels(tmp_path):
    """The mix-down is that of SpAudSyn: librosa.load with mono=True."""
    samples = noise(0.5, 3).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    source = audio.source(audio.clip(str(tmp_path / "a.wav")), RATE)
    np.testing.assert_allclose(source, samples.mean(axis=1), atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "subtype"), [(".wav", "FLOAT"), (".flac", "PCM_16")])
def test_a_cut_is_drawn_where_there_is_sound(recipe, suffix, subtype):
    samples = np.concatenate([np.zeros((20 * RATE, 1)), noise(1.0), np.zeros((40 * RATE, 1))])
    for name in ("a", "b"):
        Path(f"raw/sound_event/Bell/{name}.wav").unlink()
        write("Bell", name, samples, subtype, suffix)
    data = simulate()
    for utt in data.utts:
        for dry in data.sources(utt)[: len(data.labels[utt])]:
            assert np.abs(dry).max() > 1e-4
    sampler = Sampler.from_yaml("a.yaml")
    starts = np.array([event.source_time for i in range(300) for event in sampler.scene(1, i).fg_events])
    # Any start is as likely whose cut holds sound before its last tenth of a second: 20 - 4 + 0.1 .. 21.
    assert 16.1 <= starts.min() < 16.2 and 20.8 < starts.max() <= 21.0
    assert abs(starts.mean() - 18.55) < 0.3


def test_a_cut_that_is_drawn_again_changes_nothing_else(recipe):
    path = write("Bell", "a", noise(10.0))
    before = [Sampler.from_yaml("a.yaml").scene(0, i) for i in range(40)]
    samples = noise(10.0)
    samples[: 5 * RATE] = 0
    write("Bell", "a", samples)
    after = [Sampler.from_yaml("a.yaml").scene(0, i) for i in range(40)]
    changed = 0
    for old, new in zip(before, after, strict=True):
        for event, other in zip(old.fg_events, new.fg_events, strict=True):
            if event.source_file == "Bell/a.wav" and event.source_time < 1.1:  # sound from 5 s on, a cut of 4 s
                changed += 1
                assert other.source_time != event.source_time
                event.source_time = other.source_time
        assert old == new
    assert changed > 2 and path.is_file()


def test_scenes_of_a_list_whose_cut_is_silent_are_left_out(recipe, caplog):
    samples = noise(9.0)
    samples[3 * RATE :] = 0
    write("Bell", "long", samples)
    scene = Sampler.from_yaml("a.yaml").scene(0, 0)
    Path("list").mkdir()
    for name, start in (("0", 1.0), ("1", 4.5)):
        event = json.loads(json.dumps(scene.fg_events[0].to_dict()))
        event |= {"source_file": "Bell/long.wav", "source_time": start, "event_duration": 4.0, "event_time": 0.5}
        (Path("list") / f"{name}.json").write_text(json.dumps(scene.to_dict() | {"fg_events": [event]}))
    Path("list/list.json").write_text(json.dumps([{"metadata_path": f"{name}.json"} for name in "01"]))
    with pytest.raises(InputError, match=r"Bell/long.wav: found no sound from 4.5 to 8.5 s, expected audio"):
        main(["--scenes", "list/list.json", "--out", "data/test"])
    main(["--scenes", "list/list.json", "--out", "data/test", "--on_bad_audio", "skip"])
    assert DataDir.load("data/test").utts == ["test_0000"]
    main(["--scenes", "list/list.json", "--out", "data/test", "--on_bad_audio", "keep"])
    assert len(DataDir.load("data/test").utts) == 2


def spoil_room(path, change):
    with h5py.File(path, "r+") as file:
        rirs = file["Data.IR"][()]
        change(rirs)
        file["Data.IR"][...] = rirs


def zero_reference(rirs):
    rirs[7, 0] = 0


def faint_reference(rirs):
    rirs[7, 0] *= 1e-25


def zero(rirs):
    rirs[7] = 0


def not_a_number(rirs):
    rirs[7, 3, 100] = np.nan


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (zero_reference, r"zeros in the reference channel 0 of Data.IR\[7\]"),
        (faint_reference, r"zeros in the reference channel 0 of Data.IR\[7\]"),
        (zero, r"only zeros in Data.IR\[7\]"),
        (not_a_number, r"Data.IR\[7\] with a number that is not finite"),
    ],
)
@pytest.mark.parametrize("options", [(), ("--virtual",)], ids=["fixed", "virtual"])
def test_every_impulse_response_is_looked_at_before_a_set_is_made(recipe, write_room, change, complaint, options):
    spoil_room("raw/room_ir/a.sofa", change)
    with pytest.raises(InputError, match=rf"raw/room_ir/a.sofa: found {complaint}"):
        simulate(*options)
    assert not Path("data/test/wav.scp").exists() and not Path("data/test/sampler.yaml").exists()
    write_room(recipe / "raw/room_ir/b.sofa")
    simulate(*options, "--on_bad_audio", "skip")
    sampler = VirtualScenes("data/test").sampler if options else None
    scenes = [Scene.load(path) for path in Path("data/test/scene").glob("*.json")]
    scenes += [sampler.scene(1, i) for i in range(5)] if sampler else []
    assert {scene.room.sofa_path for scene in scenes} == {"raw/room_ir/b.sofa"}


def test_a_room_without_its_reference_channel_is_refused_by_the_renderers(recipe):
    scene = Sampler.from_yaml("a.yaml").scene(0, 0)

    def only_zeros(rirs):
        rirs[:, 0] = 0

    spoil_room("raw/room_ir/a.sofa", only_zeros)
    with pytest.raises(InputError, match=r"a.sofa: Data.IR\[\d+\]: found zeros in the reference channel 0, expected"):
        render(scene)
    render(scene, sources=False)


def test_bad_files_may_have_any_name(recipe):
    name = os.fsdecode(b"raw/sound_event/Bell/caf\xe9.wav")
    os.rename(write("Bell", "bad", np.zeros(RATE)), name)
    sampler = simulate("--virtual", "--on_bad_audio", "skip").sampler
    report = Path("data/test/bad_audio.tsv").read_bytes()
    assert report == b"raw/sound_event/Bell/caf\xe9.wav\ta file that libsndfile cannot read\n"
    assert [os.path.normpath(path) for path in sampler.excluded] == [name]


def test_rooms_and_recordings_are_found_in_upper_case(recipe):
    Path("raw/room_ir/a.sofa").rename("raw/room_ir/A.SOFA")
    for name in ("a", "b"):
        Path(f"raw/sound_event/Bell/{name}.wav").rename(f"raw/sound_event/Bell/{name.upper()}.WAV")
    sampler = Sampler.from_yaml("a.yaml")
    assert sampler.material.room_paths() == ["./raw/room_ir/A.SOFA"]
    assert simulate("--num_scenes", "2").utts == ["test_0000", "test_0001"]
