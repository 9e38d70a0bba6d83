import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import sofar
import soundfile
import yaml

from s5.bin.simulate import main
from s5.data import DataDir
from s5.errors import InputError
from s5.labels import LabelSet
from s5.scene import Sampler, Scene, render

RATE = 8000


@pytest.fixture
def recipe(tmp_path, monkeypatch) -> Path:
    """A recipe folder with raw material, as the working directory."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, seconds, channels in (
        ("sound_event/Speech/anna/1", 0.3, 1),
        ("sound_event/Speech/bert/1", 0.4, 1),
        ("sound_event/Cough/1", 0.2, 1),
        ("sound_event/Cough/2", 0.2, 1),
        ("interference/Rain/1", 0.3, 1),
        ("noise/1", 2.5, 4),
    ):
        path = tmp_path / "raw" / f"{name}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal((int(seconds * RATE), channels)), RATE)
    sofa = sofar.Sofa("GeneralFIR")
    sofa.SourcePosition = np.array([[azimuth, 0, 1.5] for azimuth in range(0, 360, 45)], dtype=float)
    sofa.SourcePosition_Type, sofa.SourcePosition_Units = "spherical", "degree, degree, metre"
    sofa.Data_IR = rng.standard_normal((8, 4, 200)) * np.exp(-np.arange(200) / 30)
    sofa.ReceiverPosition, sofa.Data_Delay, sofa.Data_SamplingRate = np.zeros((4, 3)), np.zeros((1, 4)), RATE
    (tmp_path / "raw/room_ir").mkdir()
    sofar.write_sofa("raw/room_ir/a.sofa", sofa, compression=0)
    (tmp_path / "labels.txt").write_text("Cough\nSpeech\n")
    dirs = {name: f"raw/{name}" for name in ("sound_event", "interference", "noise", "room_ir")}
    config = {"labels": "labels.txt", "sampling_rate": RATE, "duration": 1.0, "max_event_duration": 0.5}
    config |= {"n_events": [0, 2], "num_scenes": 12, "dirs": dirs}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def simulate(*options: str, out: str = "data/test") -> Path:
    main(["--config", "test.yaml", "--out", out, *options])
    return Path(out)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_fixed_set_is_a_data_directory_whose_scenes_render_again(recipe, caplog):
    caplog.set_level(logging.INFO)
    simulate()
    data = DataDir.load("data/test", LabelSet.load("labels.txt"))
    data.check(fs=RATE, channels=4, decode=True)
    assert data.utts == [f"test_{i:04d}" for i in range(12)]
    for utt in data.utts:
        path = data.scene_path(utt)
        assert str(path) == f"data/test/scene/{utt}.json"
        rendered = render(Scene.load(path))
        np.testing.assert_array_equal(rendered.mixture, data.mixture(utt)[0])
        np.testing.assert_array_equal(rendered.dry, data.sources(utt)[: len(rendered.dry)])
        assert tuple(rendered.labels) == data.labels[utt]
        for slot, label in enumerate(rendered.labels):
            assert Path(f"data/test/source/{utt}_{slot}_{label}.wav").is_file()
    n_sources = sum(map(len, data.labels.values()))
    assert len(list(Path("data/test/source").iterdir())) == n_sources > 5
    speech = sum(labels.count("Speech") for labels in data.labels.values())
    assert "12 scenes; sources a scene: " in caplog.text and f"Speech {speech}" in caplog.text


def test_the_number_of_processes_changes_nothing(recipe):
    shutil.copytree(simulate(), "one")
    shutil.rmtree("data")
    assert content(simulate("--nj", "2")) == content(Path("one"))


def test_what_is_there_is_kept_and_what_is_missing_is_made(recipe):
    out = simulate()
    before = content(out)
    sources = sorted((out / "source").iterdir())
    for path in (out / "wav/test_0003.wav", out / "scene/test_0005.json", sources[0], out / "labels"):
        path.unlink()
    kept = out / "wav/test_0007.wav"
    stamp = kept.stat().st_mtime_ns
    simulate()
    assert content(out) == before
    assert kept.stat().st_mtime_ns == stamp


def test_another_configuration_replaces_the_items(recipe):
    out = simulate()
    old = content(out)
    text = Path("test.yaml").read_text()
    Path("test.yaml").write_text(text + "seed: 5\n")
    new = content(simulate())
    assert new["wav/test_0000.wav"] != old["wav/test_0000.wav"]
    DataDir.load(out).check()
    assert len([name for name in new if name.startswith("source/")]) == sum(map(len, DataDir.load(out).labels.values()))


def test_an_interrupted_set_does_not_pass_for_a_whole_one(recipe):
    out = simulate()
    noise = Path("raw/noise/1.flac")
    noise.write_bytes(noise.read_bytes()[:-5000])
    (out / "wav/test_0011.wav").unlink()
    with pytest.raises(InputError, match=r"noise/1.flac: found .*(damaged|truncated)"):
        simulate()
    assert not (out / "wav.scp").exists() and not list(out.rglob(".*"))


def test_an_error_in_a_worker_arrives_as_it_is(recipe):
    sofa = Path("raw/room_ir/a.sofa")
    sofa.write_bytes(sofa.read_bytes()[:-40000])
    with pytest.raises(InputError, match=r"a.sofa: found"):
        simulate("--nj", "2")


def test_num_scenes(recipe):
    assert len(DataDir.load(simulate("--num_scenes", "3")).utts) == 3
    with pytest.raises(InputError, match="--num_scenes: found 0, expected at least 1"):
        simulate("--num_scenes", "0")


def test_a_virtual_set_is_one_file(recipe):
    out = simulate("--virtual", out="data/train")
    assert [path.name for path in out.iterdir()] == ["sampler.yaml"]
    resolved = yaml.safe_load((out / "sampler.yaml").read_text())
    assert resolved["labels"] == ["Cough", "Speech"] and resolved["n_slots"] == 3
    sampler, original = Sampler.from_yaml(out / "sampler.yaml"), Sampler.from_yaml("test.yaml")
    assert sampler.fingerprint == original.fingerprint and sampler.scene(1, 2) == original.scene(1, 2)


def test_virtual_and_fixed_sets_do_not_mix(recipe):
    simulate("--virtual", out="data/train")
    with pytest.raises(InputError, match=r"data/train: found sampler.yaml"):
        simulate(out="data/train")
    simulate("--num_scenes", "1")
    with pytest.raises(InputError, match=r"data/test: found wav.scp"):
        simulate("--virtual")


def test_a_virtual_set_that_cannot_be_sampled_is_refused(recipe):
    config = yaml.safe_load(Path("test.yaml").read_text())
    Path("test.yaml").write_text(yaml.safe_dump(config | {"n_events": [3, 3], "same_class_probability": 0}))
    with pytest.raises(InputError, match=r"test.yaml: found no scene of 3 events .*3 different labels out of 2"):
        simulate("--virtual", out="data/train")
    assert not Path("data/train").exists()


def test_scene_files_are_spaudsyns(recipe):
    scene = json.loads((simulate("--num_scenes", "1") / "scene/test_0000.json").read_text())
    assert list(scene) == ["config", "fg_events", "bg_events", "int_events", "room"]
    assert scene["config"]["foreground_dir"] == "raw/sound_event"
