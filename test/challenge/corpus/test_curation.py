"""Tests of the curation of the training events: removed and added files, and their counts."""

import numpy as np
import pytest
import soundfile

from s5.challenge.corpus.curation import (
    Curation,
    External,
    counts_table,
    curate,
    external_items,
    read_drop_list,
    read_manifest,
)
from s5.utils.errors import InputError

LABELS = ("Doorbell", "Speech")


@pytest.fixture
def files(tmp_path):
    """File by path below sound_event/train; the names contain the lengths."""
    out = {}
    for label in LABELS:
        for seconds in ("0.5", "1.499", "1.5", "2.0", "3.0"):
            path = tmp_path / label / f"{seconds}.wav"
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, np.full(int(float(seconds) * 1000), 0.1), 1000)
            out[f"{label}/{seconds}.wav"] = str(path)
    return out


def listed(tmp_path, text):
    (tmp_path / "drop.txt").write_text(text)
    return str(tmp_path / "drop.txt")


def test_short_and_listed_events_leave(tmp_path, files):
    drop = listed(tmp_path, "# heard\nSpeech/2.0.wav\ta dog\n\nSpeech/0.5.wav\tshort anyway\n")
    found = curate(files, Curation(min_duration=1.5, drop=[drop]), {})
    assert sorted(found.files) == [
        *("Doorbell/1.5.wav", "Doorbell/2.0.wav", "Doorbell/3.0.wav"),
        *("Speech/1.5.wav", "Speech/3.0.wav"),
    ]
    # A short file is not counted as listed, so that a row adds up, as in the report's table.
    assert (found.short["Speech"], found.listed["Speech"]) == (2, 1)


def test_external_events_join_and_the_table_adds_up(tmp_path, files):
    external = {"Doorbell/new.wav": files["Doorbell/3.0.wav"], "Doorbell/short.wav": files["Doorbell/0.5.wav"]}
    rules = Curation(min_duration=1.5, drop=[listed(tmp_path, "Doorbell/3.0.wav")])
    found = curate(files, rules, external)
    assert "Doorbell/new.wav" in found.files
    assert "Doorbell/short.wav" not in found.files
    table = counts_table(found, LABELS, 1.5).splitlines()
    assert table[0] == "| Class | Original count | Under 1.5 s | Listed | Added | Final count |"
    assert table[2:] == [
        "| Doorbell | 5 | 2 | 1 | 1 | 3 |",
        "| Speech | 5 | 2 | 0 | 0 | 3 |",
        "| all | 10 | 4 | 1 | 1 | 6 |",
    ]
    assert sum(path.startswith("Doorbell/") for path in found.files) == 3


def test_without_rules_all_stay(files):
    assert curate(files, Curation(), {}).files == files


def test_external_event_does_not_replace_one(files):
    with pytest.raises(InputError, match=r"Speech/2\.0\.wav in the training events"):
        curate(files, Curation(), {"Speech/2.0.wav": files["Speech/3.0.wav"]})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("# x\nSpeech/2.0.wave\n", r"drop\.txt:2: found Speech/2\.0\.wave, expected Speech/2\.0\.wav"),
        ("Speech/2.0.wav\nSpeech/2.0.wav\tb\n", r"drop\.txt:2: found Speech/2\.0\.wav twice"),
        ("zzz\n", r"expected a file below sound_event/train"),
    ],
)
def test_bad_lists_are_named_with_their_line(tmp_path, files, text, complaint):
    with pytest.raises(InputError, match=complaint):
        read_drop_list(listed(tmp_path, text), files)


def manifest(tmp_path, text, **more):
    (tmp_path / "audioset.csv").write_text(text)
    (tmp_path / "clips").mkdir(exist_ok=True)
    return External(str(tmp_path / "audioset.csv"), str(tmp_path / "clips"), **more)


def test_clips_by_any_of_the_usual_names(tmp_path):
    external = manifest(tmp_path, "id,start,label\n--aE2,30,Doorbell\nb_1,7.5,Speech\nc,0,Speech\n")
    for name in ("--aE2_30.wav", "b_1_7500.flac", "Yc.wav"):
        soundfile.write(tmp_path / "clips" / name, np.full(800, 0.5), 8000)
    items = external_items(external, LABELS, "sound_event/train")
    assert [item.target.removeprefix("sound_event/train/") for item in items] == [
        *("Doorbell/audioset_--aE2_30.wav", "Speech/audioset_b_1_7.5.wav", "Speech/audioset_c_0.wav")
    ]
    assert all(item.start is None for item in items)


def test_cut_clips_take_their_part_of_the_file(tmp_path):
    from s5.challenge.corpus.additions import Convert
    from s5.challenge.corpus.config import KeepRules

    external = manifest(tmp_path, "id,start,end,label\na,1,1.5,Speech\n", cut=True, names=["{id}"])
    ramp = np.repeat([0.1, 0.2, 0.3, 0.4], 4000)
    soundfile.write(tmp_path / "clips/a.wav", ramp, 8000, subtype="FLOAT")
    (item,) = external_items(external, LABELS, "train")
    assert Convert(str(tmp_path / "out"), KeepRules(sampling_rate=8000))(item) == "selected"
    audio, _ = soundfile.read(tmp_path / "out" / item.target)
    assert len(audio) == 4000
    np.testing.assert_allclose(audio, 0.3, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "more", "complaint"),
    [
        ("id,label\n", {}, "a header with start"),
        ("id,start,label\n../x,1,Speech\n", {}, r"audioset\.csv:2: id: found '\.\./x'"),
        ("id,start,label\nx,1,Spech\n", {}, r"csv:2: label: found Spech, expected Speech"),
        ("id,start,label\nx,one,Speech\n", {}, "csv:2: start: found 'one'"),
        ("id,start,label\nx,1,Speech\nx,1,Speech\n", {}, "csv:3: found clip x 1 twice"),
        ("id,start,label\nx,1,Speech\n", {"cut": True}, "a header with end"),
        ("id,start,end,label\nx,5,5,Speech\n", {"cut": True}, r"csv:2: end: found 5, expected more than start \(5\)"),
    ],
)
def test_bad_manifests_are_named_with_their_line(tmp_path, text, more, complaint):
    with pytest.raises(InputError, match=complaint):
        read_manifest(manifest(tmp_path, text, **more), LABELS)


def test_clip_without_audio(tmp_path):
    with pytest.raises(InputError, match=r"csv:2: found no audio in .*, expected x_1 or x_1000 or Yx or x"):
        external_items(manifest(tmp_path, "id,start,label\nx,1,Speech\n"), LABELS, "train")


def test_unknown_key_and_placeholder(tmp_path):
    (tmp_path / "r.yaml").write_text("min_durations: 1.5\n")
    with pytest.raises(InputError, match="min_duration"):
        Curation.load(tmp_path / "r.yaml")
    with pytest.raises(InputError, match=r"found \{name\}"):
        External("a", "b", ["{name}"])
