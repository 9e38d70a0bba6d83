"""Additional sounds are kept, left out and converted as the challenge's scripts do it."""

import json
import zlib

import numpy as np
import pytest
import soundfile

from s5.challenge.corpus import additions
from s5.challenge.corpus.additions import Item, convert, items_of, judge, statuses, summary
from s5.challenge.corpus.config import Addition, Corpus, KeepRules
from s5.utils.errors import InputError


@pytest.fixture(scope="session")
def corpus(replicas):
    return Corpus.load(replicas.RECIPES / "dcase2026_task4/conf/data.yaml")


@pytest.fixture(scope="session")
def converted(corpus, replica, tmp_path_factory):
    """Folder of all converted additions of the replica, and counts by addition."""
    out, counts = tmp_path_factory.mktemp("added"), {}
    folders = {"semantic_hearing": replica / "BinauralCuratedDataset", "ears": replica / "EARS"}
    for addition in corpus.additions:
        counts[addition.name] = convert(
            addition.name, items_of(addition, folders[addition.part], replica / "dev_set"), out, corpus.keep
        )
    return out, counts


def test_statuses_and_samples_are_those_of_the_official_scripts(converted, golden):
    out, counts = converted
    official = json.loads((golden / "additions.json").read_text())
    for name in ("FSD50K", "EARS"):
        found = statuses(name, out)
        assert found == {path: entry["status"] for path, entry in official[name].items()}
        for path, entry in official[name].items():
            assert (out / path).exists() == ("samples" in entry)
            if "samples" not in entry:
                continue
            audio, rate = soundfile.read(out / path, dtype="int16")
            assert (rate, len(audio), soundfile.info(out / path).subtype) == (32000, entry["samples"], "PCM_16")
            if "crc32" in entry:
                assert zlib.crc32(audio.tobytes()) == entry["crc32"]
            else:  # another build of the resampler may round differently
                assert np.abs(audio[1000:3000:250].astype(int) - entry["some"]).max() <= 1
    assert dict(counts["interference"]) == official["interference"]


def test_all_statuses_occur(converted):
    found = set(converted[1]["FSD50K"])
    assert found == {
        *("remove_low_amplitude", "remove_too_short", "remove_too_short_after_trim"),
        *("remove_contain_low_amplitude_segment", "selected", "selected_trim"),
        *("selected_resampled", "selected_trim_resampled"),
    }


def test_only_listed_classes_come_as_interference(converted, corpus):
    out, _ = converted
    for split in ("train", "valid"):
        names = sorted(p.name for p in (out / "interference" / split).iterdir())
        assert names == sorted(corpus.additions[-1].classes)
        assert len(names) == 94


@pytest.mark.parametrize("seed", range(20))
def test_quiet_segments_are_found_as_by_looking_at_each(seed):
    rng = np.random.default_rng(seed)
    audio = 0.01 * rng.standard_normal(3000)
    for at in rng.integers(0, 3000, rng.integers(2, 12)):
        audio[at] = 0.5
    n, shift = 1000, int(rng.integers(1, 40))
    slowly = any(np.abs(audio[s : s + n]).max() < 0.1 for s in range(0, len(audio) - n + 1, shift))
    assert additions._has_quiet_segment(audio, n, shift, 0.1) == slowly


def test_thresholds_are_inclusive():
    rules = KeepRules(peak=0.25, min_seconds=0.1)
    loud = np.full(100, 0.25, np.float32)
    assert judge(loud, 1000, rules)[0] == "selected"
    assert judge(loud[:99], 1000, rules)[0] == "remove_too_short"
    assert judge(np.nextafter(loud, 0), 1000, rules)[0] == "remove_low_amplitude"


def test_second_run_does_nothing_and_a_cut_one_goes_on(tmp_path, replica, corpus):
    addition = corpus.additions[1]
    items = items_of(addition, replica / "EARS", replica / "dev_set")
    counts = convert("EARS", items, tmp_path, corpus.keep)
    files = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.wav")}
    assert convert("EARS", items, tmp_path, corpus.keep) == counts
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.wav")} == files
    # Killed while writing: the log's last line is cut off although its file exists; another file is missing.
    log = tmp_path / ".EARS.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:20])
    gone = next(iter(files))
    gone.unlink()
    assert convert("EARS", items, tmp_path, corpus.keep) == counts
    assert set(tmp_path.rglob("*.wav")) == set(files)
    assert json.loads((tmp_path / "EARS.json").read_text()) == summary(counts)
    # Other rules: everything is converted again.
    assert convert("EARS", items, tmp_path, KeepRules(min_seconds=0.05))["remove_too_short"] == 0


def test_processes_make_the_same(tmp_path, replica, corpus, converted):
    items = items_of(corpus.additions[1], replica / "EARS", replica / "dev_set")
    convert("EARS", items, tmp_path, corpus.keep, nj=2)
    for path in tmp_path.rglob("*.wav"):
        assert path.read_bytes() == (converted[0] / path.relative_to(tmp_path)).read_bytes()


def test_missing_and_broken_sources_are_named(tmp_path):
    good = tmp_path / "good.wav"
    soundfile.write(good, np.full(4000, 0.5), 8000)
    items = [Item(str(good), "a.wav"), Item(str(tmp_path / "no.wav"), "b.wav")]
    with pytest.raises(InputError, match=r"X: .*no\.wav: found no file, expected the 2 files"):
        convert("X", items, tmp_path / "out", KeepRules())
    (tmp_path / "no.wav").write_bytes(b"no audio")
    with pytest.raises(InputError, match=r"X: .*no\.wav: found a file that libsndfile cannot read"):
        convert("X", items, tmp_path / "out", KeepRules())
    assert (tmp_path / "out/a.wav").exists()  # the others are kept
    soundfile.write(tmp_path / "no.wav", np.full(4000, 0.5), 8000)
    assert convert("X", items, tmp_path / "out", KeepRules()) == {"selected_resampled": 2}


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([{"file_name": "../a.wav", "convert_path": "train/a.wav"}], r"\[0\]\.file_name: found '\.\./a\.wav'"),
        ([{"file_name": "a.wav", "convert_path": "/train/a.wav"}], r"\[0\]\.convert_path"),
        ([{"file_name": "a.wav"}], r"\[0\]\.convert_path: found None"),
        ([{"file_name": "a.wav", "convert_path": "t/a"}] * 2, r"\[1\]\.convert_path: found t/a twice"),
        ({"a": 1}, "a JSON dict"),
    ],
)
def test_bad_lists_of_picks(tmp_path, rows, complaint):
    (tmp_path / "picks.json").write_text(json.dumps(rows))
    addition = Addition("X", "p", "sound_event", picks="picks.json")
    with pytest.raises(InputError, match=complaint):
        items_of(addition, tmp_path, tmp_path)


def test_class_without_folder(tmp_path):
    addition = Addition("X", "p", "interference", classes=["Rain"], splits={"val": "valid"})
    with pytest.raises(InputError, match=r"val/Rain: found No such file"):
        items_of(addition, tmp_path, tmp_path)
