"""Tests that stage 13 keeps the challenge's rules, and that each broken rule is reported with its reason."""

import copy
import io
import json
import re
import zipfile

import numpy as np
import pytest
import soundfile
import yaml

from s5.bin import check_submission as command
from s5.challenge.rules import Rules, check_submission, evaluation_names
from s5.challenge.submission import Details, make_submission
from s5.labels import LabelSet
from s5.utils.config import ROOT
from s5.utils.errors import InputError

FS, N = 8000, 4000
UTTS = {"eval_0000": ["Speech", "Speech"], "eval_0001": [], "eval_0002": ["Cough"]}
AUTHORS = {
    "submission": {
        "number": 2,
        "name": "Tiny system",
        "abbreviation": "tiny",
        "audio_url": "https://example.org/out.zip",
        "authors": [
            {"lastname": "Second", "firstname": "B.", "email": "b@example.org", "affiliation": None},
            {"lastname": "Müller Ø", "firstname": "A.", "email": "a@example.org", "corresponding": True},
        ],
    },
    "system": {"description": {"input_sampling_rate": "8 kHz"}},
}
for author in AUTHORS["submission"]["authors"]:
    author["affiliation"] = {"abbreviation": "T.U.", "institute": "Some University", "location": "Here, There"}


def wav(samples=N, fs=FS, channels=1, subtype="PCM_16"):
    content = io.BytesIO()
    audio = 0.1 * np.random.default_rng(0).standard_normal((samples, channels))
    soundfile.write(content, audio, fs, subtype=subtype, format="WAV")
    return content.getvalue()


def rules(**changes):
    return Rules(dict.fromkeys(UTTS, N), {"t_0", "t_1"}, fs=FS, **changes)


def baseline(folder="Nguyen_NTT_task4_1"):
    """The files of a submission in the layout of the baseline's script."""
    entries, files = [], {}
    for utt, labels in UTTS.items():
        names = [f"{utt}_{slot}_{label}.wav" for slot, label in enumerate(labels)]
        files |= {f"{folder}/eval_out/{name}": wav() for name in names}
        estimate = [
            {"filename": name, "label": label, "probability": 0.75} for name, label in zip(names, labels, strict=True)
        ]
        entries.append({"soundscape": utt, "estimate": estimate})
    counts = {"acc": True, "tp": 1, "fp": 0, "fn": 0}
    first = {
        "soundscape": "t_0",
        "ref_labels": ["Cough", "silence", "silence"],
        "est_labels": ["Cough", "silence", "silence"],
        "probabilities": [0.9, 0.6, 0.7],
        "metrics": [{"metric": "CAPI-SDRi", "value": 8.5}, {"metric": "label_metrics", "value": counts}],
    }
    wrong = {"acc": False, "tp": 0, "fp": 0, "fn": 1}
    second = {
        **first,
        "soundscape": "t_1",
        "est_labels": ["silence"] * 3,
        "metrics": [{"metric": "CAPI-SDRi", "value": None}, {"metric": "label_metrics", "value": wrong}],
    }
    test = {
        "CAPI-SDRi": {"mean": 8.5},
        "label_metrics": {"accuracy_mix": 50.0, "accuracy_src": 50.0},
        "nparams": 113_000_000,
        "details": [first, second],
        "config": {"model": {}},
    }
    files[f"{folder}/eval_results.json"] = {"nparams": 113_000_000, "probabilities": entries, "config": {"model": {}}}
    files[f"{folder}/dev_set_test_results.json"] = test
    return files


def write(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, json.dumps(content, indent=4) if isinstance(content, dict) else content)
    return path


def test_a_submission_laid_out_as_the_baselines_passes(tmp_path):
    assert check_submission(write(tmp_path / "Nguyen_NTT_task4_1.zip", baseline()), rules()) == []
    # the name that the rules require, with either folder in it
    for folder in ("Nguyen_NTT_task4_1", "Nguyen_NTT_task4_1_out"):
        assert check_submission(write(tmp_path / "Nguyen_NTT_task4_1_out.zip", baseline(folder)), rules()) == []


FOLDER = "Nguyen_NTT_task4_1"
OUT = f"{FOLDER}/eval_out"
SPEECH, COUGH = f"{OUT}/eval_0000_0_Speech.wav", f"{OUT}/eval_0002_0_Cough.wav"
EVAL, TEST = f"{FOLDER}/eval_results.json", f"{FOLDER}/dev_set_test_results.json"


def renamed(old, new):
    """Renames a file, in the list of probabilities too."""

    def change(files):
        files[f"{OUT}/{new}"] = files.pop(f"{OUT}/{old}")
        text = json.dumps(files[EVAL]).replace(old, new)
        files[EVAL] = json.loads(text.replace('"label": "Cough"', f'"label": "{new[:-4].rpartition("_")[2]}"'))

    return change


def put(name, content):
    return lambda files: files.__setitem__(name, content)


def four_files(files):
    for slot in (1, 2, 3):
        files[f"{OUT}/eval_0002_{slot}_Cough.wav"] = wav()


def without_a_soundscape(files):
    del files[EVAL]["probabilities"][1]


def another_label(files):
    files[EVAL]["probabilities"][2]["estimate"][0]["label"] = "Pour"


def no_number(files):
    files[EVAL]["probabilities"][2]["estimate"][0]["probability"] = 1.5


def better_mean(files):
    files[TEST]["CAPI-SDRi"]["mean"] = 9.5


def two_labels(files):
    files[TEST]["details"][0]["est_labels"] = ["Cough", "silence"]


def value_of(metric, value):
    def change(files):
        next(m for m in files[TEST]["details"][0]["metrics"] if m["metric"] == metric)["value"] = value

    return change


BROKEN = {
    "no such label": (
        renamed("eval_0002_0_Cough.wav", "eval_0002_0_Coughs.wav"),
        "label Coughs, expected one of Alarm",
    ),
    "silence": (renamed("eval_0002_0_Cough.wav", "eval_0002_0_silence.wav"), "label silence, expected no file"),
    "unknown soundscape": (
        put(f"{OUT}/eval_0009_0_Cough.wav", wav()),
        "eval_0009_0_Cough.wav: found a name of no soundscape of the evaluation set",
    ),
    "name without slot": (
        put(f"{OUT}/eval_0002_Cough.wav", wav()),
        "found a name without slot, expected <soundscape>_",
    ),
    "slot beyond K": (renamed("eval_0002_0_Cough.wav", "eval_0002_3_Cough.wav"), "found slot 3, expected 0 to 2"),
    "two files in a slot": (put(f"{OUT}/eval_0000_0_Cough.wav", wav()), "a second file for slot 0 of eval_0000"),
    "more than K files": (four_files, "eval_0002: found 4 files, expected at most 3"),
    "sampling rate": (put(SPEECH, wav(fs=16000)), "found 16000 Hz, expected 8000 Hz"),
    "length": (put(SPEECH, wav(samples=N - 1)), "found 3999 samples, expected 4000, as its soundscape"),
    "channels": (put(SPEECH, wav(channels=4)), "found 4 channels, expected one"),
    "resolution": (put(SPEECH, wav(subtype="FLOAT")), "found WAV FLOAT, expected wav of 16 bit"),
    "no audio": (put(SPEECH, b"RIFF"), "found a file that libsndfile cannot read, expected an audio file"),
    "missing file": (lambda files: files.pop(COUGH), "eval_0002_0_Cough.wav: found no such file in the zip"),
    "file that is not listed": (put(f"{OUT}/eval_0001_0_Pour.wav", wav()), "eval_0001_0_Pour.wav: found no entry"),
    "missing soundscape": (
        without_a_soundscape,
        "eval_0001: found no such soundscape, expected one entry, with an empty",
    ),
    "label unlike the file's": (another_label, "found label Pour, expected that of the file's name"),
    "probability": (no_number, "found probability 1.5, expected 0 to 1"),
    "no list of results": (lambda files: files.pop(EVAL), r"eval_results\.json: found no such file"),
    "no JSON": (put(TEST, "{"), r"dev_set_test_results\.json: found no JSON"),
    "no parameters": (lambda files: files[TEST].pop("nparams"), "found no key nparams"),
    "test soundscape left out": (
        lambda files: files[TEST]["details"].pop(),
        "t_1: found no entry, expected one for each",
    ),
    "labels not padded": (two_labels, "t_0: est_labels: found 2 values, expected 3, padded with silence"),
    "figures unlike the details": (better_mean, "CAPI-SDRi.mean: found 9.5, expected 8.5, the mean of the details"),
    "source accuracy unlike the details": (
        lambda files: files[TEST]["label_metrics"].update(accuracy_src=75.0),
        "accuracy_src: found 75, expected 50, the mean of the details",
    ),
    "no number": (put(TEST, '{"nparams": NaN}'), r"found no JSON \(NaN for a number\)"),
    "a figure in words": (value_of("CAPI-SDRi", "8.5"), 't_0: CAPI-SDRi: found "8.5", expected a number or null'),
    "no counts": (value_of("label_metrics", {"acc": True}), "t_0: label_metrics: found no key tp"),
    "a count in words": (value_of("label_metrics", {"acc": 1, "tp": 1, "fp": 0, "fn": 0}), "expected true or false"),
    "a probability in words": (
        lambda files: files[TEST]["details"][0].update(probabilities=[0.9, "high", 0]),
        't_0: probabilities: found "high", expected numbers from 0 to 1',
    ),
    "a list for a label": (
        lambda files: files[TEST]["details"][0].update(est_labels=[["Cough"], "silence", "silence"]),
        "t_0: est_labels: found label",
    ),
    "no configuration": (lambda files: files[EVAL].pop("config"), r"eval_results\.json: found no key config"),
    "other files": (put(f"{FOLDER}/notes.txt", b"x"), "found a file that does not belong there"),
    "path outside": (put("../evil.wav", wav()), r"\.\./evil\.wav: found a file that does not belong there"),
    "audio beside the folder": (
        lambda files: files.__setitem__("eval_out/eval_0002_0_Cough.wav", files.pop(COUGH)),
        r"^eval_out/eval_0002_0_Cough\.wav: found a file that does not belong there, expected Nguyen_NTT_task4_1/",
    ),
    "results beside the folder": (
        lambda files: files.__setitem__("eval_results.json", files.pop(EVAL)),
        r"^eval_results\.json: found a file that does not belong there",
    ),
    "a key twice": (put(TEST, '{"nparams": 1, "nparams": 2}'), r"found no JSON \(key nparams 2 times\)"),
    "brackets without end": (put(EVAL, "[" * 100_000), r"eval_results\.json: found no JSON"),
    "a test soundscape without a name": (
        lambda files: files[TEST]["details"][0].update(soundscape=" "),
        r"details\.0: found soundscape , expected one of the development set's test part",
    ),
    "metrics twice": (
        lambda files: files[TEST]["details"][0]["metrics"].append({"metric": "CAPI-SDRi", "value": 9.5}),
        "t_0: metrics: found CAPI-SDRi, label_metrics, CAPI-SDRi, expected CAPI-SDRi and label_metrics, once each",
    ),
    "fewer parameters than none": (
        lambda files: files[EVAL].update(nparams=-1),
        "key nparams: found -1, expected the num",
    ),
}


def counted(key, value):
    """Changes a count of the first soundscape, with right labels, or of the second, with a missed source."""

    def change(files):
        entry = files[TEST]["details"][0 if key in ("tp", "fp") else 1]
        next(m for m in entry["metrics"] if m["metric"] == "label_metrics")["value"][key] = value

    return change


BROKEN |= {
    f"{key} unlike the labels": (
        counted(key, value),
        f"{utt}: label_metrics: {key}: found {json.dumps(value)}, expected {expected}, by the labels",
    )
    for key, value, utt, expected in (
        ("tp", 2, "t_0", "1"),
        ("fp", -1, "t_0", "0"),
        ("fn", 0, "t_1", "1"),
        ("acc", True, "t_1", "false"),
    )
}


def test_a_submission_is_sound_whose_accuracies_are_those_of_its_labels(tmp_path):
    files = baseline()
    files[TEST]["details"][1]["metrics"][1]["value"] = {"acc": True, "tp": 1, "fp": 0, "fn": 0}
    files[TEST]["label_metrics"] = {"accuracy_mix": 100.0, "accuracy_src": 100.0}
    found = check_submission(write(tmp_path / f"{FOLDER}.zip", files), rules())
    assert [line.partition(":")[0] for line in found] == ["dev_set_test_results.json"] * 3
    assert all("t_1: label_metrics: " in line for line in found)


def places(tree, path=()):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


WRONG = (None, True, 3, -1.5, 10**400, "x", "\ud800", [], ["x"], [[]], {}, {"x": 1}, [None, {}])
AS_THEY_ARE = ("config", "nparams")


@pytest.mark.parametrize("document", [EVAL, TEST])
def test_a_value_of_another_type_in_any_place_is_told_and_no_fault(tmp_path, document):
    """Puts a value of every type into every field of both documents."""
    sound = baseline()
    for place in [path for path in places(sound[document]) if path[0] not in AS_THEY_ARE]:
        for value in WRONG:
            files = {**sound, document: copy.deepcopy(sound[document])}
            parent = files[document]
            for key in place[:-1]:
                parent = parent[key]
            before, parent[place[-1]] = parent[place[-1]], value
            found = check_submission(write(tmp_path / f"{FOLDER}.zip", files), rules())
            assert all("\n" not in line and line.encode() for line in found)
            # A figure of a soundscape may be null, or any number if it alone determines the mean.
            figure = place[-2:] == (0, "value") and (value is None or type(value) in (int, float))
            assert found or figure or (type(value) is type(before) and value == before), (place, value)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_told_with_its_reason(tmp_path, name):
    change, reason = BROKEN[name]
    files = baseline()
    change(files)
    found = check_submission(write(tmp_path / f"{FOLDER}.zip", files), rules())
    assert any(re.search(reason, line) for line in found), found
    assert all("\n" not in line for line in found)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Nguyen_NTT_1.zip", "found another name, expected <Author>_<Affiliation>_task4_<n>_out.zip"),
        ("Nguyen_NTT_task4_5.zip", "found submission number 5, expected 1 to 4"),
        ("Other_NTT_task4_1.zip", "found Nguyen_NTT_task4_1 in it, expected the folder Other_NTT_task4_1"),
    ],
)
def test_the_name_of_the_zip_counts(tmp_path, name, reason):
    assert any(reason in line for line in check_submission(write(tmp_path / name, baseline()), rules()))


def test_the_rules_of_2025(tmp_path):
    folder = "A_B_task4_1_out/eval_out"
    files = {f"{folder}/{name}": wav() for name in ("a_Speech.wav", "a_Cough.wav", "b_Speech.wav")}
    year = Rules({"a": N, "b": N}, year=2025, fs=FS)
    assert check_submission(write(tmp_path / "A_B_task4_1_out.zip", files), year) == []
    del files[f"{folder}/b_Speech.wav"]
    found = check_submission(write(tmp_path / "A_B_task4_1_out.zip", files), year)
    assert found == ["b: found no file, expected 1 to 3"]


def test_damaged_content_is_refused(tmp_path):
    path = tmp_path / "A_B_task4_1_out.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("A_B_task4_1_out/eval_out/a_Speech.wav", wav() * 4)
        info = archive.infolist()[0]
    content = bytearray(path.read_bytes())
    begin = info.header_offset + 30 + len(info.filename)
    content[begin : begin + 20] = b"\xff" * 20
    path.write_bytes(content)
    with pytest.raises(InputError, match="found a damaged file"):
        check_submission(path, Rules({"a": N}, year=2025, fs=FS))


def test_what_is_no_zip_is_refused(tmp_path):
    (tmp_path / "A_B_task4_1_out.zip").write_text("hello")
    with pytest.raises(InputError, match="found a damaged file"):
        check_submission(tmp_path / "A_B_task4_1_out.zip", rules())


def test_the_names_of_the_official_evaluation_set():
    names = list(evaluation_names())
    assert (names[0], names[-1], len(names)) == ("eval_0000", "eval_2566", 2567)


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A system's results on an evaluation set of three mixtures, and its scores on a test set."""
    monkeypatch.chdir(tmp_path)
    for folder in ("data/eval", "exp/tiny/eval/estimates", "exp/tiny/test"):
        (tmp_path / folder).mkdir(parents=True)
    for utt, labels in UTTS.items():
        (tmp_path / f"data/eval/{utt}.wav").write_bytes(wav(channels=4))
        for slot, label in enumerate(labels):
            (tmp_path / f"exp/tiny/eval/estimates/{utt}_{slot}_{label}.wav").write_bytes(wav())
    (tmp_path / "data/eval/wav.scp").write_text("".join(f"{u} data/eval/{u}.wav\n" for u in UTTS))
    lines = {u: " ".join([u, *labels]) for u, labels in UTTS.items()}
    (tmp_path / "exp/tiny/eval/final_labels").write_text("".join(f"{line}\n" for line in lines.values()))
    shares = "".join(f"{u}{' 0.5' * len(labels)}\n" for u, labels in UTTS.items())
    (tmp_path / "exp/tiny/eval/final_probabilities").write_text(shares)
    rows = [
        {"utt": "t_0", "ref_labels": ["Cough"], "est_labels": ["Cough"], "probabilities": [0.9], "CAPI-SDRi": 2.0},
        {"utt": "t_1", "ref_labels": [], "est_labels": [], "probabilities": [], "CAPI-SDRi": None},
    ]
    rows = [{**row, "pairs": [], "tp": len(row["ref_labels"]), "fp": 0, "fn": 0} for row in rows]
    metrics = {"CAPI-SDRi": 2.0, "accuracy_mix": 100.0, "accuracy_src": 100.0}
    scores = {"mixtures": rows, "metrics": metrics, "oracle_labels": False}
    (tmp_path / "exp/tiny/test/scores.json").write_text(json.dumps(scores))
    (tmp_path / "tiny.yaml").write_text("taggers: {t: {train: t.yaml}}\nseparators: {s: {train: s.yaml}}\n")
    (tmp_path / "me.yaml").write_text(yaml.safe_dump(AUTHORS))
    return tmp_path


def make(labels=None):
    details = Details.load("me.yaml")
    arguments = ("tiny.yaml", "data/eval", "exp/tiny/eval", "exp/tiny/test/scores.json", 1234, "submission")
    return make_submission(details, *arguments, labels or LabelSet())


def test_what_is_made_keeps_the_rules(results, capsys):
    path = make()
    assert path.name == "Muller_TU_task4_2_out.zip"
    options = ["--soundscapes", "data/eval", "--sampling_rate", str(FS)]
    command.main([str(path), *options])
    assert "a valid submission" in capsys.readouterr().out
    with zipfile.ZipFile(path) as archive:
        folder = "Muller_TU_task4_2_out"
        content = archive.read(f"{folder}/eval_out/eval_0000_1_Speech.wav")
        assert content == (results / "exp/tiny/eval/estimates/eval_0000_1_Speech.wav").read_bytes()
        evaluation = json.loads(archive.read(f"{folder}/eval_results.json"))
        test = json.loads(archive.read(f"{folder}/dev_set_test_results.json"))
    assert evaluation["nparams"] == 1234
    assert [entry["soundscape"] for entry in evaluation["probabilities"]] == list(UTTS)
    first = evaluation["probabilities"][0]["estimate"][0]
    assert first == {"filename": "eval_0000_0_Speech.wav", "label": "Speech", "probability": 0.5}
    assert evaluation["probabilities"][1]["estimate"] == []
    assert test["CAPI-SDRi"] == {"mean": 2.0} and test["details"][0]["est_labels"] == ["Cough", "silence", "silence"]
    assert test["details"][1]["metrics"][0] == {"metric": "CAPI-SDRi", "value": None}
    meta = yaml.safe_load((results / "submission/Muller_TU_task4_2.meta.yaml").read_text())
    assert (
        meta["submission"]["label"] == "Muller_TU_task4_2" and meta["system"]["complexity"]["total_parameters"] == 1234
    )
    assert meta["results"]["development_test"]["CAPI-SDRi"] == 2.0
    assert meta["system"]["description"] == AUTHORS["system"]["description"]


def test_the_same_results_make_the_same_zip_and_addresses_gather(results):
    first = make().read_bytes()
    assert make().read_bytes() == first
    other = {**AUTHORS, "submission": {**AUTHORS["submission"], "number": 1}}
    (results / "me.yaml").write_text(yaml.safe_dump(other))
    make()
    lines = (results / "submission/Muller_TU_task4.audio_url.txt").read_text().splitlines()
    assert lines == [f"Muller_TU_task4_{n}_out.zip https://example.org/out.zip" for n in (1, 2)]


def test_estimates_that_are_missing_are_named(results):
    (results / "exp/tiny/eval/estimates/eval_0002_0_Cough.wav").unlink()
    with pytest.raises(InputError, match=r"eval_0002_0_Cough\.wav: found no such file"):
        make()
    assert not (results / "submission").exists() or not list((results / "submission").glob("*.zip"))


def test_scores_with_true_labels_are_not_submitted(results):
    scores = json.loads((results / "exp/tiny/test/scores.json").read_text())
    (results / "exp/tiny/test/scores.json").write_text(json.dumps({**scores, "oracle_labels": True}))
    with pytest.raises(InputError, match="found scores with the true labels"):
        make()


def test_the_form_names_what_it_lacks():
    with pytest.raises(InputError) as error:
        Details.load(ROOT / "conf/submission.yaml")
    missing = (
        "submission.name, submission.abbreviation, submission.authors.0.lastname, submission.authors.0.firstname, "
    )
    missing += "submission.authors.0.email, submission.authors.0.affiliation.abbreviation, "
    missing += (
        "submission.authors.0.affiliation.institute, submission.authors.0.affiliation.location, submission.audio_url"
    )
    assert f"found nothing under {missing}, expected a value" in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number": 5}, r"key submission\.number: found 5, expected 1 to 4"),
        ({"abbreviation": "much too long"}, "expected at most 10 characters"),
        ({"audio_url": "out.zip"}, "expected an address"),
        ({"autors": []}, r"key submission\.autors: found an unknown key, expected authors"),
        ({"authors": AUTHORS["submission"]["authors"][:1]}, "found 0 corresponding authors, expected one"),
    ],
)
def test_a_wrong_form_is_refused(tmp_path, change, message):
    data = {**AUTHORS, "submission": {**AUTHORS["submission"], **change}}
    (tmp_path / "me.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(InputError, match=message):
        Details.load(tmp_path / "me.yaml")
