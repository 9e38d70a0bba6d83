import json
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import sofar
import soundfile
import yaml

from s5.bin.simulate import main
from s5.data import DataDir
from s5.labels import LabelSet
from s5.scene import Sampler, Scene, render
from s5.tasks.data import VirtualScenes
from s5.utils.errors import InputError

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
    assert "12 scenes; sources per scene: " in caplog.text and f"Speech {speech}" in caplog.text


@pytest.mark.parametrize(("rest", "name"), [("residual", "rest"), ("noise", "noise")])
def test_a_set_with_its_dry_interference_and_rest(recipe, rest, name):
    before = content(simulate())
    out = simulate("--rest", rest)
    data = DataDir.load(out, LabelSet.load("labels.txt"))
    data.check(fs=RATE, channels=4, decode=True)
    assert (data.n_interference, data.has_rest(rest)) == (2, True)
    counts = set()
    for utt in data.utts:
        scene = Scene.load(data.scene_path(utt))
        rendered = render(scene, rest=rest)
        n = len(scene.int_events)
        counts.add(n)
        np.testing.assert_array_equal(data.interference(utt)[:n], rendered.dry_interference)
        assert not data.interference(utt)[n:].any()
        np.testing.assert_array_equal(data.rest(utt, rest), rendered.rest)
    assert counts == {0, 1, 2}
    after = content(out)
    assert {path for path in after if path not in before and path.split("/")[0] not in ("interference", name)} == {
        f"{name}.scp",
        "interference1.scp",
        "interference2.scp",
    }
    same = [path for path in before if path.startswith(("wav", "source", "scene", "labels"))]
    assert len(same) > 30 and all(after[path] == before[path] for path in same)
    assert after[".content"] != before[".content"]
    # Nothing is left of it in a set without.
    assert content(simulate()) == before and not (out / name).exists() and not (out / "interference").exists()


def test_the_configuration_may_ask_for_the_rest(recipe):
    config = yaml.safe_load(Path("test.yaml").read_text()) | {"rest": "residual", "num_scenes": 4}
    Path("test.yaml").write_text(yaml.safe_dump(config))
    out = simulate("--nj", "2")
    assert DataDir.load(out).has_rest() and json.loads((out / "simulate.json").read_text())["rest"] == "residual"
    before = content(out)
    stamps = {path: path.stat().st_mtime_ns for path in (out / "wav").iterdir()}
    (out / "rest/test_0002.wav").unlink()
    assert content(simulate()) == before
    changed = [path.name for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp]
    assert changed == ["test_0002.wav"]
    assert DataDir.load(simulate("--rest", "noise")).has_rest("noise") and not (out / "rest").exists()
    assert not DataDir.load(simulate("--rest", "none")).has_rest()
    resolved = yaml.safe_load((simulate("--virtual", "--rest", "noise", out="data/train") / "sampler.yaml").read_text())
    assert "rest" not in resolved  # a training asks for it


def test_an_interferer_that_was_lost_is_found(recipe):
    out = simulate("--rest", "residual")
    lines = (out / "interference2.scp").read_text().splitlines()
    utt = lines.pop().split()[0]
    (out / "interference2.scp").write_text("".join(f"{line}\n" for line in lines))
    expected = rf"interference2.scp: found 1 dry interferers of {utt} in all, expected 2, as in .*{utt}.json"
    with pytest.raises(InputError, match=expected):
        DataDir.load(out).check()


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


def test_scenes_by_the_rules_of_2025_are_kept_too(recipe):
    config = yaml.safe_load(Path("test.yaml").read_text())
    config |= {"rules": "dcase2025", "labels": ["Cough"], "n_events": [1, 1], "same_class_probability": 0}
    Path("test.yaml").write_text(yaml.safe_dump(config | {"num_scenes": 3}))
    out = simulate()
    assert json.loads((out / "scene/test_0000.json").read_text())["room"] == "a.sofa"
    before = {path: path.stat().st_mtime_ns for path in (out / "wav").iterdir()}
    simulate()
    assert before == {path: path.stat().st_mtime_ns for path in (out / "wav").iterdir()}


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


def test_num_scenes(recipe, capsys):
    assert len(DataDir.load(simulate("--num_scenes", "3")).utts) == 3
    with pytest.raises(SystemExit):
        simulate("--num_scenes", "0")
    assert "argument --num_scenes: found 0, expected a whole number of at least 1" in capsys.readouterr().err


def test_a_virtual_set_is_one_file(recipe):
    out = simulate("--virtual", out="data/train")
    assert sorted(path.name for path in out.iterdir()) == [".content", "sampler.yaml"]
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


def start(*options: str) -> subprocess.Popen:
    """A run in a process of its own."""
    command = [sys.executable, "-m", "s5.bin.simulate", "--config", "test.yaml", "--out", "data/test", *options]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


def test_a_killed_run_goes_on_with_nothing_twice_and_nothing_missing(recipe):
    config = yaml.safe_load(Path("test.yaml").read_text())
    Path("test.yaml").write_text(yaml.safe_dump(config | {"num_scenes": 60}))
    whole = content(simulate())
    shutil.rmtree("data")
    run = start("--nj", "2")
    scenes = Path("data/test/scene")
    deadline = time.monotonic() + 60
    while not (scenes.exists() and len(list(scenes.glob("*.json"))) >= 10) and time.monotonic() < deadline:
        time.sleep(0.002)
    run.kill()  # the main process alone: its workers have to end of themselves
    run.wait()
    time.sleep(0.3)
    stamps = {path: path.stat().st_mtime_ns for path in scenes.glob("*.json")}
    assert 10 <= len(stamps) < 60 and not Path("data/test/wav.scp").exists()
    # What a process that died while writing leaves behind.
    Path("data/test/wav/.test_0059.wav.x1y2.partial").write_bytes(b"half")
    assert content(simulate()) == whole
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


@pytest.mark.parametrize(
    ("options", "kind", "step"),
    [
        (["--format", "flac"], "PCM_24", 2.0**-23),
        (["--format", "flac", "--subtype", "16"], "PCM_16", 2.0**-15),
        (["--subtype", "16"], "PCM_16", 2.0**-15),
        (["--subtype", "24"], "PCM_24", 2.0**-23),
    ],
)
def test_formats(recipe, options, kind, step):
    out = simulate("--num_scenes", "4", *options)
    data = DataDir.load(out)
    data.check(fs=RATE, channels=4, decode=True)
    for utt in data.utts:
        scene = Scene.load(data.scene_path(utt))
        assert soundfile.info(data.mixture_path(utt)).subtype == kind
        np.testing.assert_allclose(data.mixture(utt)[0], render(scene).mixture, rtol=0, atol=0.51 * step)
    # Asked for in another form, nothing of the old one is left.
    again = simulate("--num_scenes", "4")
    assert {path.suffix for path in (again / "wav").iterdir()} == {".wav"}
    assert soundfile.info(again / "wav/test_0000.wav").subtype == "FLOAT"


def test_flac_cannot_hold_floats(recipe):
    with pytest.raises(InputError, match="--subtype: found float with flac, expected 24 or 16"):
        simulate("--format", "flac", "--subtype", "float")
    assert not Path("data").exists()


def test_clipped_samples_are_counted_by_mixture(recipe, caplog):
    config = yaml.safe_load(Path("test.yaml").read_text())
    Path("test.yaml").write_text(yaml.safe_dump(config | {"ref_db": 0}))
    simulate("--num_scenes", "2", "--subtype", "16")
    assert "wav/test_0001.wav: " in caplog.text and "samples beyond full scale were clipped (peak " in caplog.text
    caplog.clear()
    simulate("--num_scenes", "2", "--subtype", "float")
    assert "clipped" not in caplog.text


def test_a_smaller_set_leaves_nothing_of_a_larger_one(recipe):
    simulate()
    out = simulate("--num_scenes", "3")
    assert sorted(path.name for path in (out / "scene").iterdir()) == [f"test_{i:04d}.json" for i in range(3)]
    assert len(list((out / "wav").iterdir())) == 3


def test_a_summary_in_numbers_and_as_a_figure(recipe):
    out = simulate()
    summary = json.loads((out / "summary.json").read_text())
    rows = [Scene.load(path) for path in sorted((out / "scene").iterdir())]
    labels = [label for scene in rows for label in scene.labels]
    assert summary["scenes"] == 12 == sum(summary["sources_per_scene"].values())
    assert summary["sources"] == {label: labels.count(label) for label in ("Cough", "Speech")}
    assert sum(summary["interferers"].values()) == sum(len(scene.int_events) for scene in rows)
    snrs = [event.snr for scene in rows for event in scene.fg_events]
    assert summary["snr_db"]["targets"] == {str(i): n for i in range(5, 21) if (n := sum(int(s) == i for s in snrs))}
    assert (out / "summary.png").read_bytes()[:4] == b"\x89PNG"


def listed(scenes: list[Scene], folder: str = "list") -> str:
    (Path(folder) / "valid").mkdir(parents=True)
    for i, scene in enumerate(scenes):
        scene.save(f"{folder}/valid/{i}.json")
    entries = [{"metadata_path": f"valid/{i}.json"} for i in range(len(scenes))]
    Path(folder, "valid.json").write_text(json.dumps(entries))
    return f"{folder}/valid.json"


def test_a_metadata_list_becomes_the_same_set(recipe):
    drawn = simulate()
    path = listed([Scene.load(path) for path in sorted((drawn / "scene").iterdir())])
    before = content(drawn)
    shutil.rmtree(drawn)
    main(["--scenes", path, "--out", "data/test"])
    assert content(drawn) == before
    main(["--scenes", path, "--out", "data/two", "--num_scenes", "2"])
    assert DataDir.load("data/two").utts == ["two_0000", "two_0001"]


def test_paths_of_a_list_may_start_elsewhere(recipe, tmp_path, monkeypatch):
    path = listed([Sampler.from_yaml("test.yaml").scene(0, item) for item in range(2)])
    here = tmp_path / "elsewhere"
    here.mkdir()
    monkeypatch.chdir(here)
    main(["--scenes", f"../{path}", "--out", "data/test", "--root", ".."])
    assert len(DataDir.load("data/test").utts) == 2


def spoil(*names: str) -> None:
    """Bad files of the kinds that there are."""
    rng = np.random.default_rng(3)
    samples = {
        "zeros": np.zeros(2000),
        "empty": np.zeros(0),
        "nan": np.full(2000, np.nan),
        "stereo": 0.1 * rng.standard_normal((3 * RATE, 2)),
    }
    for name in names:
        folder = "raw/noise" if name == "stereo" else "raw/sound_event/Cough"
        soundfile.write(f"{folder}/{name}.wav", samples[name], RATE, subtype="FLOAT")


REPORT = """\
raw/noise/stereo.wav\t2 channels instead of 4
raw/sound_event/Cough/empty.wav\tno sample
raw/sound_event/Cough/nan.wav\tsamples that are not finite
raw/sound_event/Cough/zeros.wav\tonly zeros
"""


def test_bad_audio_is_listed_and_stops_or_is_done_without(recipe):
    good = content(simulate())
    shutil.rmtree("data")
    spoil("zeros", "empty", "nan", "stereo")
    with pytest.raises(InputError, match=r"noise/stereo.wav and 3 more in data/test/bad_audio.tsv: found 2 channels"):
        simulate()
    assert Path("data/test/bad_audio.tsv").read_text() == REPORT
    assert not Path("data/test/wav.scp").exists()
    found = content(simulate("--on_bad_audio", "skip"))
    assert found.pop("bad_audio.tsv").decode() == REPORT
    assert found == good  # as if they were not there


def test_zeros_are_kept_if_so_asked(recipe):
    for path in Path("raw/sound_event/Cough").iterdir():
        path.unlink()
    spoil("zeros")
    config = yaml.safe_load(Path("test.yaml").read_text())
    Path("test.yaml").write_text(yaml.safe_dump(config | {"n_events": [2, 2], "same_class_probability": 0}))
    with pytest.raises(InputError, match=r"Cough/zeros.wav: found only zeros, expected audio \(--on_bad_audio skip"):
        simulate()
    with pytest.raises(InputError, match=r"Cough: found only excluded audio"):
        simulate("--on_bad_audio", "skip")
    data = DataDir.load(simulate("--on_bad_audio", "keep", "--num_scenes", "2"))
    assert not data.sources("test_0000")[data.labels["test_0000"].index("Cough")].any()
    spoil("nan")
    with pytest.raises(InputError, match=r"Cough/nan.wav: found samples that are not finite"):
        simulate("--on_bad_audio", "keep")


def test_listed_scenes_with_bad_audio_are_left_out(recipe, caplog):
    scenes = [Sampler.from_yaml("test.yaml").scene(0, item) for item in range(12)]
    path = listed(scenes)
    bad = "Cough/1.flac"
    use_it = [i for i, scene in enumerate(scenes) if bad in [event.source_file for event in scene.fg_events]]
    assert 0 < len(use_it) < 12
    soundfile.write(f"raw/sound_event/{bad}", np.zeros(2000), RATE)
    with pytest.raises(InputError, match=r"Cough/1.flac: found only zeros"):
        main(["--scenes", path, "--out", "data/test"])
    main(["--scenes", path, "--out", "data/test", "--on_bad_audio", "skip"])
    assert DataDir.load("data/test").utts == [f"test_{i:04d}" for i in range(12) if i not in use_it]
    assert f"entries left out for bad audio: {', '.join(map(str, use_it))}" in caplog.text


def test_a_virtual_set_draws_without_bad_audio(recipe):
    before = simulate("--virtual", out="data/before")
    clean = VirtualScenes(before).sampler.scene(1, 2)
    spoil("zeros", "empty")
    with pytest.raises(InputError, match=r"Cough/empty.wav and 1 more in data/train/bad_audio.tsv: found no sample"):
        simulate("--virtual", "--on_bad_audio", "stop", out="data/train")
    assert not Path("data/train/sampler.yaml").exists()
    out = simulate("--virtual", "--on_bad_audio", "skip", out="data/train")
    assert len((out / "excluded.txt").read_text().splitlines()) == 2
    assert VirtualScenes(out).sampler.scene(1, 2) == clean


def test_the_check_remembers_what_it_read(recipe, monkeypatch):
    from s5.scene import bad_audio

    simulate("--num_scenes", "2")
    read = []
    real = bad_audio.examine
    monkeypatch.setattr(bad_audio, "examine", lambda path: read.append(path) or real(path))
    simulate("--num_scenes", "2")
    assert read == []
    spoil("zeros")
    simulate("--num_scenes", "2", "--on_bad_audio", "skip")
    assert list(map(os.path.normpath, read)) == ["raw/sound_event/Cough/zeros.wav"]


def test_options_that_do_not_go_together(recipe):
    path = listed([Sampler.from_yaml("test.yaml").scene(0, 0)])
    with pytest.raises(InputError, match="--simulator: found spatialscaper with --scenes, expected native"):
        main(["--scenes", path, "--out", "data/test", "--simulator", "spatialscaper"])
    with pytest.raises(InputError, match="--simulator: found scaper, expected spatialscaper"):
        simulate("--simulator", "scaper")
    with pytest.raises(InputError, match="--virtual: found --scenes or --simulator"):
        main(["--scenes", path, "--out", "data/test", "--virtual"])
