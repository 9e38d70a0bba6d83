"""Scoring of files: naming, layouts, complaints, parallel runs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from s5.bin.compare import main as compare_main
from s5.bin.score import main
from s5.data import Row, audio_info, read_audio, write_audio, write_data_dir
from s5.inference import scoring
from s5.utils.errors import InputError

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CASES = json.loads((GOLDEN / "metrics.json").read_text())
FS = 16000


def write_sources(folder, utt, labels, waveforms, name="{utt}_{slot}_{label}.wav"):
    folder.mkdir(parents=True, exist_ok=True)
    for slot, (label, waveform) in enumerate(zip(labels, waveforms, strict=True)):
        if label != "silence":
            write_audio(folder / name.format(utt=utt, slot=slot, label=label), waveform, FS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The golden mixtures as files: challenge's layout, data directory, estimates."""
    root = tmp_path_factory.mktemp("score")
    arrays = np.load(GOLDEN / "metrics.npz")
    rows = []
    (root / "set" / "soundscape").mkdir(parents=True)
    for i, case in enumerate(CASES["cases"]):
        utt, mixture = f"test_{i:04d}", arrays[f"mix{i}"]
        channels = np.stack([mixture, 0 * mixture, -mixture, mixture])
        write_audio(root / "set" / "soundscape" / f"{utt}.wav", channels, FS)
        write_sources(root / "set" / "oracle_target", utt, case["ref_labels"], arrays[f"ref{i}"])
        write_sources(root / "estimates", utt, case["est_labels"], arrays[f"est{i}"])
        labels = tuple(label for label in case["ref_labels"] if label != "silence")
        paths = tuple(str(root / f"set/oracle_target/{utt}_{k}_{label}.wav") for k, label in enumerate(labels))
        rows.append(Row(utt, str(root / f"set/soundscape/{utt}.wav"), labels, paths))
    write_data_dir(root / "data", rows)
    return root


@pytest.fixture
def copy(made, tmp_path):
    """Estimates that a test may spoil."""
    shutil.copytree(made / "estimates", tmp_path / "estimates")
    return tmp_path / "estimates"


def score(estimates, references, tmp_path, *options):
    out = tmp_path / "exp" / "scores.json"
    main(["--estimates", str(estimates), "--references", str(references), "--out", str(out), *options])
    return json.loads(out.read_text())


def complaint(estimates, references, *options):
    with pytest.raises(InputError) as caught:
        main(["--estimates", str(estimates), "--references", str(references), *options])
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("references", ["set", "data"])
def test_official_values_from_files(made, tmp_path, references, capsys):
    scores = score(made / "estimates", made / references, tmp_path, "--system", "golden", "--set", "test")
    assert (scores["system"], scores["set"], scores["oracle_labels"]) == ("golden", "test", False)
    assert scores["metrics"]["CAPI-SDRi"] == pytest.approx(CASES["aggregate"]["capi_sdri"], abs=1e-4)
    assert scores["metrics"]["accuracy_mix"] == pytest.approx(CASES["aggregate"]["accuracy_mix"])
    for row, case in zip(scores["mixtures"], CASES["cases"], strict=True):
        expected = case["capi_sdri"]
        assert row["CAPI-SDRi"] == (None if expected is None else pytest.approx(expected, abs=1e-4))
    printed = capsys.readouterr().out
    assert "golden on test" in printed
    assert "3.94" in printed
    assert "DupSet" in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_processes_give_the_same_file(made, tmp_path):
    alone = score(made / "estimates", made / "set", tmp_path)
    assert score(made / "estimates", made / "set", tmp_path, "--nj", "2") == alone
    assert list((tmp_path / "exp").iterdir()) == [tmp_path / "exp" / "scores.json"]


def test_a_complaint_crosses_processes(made, copy):
    (copy / "test_0000_0_Speech.wav").write_bytes(b"no audio")
    assert "test_0000_0_Speech.wav" in complaint(copy, made / "set", "--nj", "2")


def test_command_line(made):
    command = [sys.executable, "-m", "s5.bin.score", "--references", str(made / "set"), "--estimates"]
    bad = subprocess.run([*command, str(made / "nothing")], capture_output=True, text=True, check=False)
    assert bad.returncode == 1
    assert bad.stderr.count("\n") == 1
    assert bad.stderr.startswith("error: ")
    assert "nothing: found no such folder" in bad.stderr


def test_naming_of_2025(tmp_path):
    """Names without a slot; the mixture's own name may end in a number."""
    ref = np.eye(2, 400, dtype=np.float32)
    (tmp_path / "set" / "soundscape").mkdir(parents=True)
    write_audio(tmp_path / "set" / "soundscape" / "room_1_2.wav", np.stack([ref.sum(0)] * 4), FS)
    naming = "{utt}_{label}.wav"
    write_sources(tmp_path / "set" / "oracle_target", "room_1_2", ["Speech", "Cough"], ref, naming)
    write_sources(tmp_path / "est", "room_1_2", ["Speech", "Cough"], 0.9 * ref, naming)
    scores = score(tmp_path / "est", tmp_path / "set", tmp_path)
    assert scores["metrics"]["CA-SDRi"] == pytest.approx(20.0, abs=1e-3)
    assert scores["mixtures"][0]["est_labels"] == ["Cough", "Speech"]


def test_silent_slot_between_active_ones(made, copy, tmp_path):
    """Pairs name the slot of the file."""
    (copy / "test_0000_0_Speech.wav").rename(copy / "test_0000_2_Speech.wav")
    row = score(copy, made / "set", tmp_path)["mixtures"][0]
    assert row["est_labels"] == ["silence", "Dishes", "Speech"]
    assert [(pair["label"], pair["est"]) for pair in row["pairs"]] == [("Speech", 2), ("Dishes", 1)]
    assert row["CAPI-SDRi"] == pytest.approx(CASES["cases"][0]["capi_sdri"], abs=1e-4)


def test_probabilities(made, tmp_path):
    file = tmp_path / "probabilities"
    labels = [[label for label in case["est_labels"] if label != "silence"] for case in CASES["cases"]]
    lines = [" ".join([f"test_{i:04d}", *["0.75"] * len(found)]) for i, found in enumerate(labels)]
    file.write_text("\n".join([lines[0] + " 0.5", *lines[1:]]) + "\n")  # a third slot, silenced after the vote
    scores = score(made / "estimates", made / "set", tmp_path, "--probabilities", str(file))
    assert [row["probabilities"] for row in scores["mixtures"]] == [[0.75] * len(found) for found in labels]
    for line, message in (
        ("test_0000 0.5", "1 probabilities"),
        ("test_0000 0.5 1.5", "found 1.5"),
        ("test_0000 a b", "found a, expected a probability"),
        ("other 0.5", "mixture other"),
        ("", "no line for test_0000"),
    ):
        file.write_text("\n".join([line, *lines[1:]]))
        assert message in complaint(made / "estimates", made / "set", "--probabilities", str(file))


def test_missing_folders(made, tmp_path):
    assert "no such folder" in complaint(tmp_path / "none", made / "set")
    assert "no such folder" in complaint(made / "estimates", tmp_path / "none")
    assert "neither wav.scp nor soundscape/" in complaint(made / "estimates", tmp_path)
    (tmp_path / "soundscape").mkdir()
    assert "no wav file" in complaint(made / "estimates", tmp_path)
    shutil.copy(made / "set" / "soundscape" / "test_0000.wav", tmp_path / "soundscape")
    assert "oracle_target" in complaint(made / "estimates", tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other_0000_0_Speech.wav", "fits no mixture"),
        ("Speech.wav", "fits no mixture"),
        ("test_0000_2_Speach.wav", "Speech"),
        ("test_0000_2_silence.wav", "label silence"),
        ("test_0000_1_Speech.wav", "a second file for slot 1 of test_0000"),
    ],
)
def test_names_that_fit_nothing(made, copy, name, message):
    shutil.copy(copy / "test_0000_0_Speech.wav", copy / name)
    found = complaint(copy, made / "set")
    assert message in found
    assert name in found or "slot 1" in found


def test_name_that_fits_two_mixtures(tmp_path):
    (tmp_path / "set" / "soundscape").mkdir(parents=True)
    for utt in ("a", "a_0"):
        write_audio(tmp_path / "set" / "soundscape" / f"{utt}.wav", np.ones((4, 10)), FS)
    (tmp_path / "set" / "oracle_target").mkdir()
    write_sources(tmp_path / "est", "a", ["Speech"], np.ones((1, 10)))
    assert "fits the mixtures a and a_0" in complaint(tmp_path / "est", tmp_path / "set")


@pytest.mark.parametrize(
    ("waveform", "fs", "message"),
    [
        (np.zeros((1, 3999)), FS, "1 channel(s) of 3999 samples"),
        (np.zeros((2, 4000)), FS, "2 channel(s) of 4000 samples"),
        (np.zeros((1, 4000)), 32000, "found 32000 Hz, expected 16000 Hz"),
        (np.full((1, 4000), np.nan), FS, "not finite"),
    ],
)
def test_audio_that_does_not_fit_its_mixture(made, copy, waveform, fs, message, tmp_path):
    write_audio(copy / "test_0000_0_Speech.wav", waveform, fs)
    out = tmp_path / "scores.json"
    found = complaint(copy, made / "set", "--out", str(out))
    assert message in found
    assert "test_0000_0_Speech.wav" in found
    assert not out.exists()


def test_damaged_audio(made, copy):
    (copy / "test_0000_0_Speech.wav").write_bytes(b"RIFF")
    assert "test_0000_0_Speech.wav" in complaint(copy, made / "set")


def test_label_set_of_the_recipe(made, tmp_path, monkeypatch):
    """conf/labels.txt of the working directory is the label set, --labels another."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "labels.txt").write_text("Speech\nPour\n")
    monkeypatch.chdir(tmp_path)
    assert "expected one of Speech, Pour" in complaint(made / "estimates", made / "set")
    names = {label for case in CASES["cases"] for key in ("est_labels", "ref_labels") for label in case[key]}
    (tmp_path / "all.txt").write_text("\n".join(sorted(names - {"silence"})))
    scores = score(made / "estimates", made / "set", tmp_path, "--labels", "all.txt")
    assert scores["counts"]["mixtures"] == 12


def test_no_estimate_at_all_is_silence_and_said_so(made, tmp_path, caplog):
    (tmp_path / "est").mkdir()
    scores = score(tmp_path / "est", made / "set", tmp_path)
    assert "holds no estimate" in caplog.text
    assert scores["metrics"]["CAPI-SDRi"] == 0.0
    assert scores["counts"]["tp"] == 0


def test_options_of_the_metric(made, tmp_path):
    official = score(made / "estimates", made / "set", tmp_path)
    other = score(made / "estimates", made / "set", tmp_path, "--select", "sdri", "--penalty_fn", "-3")
    assert other["options"] == {"select": "sdri", "penalty_fn": -3.0, "penalty_fp": 0.0}
    assert other["metrics"]["CAPI-SDRi"] < official["metrics"]["CAPI-SDRi"]


def test_files_that_fit_no_mixture_are_all_named(made, copy):
    for name in ("a_0_Speech.wav", "b_0_Speech.wav", "c_0_Speech.wav"):
        shutil.copy(copy / "test_0000_0_Speech.wav", copy / name)
    found = complaint(copy, made / "set")
    assert "a_0_Speech.wav: found a name that fits no mixture" in found
    assert "(and b_0_Speech.wav, c_0_Speech.wav)" in found


def test_mixtures_without_any_estimate_are_named(made, copy, tmp_path, caplog):
    caplog.set_level("INFO")
    for file in copy.glob("test_0000_*"):
        file.unlink()
    score(copy, made / "set", tmp_path)
    silent = [i for i, case in enumerate(CASES["cases"]) if {"silence"} >= set(case["est_labels"])]
    active = [i for i in silent if {"silence"} < set(CASES["cases"][i]["ref_labels"]) | {"silence"}]
    (line,) = [record.message for record in caplog.records if "no file for" in record.message]
    assert f"{len(set(active) | {0})} of 12 mixtures" in line and "test_0000" in line


def test_missing_reference_is_named(made, tmp_path):
    shutil.copytree(made / "set", tmp_path / "set")
    (tmp_path / "set" / "oracle_target" / "test_0000_0_Speech.wav").unlink()
    assert "test_0000_0_<Label>.wav: found no such file" in complaint(made / "estimates", tmp_path / "set")


def test_each_file_is_read_once(made, monkeypatch, tmp_path):
    import soundfile

    opened = []
    original = soundfile.SoundFile.__init__

    def counted(self, file, *args, **kwargs):
        opened.append(str(file))
        original(self, file, *args, **kwargs)

    monkeypatch.setattr(soundfile.SoundFile, "__init__", counted)
    for references in ("set", "data"):
        opened.clear()
        score(made / "estimates", made / references, tmp_path)
        assert (
            len(opened)
            == len(set(opened))
            == sum(1 for _ in (made / "set").rglob("*.wav")) + len(list((made / "estimates").iterdir()))
        )


def test_intervals_depend_on_the_seed_alone(made, tmp_path):
    first = score(made / "estimates", made / "set", tmp_path)
    assert score(made / "estimates", made / "set", tmp_path)["intervals"] == first["intervals"]
    other = score(made / "estimates", made / "set", tmp_path, "--seed", "1", "--resamples", "500")
    assert other["metrics"] == first["metrics"] and other["intervals"]["resamples"] == 500
    assert "intervals" not in score(made / "estimates", made / "set", tmp_path, "--resamples", "0")


@pytest.mark.parametrize("option", [("--resamples", "-1"), ("--level", "100"), ("--nj", "0")])
def test_senseless_options(made, option, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--estimates", str(made / "estimates"), "--references", str(made / "set"), *option])
    assert stop.value.code == 2
    assert option[0] in capsys.readouterr().err


def test_a_silent_reference_is_named_and_counts_as_it_does_officially(made, tmp_path, caplog):
    shutil.copytree(made / "set", tmp_path / "set")
    before = score(made / "estimates", tmp_path / "set", tmp_path)
    assert before["warnings"] == [] and "silent" not in caplog.text
    [file] = (tmp_path / "set/oracle_target").glob("test_0000_1_*.wav")
    write_audio(file, np.full(audio_info(file)[1], 1e-7), FS, subtype="FLOAT")
    found = score(made / "estimates", tmp_path / "set", tmp_path)
    label = file.stem.rpartition("_")[2]
    [line] = found["warnings"]
    assert line.startswith(f"test_0000: the reference of slot 1 ({label}) is silent: ")
    assert line in caplog.text
    assert found["mixtures"][0]["silent_refs"] == [1]
    assert found["metrics"]["CAPI-SDRi"] != before["metrics"]["CAPI-SDRi"]


def test_estimates_in_capitals_and_flac_count(made, copy, tmp_path):
    before = score(made / "estimates", made / "set", tmp_path)
    for i, file in enumerate(sorted(copy.iterdir())):
        if i % 2:
            file.rename(file.with_suffix(".WAV"))
        else:
            samples, fs = read_audio(file)
            peak = max(1.0, float(np.abs(samples).max()))
            if peak == 1.0:
                write_audio(file.with_suffix(".flac"), samples, fs, subtype="PCM_24")
                file.unlink()
    (copy / "._test_0000_0_Speech.wav").write_bytes(b"what macOS knows of a file")
    found = score(copy, made / "set", tmp_path)
    assert {file.suffix for file in copy.iterdir()} >= {".WAV", ".flac"}
    assert found["metrics"]["CAPI-SDRi"] == pytest.approx(before["metrics"]["CAPI-SDRi"], abs=1e-3)


def test_estimates_in_a_folder_below_are_no_silence(made, copy):
    (copy / "eval_out").mkdir()
    file = sorted(copy.glob("*.wav"))[0]
    file.rename(copy / "eval_out" / file.name)
    assert f"eval_out/{file.name}: found audio that is not read here" in complaint(copy, made / "set")


# --- floors and ceilings ---------------------------------------------------------------------------------------------

NAMES = {"silence.json", "mixture.json", "best_gain.json", "ideal_mask.json"}


def bounds_of(folder):
    return {name.removesuffix(".json"): json.loads((folder / name).read_text()) for name in NAMES}


@pytest.fixture
def computed(monkeypatch):
    """Mixtures whose floors and ceilings are computed."""
    found = []
    original = scoring.score_bounds

    def noted(utt, *args, **kwargs):
        found.append(utt)
        return original(utt, *args, **kwargs)

    monkeypatch.setattr(scoring, "score_bounds", noted)
    return found


def test_floors_and_ceilings_are_printed_with_every_score(made, tmp_path, capsys):
    score(made / "estimates", made / "data", tmp_path, "--bounds", str(tmp_path / "bounds" / "test"))
    found = bounds_of(tmp_path / "bounds" / "test")
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines()]
    order = ("silence", "mixture", "best_gain", "ideal_mask")
    values = [f"{found[name]['metrics']['CAPI-SDRi']:.2f}" for name in order]
    assert ["silence", "mixture", "best", "gain", "ideal", "mask"] in lines
    assert ["all", *values] in lines
    assert lines[-1][0] == "NoDupSet" and len(lines[-1]) == 5
    assert max(map(len, printed.splitlines())) <= 80
    score(made / "estimates", made / "data", tmp_path)  # without a folder
    assert capsys.readouterr().out == printed


def test_floors_and_ceilings_have_the_form_of_scores(made, tmp_path, capsys):
    folder = tmp_path / "bounds"
    scores = score(made / "estimates", made / "data", tmp_path, "--bounds", str(folder), "--set", "test")
    found = bounds_of(folder)
    assert {file.name for file in folder.iterdir()} == NAMES
    for name, one in found.items():
        assert scores.keys() == one.keys()
        assert (one["set"], one["system"], one["oracle_labels"]) == ("test", name.replace("_", " "), True)
        assert one["metrics"]["accuracy_mix"] == 100.0
        assert [row["utt"] for row in one["mixtures"]] == [row["utt"] for row in scores["mixtures"]]
    order = [found[name]["metrics"]["CAPI-SDRi"] for name in ("mixture", "best_gain", "ideal_mask")]
    assert order[0] == 0 < order[1] < order[2]
    capsys.readouterr()
    compare_main([str(folder / "best_gain.json"), str(folder / "ideal_mask.json")])
    assert "B ahead" in capsys.readouterr().out


def test_floors_and_ceilings_are_computed_once(made, copy, tmp_path, computed):
    folder = tmp_path / "bounds"
    options = ("--bounds", str(folder), "--set", "test")
    score(made / "estimates", made / "data", tmp_path, *options)
    assert len(computed) == 12
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns, file.stat().st_ino) for file in folder.iterdir()}
    next(copy.glob("*.wav")).unlink()
    score(copy, made / "data", tmp_path, *options)  # another system
    assert len(computed) == 12
    assert {f: (f.read_bytes(), f.stat().st_mtime_ns, f.stat().st_ino) for f in folder.iterdir()} == before
    score(copy, made / "data", tmp_path, *options, "--seed", "1")
    assert len(computed) == 12 and bounds_of(folder)["silence"]["intervals"]["seed"] == 1
    score(copy, made / "data", tmp_path, *options, "--select", "sdri")
    assert len(computed) == 24 and bounds_of(folder)["silence"]["options"]["select"] == "sdri"


def test_a_changed_reference_is_computed_again_alone(made, tmp_path, computed):
    shutil.copytree(made / "set", tmp_path / "set")
    options = ("--bounds", str(tmp_path / "bounds"))
    score(made / "estimates", tmp_path / "set", tmp_path, *options)
    before = bounds_of(tmp_path / "bounds")["silence"]["mixtures"]
    [file] = (tmp_path / "set/oracle_target").glob("test_0000_1_*.wav")
    write_audio(file, 0.5 * read_audio(file)[0], FS, subtype="FLOAT")
    computed.clear()
    score(made / "estimates", tmp_path / "set", tmp_path, *options)
    assert computed == ["test_0000"]
    after = bounds_of(tmp_path / "bounds")["silence"]["mixtures"]
    assert [row["utt"] for row, old in zip(after, before, strict=True) if row != old] == ["test_0000"]


def test_a_missing_file_of_the_bounds_is_made_again_and_a_damaged_one_is_named(made, tmp_path, computed):
    folder = tmp_path / "bounds"
    score(made / "estimates", made / "data", tmp_path, "--bounds", str(folder))
    before = bounds_of(folder)
    (folder / "best_gain.json").unlink()
    score(made / "estimates", made / "data", tmp_path, "--bounds", str(folder))
    assert bounds_of(folder) == before and len(computed) == 24
    (folder / "best_gain.json").write_text("{")
    assert "best_gain.json: found no JSON" in complaint(made / "estimates", made / "data", "--bounds", str(folder))


def test_bounds_of_several_processes_are_the_same(made, tmp_path):
    for nj in ("1", "2"):
        score(made / "estimates", made / "data", tmp_path, "--bounds", str(tmp_path / nj), "--nj", nj)
    assert bounds_of(tmp_path / "1") == bounds_of(tmp_path / "2")
