"""Systems: the YAML and the Python API on one small trained system."""

import dataclasses
import re

import numpy as np
import pytest
import soundfile

from s5 import DecodeConfig, S5System
from s5.data import whole_numbers
from s5.fusion import CandidateConfig, GateConfig, RefineConfig, Vote
from s5.inference import stages
from s5.system.config import SystemConfig, system_name
from s5.utils.config import load_inherited
from s5.utils.errors import InputError

GOOD = "taggers: {a: {train: a.yaml}}\nseparators: {b: {train: b.yaml}}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "vote: {gama: 1}\n", r"key vote\.gama: found an unknown key, expected gamma"),
        (GOOD.replace("train: a", "trian: a"), r"key taggers\.a: key trian: found an unknown key, expected train"),
        (GOOD.replace("{train: a.yaml}", "{}"), r"key taggers\.a\.train: found nothing, expected a training YAML"),
        (GOOD.replace("{train: a.yaml}", "null"), "key taggers: found none, expected at least one model"),
        ("taggers: [{name: a, train: a.yaml}]\n", "key taggers: found .*, expected a mapping by name"),
        (GOOD.replace("{train: a", "{name: a, train: a"), r"key taggers\.a: key name: found a, expected none"),
        (GOOD.replace("{b:", "{a:"), "key name: found a twice"),
        (GOOD + "fusion: {classes: {Cough: {bb: 0.1}}}\n", r"key fusion: Cough: found separator bb, expected b"),
        (GOOD + "fusion: {groups: [{labels: [Cough], weights: {bb: 1}}]}\n", r"key fusion: Cough: found separator bb"),
        (GOOD + "fusion: {default: {b: loud}}\n", r"key fusion\.default\.b: found 'loud', expected"),
        (GOOD + "fusion: {sharpen: {a: 1}}\n", r"key fusion: sharpen: found separator a, expected"),
        (GOOD + "vote: {weights: {b: 1}}\n", r"key vote: weights: found tagger b, expected"),
        (GOOD + "vote: {weights: {a: 0}}\n", r"weights of the taggers: found zeros only"),
        (GOOD + "vote: {rule: veto}\n", r"key vote\.rule: found 'veto', expected 'vote' or 'average'"),
        (GOOD + "vote: {gamma: -1}\n", r"gamma: found -1\.0, expected 0 or more"),
        (GOOD + "gate: {taggers: [clap]}\n", r"key gate: taggers: found tagger clap, expected"),
        (GOOD + "refine: {loops: 0}\n", r"found loops 0"),
        (
            GOOD + "refine: {candidates: {tops: 3}}\n",
            r"key refine\.candidates\.tops: found an unknown key, expected top",
        ),
        (GOOD + "models: {c: {train: c.yaml}}\n", r"key models: found an unknown key"),
    ],
)
def test_bad_systems_are_refused_by_key(tmp_path, text, message):
    (tmp_path / "system.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        SystemConfig.load(tmp_path / "system.yaml")
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_the_last_phase_is_decoded_with(tmp_path):
    (tmp_path / "system.yaml").write_text(GOOD.replace("train: a.yaml", "train: a.yaml, finetune: c.yaml"))
    kind, model = SystemConfig.load(tmp_path / "system.yaml").find("a")
    assert (kind, model.folder(), model.folder("train")) == ("tagger", "a_ft", "a")


def test_models_of_an_inherited_system_are_merged_by_name_and_a_null_takes_one_away(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "taggers:\n  a: {train: a.yaml, weight: 0.4}\n  c: {train: c.yaml}\nseparators: {b: {train: b.yaml}}\n"
    )
    (tmp_path / "own.yaml").write_text(
        "inherit: base.yaml\n"
        "taggers: {a: {finetune: a2.yaml}, c: null, d: {train: d.yaml}}\n"
        "vote: {weights: {d: 0.7}}\n"
    )
    config = SystemConfig.load(tmp_path / "own.yaml")
    assert [m.name for m in config.taggers] == ["a", "d"] and config.weights() == {"a": 0.4, "d": 0.7}
    assert (config.taggers[0].files("finetune"), config.taggers[0].folder()) == (["a.yaml", "a2.yaml"], "a_ft")


def test_what_several_files_inherit_goes_behind_all_of_them(tmp_path):
    (tmp_path / "base.yaml").write_text("a: 1\nb: 1\nc: 1\n")
    (tmp_path / "left.yaml").write_text("inherit: base.yaml\na: 2\nb: 2\n")
    (tmp_path / "right.yaml").write_text("inherit: base.yaml\na: 3\n")
    (tmp_path / "top.yaml").write_text("inherit: [left.yaml, right.yaml]\n")
    assert load_inherited(tmp_path / "top.yaml") == {"a": 3, "b": 2, "c": 1}


def test_weights_of_a_class_go_before_those_of_its_group(tmp_path):
    (tmp_path / "system.yaml").write_text(
        GOOD + "fusion:\n  groups: [{labels: [Cough, Pour], weights: {b: 0.5}}]\n  classes: {Pour: {b: 0.9}}\n"
    )
    rules = SystemConfig.load(tmp_path / "system.yaml").fusion.rules()
    assert rules == {"Cough": {"b": 0.5}, "Pour": {"b": 0.9}}


def test_names_of_systems_tell_their_folder():
    assert system_name("/x/systems/conf/systems/deng2026/final.yaml:mini") == "deng2026_final_mini"


@pytest.fixture(scope="session")
def system(trained) -> S5System:
    return S5System.from_yaml(trained.parent / "system.yaml", trained, "cpu")


class Loud(S5System):
    """A system in whose vote silence never wins: a few training steps say silence everywhere."""

    def tag(self, mixture):
        return {name: p * ([1] * (p.shape[-1] - 1) + [0]) for name, p in super().tag(mixture).items()}


def loud(system, **changes):
    return Loud(dataclasses.replace(system.config, **changes), system.expdir, "cpu")


def windowed(system, window, overlap=0.25, batch_size=None):
    """The system with windows of so many seconds."""
    decode = DecodeConfig(window=window, overlap=overlap, batch_size=batch_size)
    return type(system)(system.config, system.expdir, "cpu", decode=decode)


def noise(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_an_array_in_a_list_of_sources_out(system):
    sources = loud(system)(noise(4, 16000), 8000)
    assert len(sources) == 3
    for source in sources:
        assert source.label in ("Cough", "Percussion", "Speech") and 0 <= source.probability <= 1
        assert source.waveform.shape == (16000,) and source.waveform.any()


def test_another_sampling_rate_goes_there_and_back(system):
    assert {s.waveform.shape for s in loud(system)(noise(4, 44101), 44100)} == {(44101,)}


def test_a_batch_gives_what_single_calls_give(system):
    mixtures = noise(3, 4, 8000)
    mixtures[1] = 0
    one_by_one = [loud(system)(mixture, 8000) for mixture in mixtures]
    together = loud(system).batch(list(mixtures), 8000)
    for single, batch in zip(one_by_one, together, strict=True):
        assert [s.label for s in single] == [s.label for s in batch]
        for a, b in zip(single, batch, strict=True):
            assert a.probability == pytest.approx(b.probability, abs=1e-4)
            np.testing.assert_allclose(a.waveform, b.waveform, atol=1e-4)
    assert loud(system).batch([], 8000) == []
    with pytest.raises(InputError, match=r"\[4, 7999\] and \[4, 8000\], expected one shape"):
        loud(system).batch([mixtures[0], mixtures[1][:, 1:]], 8000)


def test_bfloat16_is_near_float32(system):
    mixture = noise(4, 16000)
    single = loud(system)(mixture, 8000)
    half = Loud(system.config, system.expdir, "cpu", decode=DecodeConfig(precision="bf16"))
    tables = [s.tag(mixture)["tagger"] for s in (loud(system), half)]
    np.testing.assert_allclose(*tables, atol=0.02)
    labels = [s.label for s in single]
    sources = [s.separate(mixture, labels)["separator"] for s in (loud(system), half)]
    error = np.square(sources[0] - sources[1]).mean() / np.square(sources[0]).mean()
    assert 0 < error < 1e-3


def test_the_channels_that_are_needed_are_the_most_that_a_model_takes(system):
    assert [m.n_channels for m in system.taggers.values()] == [1]
    assert system.n_channels == 4


def test_very_short_recordings_work(system):
    for n in (1, 2, 3, 20, 300):
        for fs in (8000, 44100):
            assert {s.waveform.shape for s in loud(system)(noise(4, n), fs)} == {(n,)}


@pytest.mark.parametrize(
    ("shape", "value", "message"),
    [
        ((16000, 4), 0, "shape"),
        ((16000,), 0, "shape"),
        ((4, 16000), np.nan, "NaN"),
        ((2, 16000), 0, "2 channels, expected 4"),
        ((5, 16000), 0, "5 channels, expected 4"),
    ],
)
def test_mixtures_that_do_not_fit_are_refused(system, shape, value, message):
    with pytest.raises(InputError, match=message):
        loud(system)(np.full(shape, value, np.float32), 8000)


def test_samples_that_are_not_floating_point_and_rates_that_are_none_are_refused(system):
    with pytest.raises(InputError, match="samples of type int16, expected floating point"):
        loud(system)(np.zeros((4, 16000), np.int16), 8000)
    with pytest.raises(InputError, match="fs: found 0, expected a sampling rate"):
        loud(system)(noise(4, 16000), 0)
    with pytest.raises(InputError, match="fs: found nan, expected a sampling rate"):
        loud(system)(noise(4, 16000), float("nan"))


@pytest.mark.parametrize("device", ["gpu", "cuda:77", "meta", "hpu", ""])
def test_devices_that_this_machine_lacks_are_refused_before_anything_is_loaded(system, device):
    with pytest.raises(
        InputError, match=f"device: found {device}, on which torch cannot compute here, expected one of cpu"
    ):
        S5System(system.config, "no such folder", device)


def test_fusion_rules_name_labels_that_there_are(system):
    fusion = dataclasses.replace(system.config.fusion, classes={"Spech": {"separator": 0.5}})
    with pytest.raises(InputError, match="found label Spech, expected Speech"):
        _ = loud(system, fusion=fusion).separators


# Gates and refinement through the whole system.


def test_a_gate_silences_slots(system):
    mixture = noise(4, 8000)
    sources = loud(system)(mixture, 8000)
    assert len(sources) == 3
    assert loud(system, gate=GateConfig(margin=-100))(mixture, 8000) == []
    levels = [10 * np.log10(np.square(s.waveform, dtype=np.float64).mean()) for s in sources]
    mixture_level = 10 * np.log10(np.square(mixture[0], dtype=np.float64).mean())
    margin = mixture_level - float(np.sort(levels)[1]) + 1e-3
    kept = loud(system, gate=GateConfig(margin=margin))(mixture, 8000)
    assert [s.label for s in kept] == [s.label for s, level in zip(sources, levels, strict=True) if level > min(levels)]


def test_the_clap_gate_asks_one_tagger_alone(system):
    posteriors = {"tagger": np.array([[0.5, 0.1, 0.1, 0.3], [0.1, 0.1, 0.1, 0.7], [0.4, 0.2, 0.1, 0.3]], np.float32)}
    outputs = {"separator": 0.1 * noise(3, 100)}
    voted = loud(system).vote(posteriors)
    assert voted.labels == ["Cough", "Cough"]
    np.testing.assert_array_equal(voted.silence["tagger"], posteriors["tagger"][[0, 2], 3])
    finish = (noise(4, 100), voted, outputs)
    gated = loud(system, gate=GateConfig(silence=0.2, taggers=["tagger"])).finish(*finish)
    assert (gated.labels, gated.gated) == ([], 2)
    assert loud(system, gate=GateConfig(silence=0.4)).finish(*finish).labels == ["Cough", "Cough"]
    with pytest.raises(InputError, match="key silence: found multi-hot taggers, which have no silence posterior"):
        loud(system, gate=GateConfig(silence=0.4)).finish(finish[0], Vote(["Speech"], [0.5]), outputs)
    given = Vote(["Cough", "Cough"], [1.0, 1.0], given=True)
    given = loud(system, gate=GateConfig(silence=0.2)).finish(finish[0], given, outputs)
    assert given.labels == ["Cough", "Cough"]  # labels that were given are final


def refined_by(system, **config):
    """A system's vote of a mixture, and what a refinement makes of it: system, labels, result."""
    refined, mixture = loud(system, refine=RefineConfig(**config)), noise(4, 8000)
    posteriors = refined.tag(mixture)
    vote = refined.vote(posteriors)
    outputs = refined.separate(mixture, vote.labels)
    with pytest.raises(InputError, match="posteriors: found none, expected those of all taggers"):
        refined.finish(mixture, vote, outputs)
    return refined, list(vote.labels), refined.finish(mixture, vote, outputs, posteriors)


@pytest.mark.parametrize("loops", [1, 2, 3])
def test_refinement_tags_separated_sources_again(system, loops):
    refined, labels, result = refined_by(system, disagreement="relabel", loops=loops)
    # By hand: a loop's labels are the top classes of the sources that it separates with those of the loop before.
    seen, done = [sorted(labels)], 0
    while done < loops:
        sources = refined.separate(noise(4, 8000), labels)["separator"]
        top = [refined.tag(np.repeat(s[None], 4, 0))["tagger"][:, :-1].max(0).argmax() for s in sources]
        labels, done = [system.labels.name(int(c)) for c in top], done + 1
        if sorted(labels) in seen:
            break
        seen.append(sorted(labels))
    assert (sorted(result.labels), result.counts.loops) == (sorted(labels), done)
    assert result.counts.changed == (sorted(labels) != seen[0])


def test_refinement_is_the_same_each_time(system):
    (_, _, first), (_, _, again) = (refined_by(system, disagreement="relabel", loops=3) for _ in range(2))
    assert again.labels == first.labels
    np.testing.assert_array_equal(again.sources, first.sources)


def test_a_verification_behind_a_gate_takes_the_sources_as_they_are(system):
    mixture = noise(4, 8000)
    plain = loud(system)(mixture, 8000)
    levels = sorted(10 * np.log10(np.square(s.waveform, dtype=np.float64).mean()) for s in plain)
    margin = 10 * np.log10(np.square(mixture[0], dtype=np.float64).mean()) - levels[1] + 1e-3
    both = loud(system, gate=GateConfig(margin=margin), refine=RefineConfig(separate_again=False, n_min=3))
    found = both(mixture, 8000)
    assert len(found) == 2
    for source in found:
        assert any(np.array_equal(source.waveform, before.waveform) for before in plain)


def test_correction_tries_candidates(system):
    """At a threshold of 0 every class is one: three labels are separated at a time, and each source is tagged once."""
    _, labels, result = refined_by(system, candidates=CandidateConfig(threshold=0.0), n_min=1)
    candidates = len(labels) + len(set(system.labels.names) - set(labels))
    assert result.counts.tagged == candidates > 3
    assert -(-candidates // 3) <= result.counts.queries <= -(-candidates // 3) + 1
    assert 1 <= len(result.labels) <= 3
    _, _, without = refined_by(system, candidates=CandidateConfig(threshold=2.0), n_min=1)
    assert without.counts.tagged == len(labels)


# One file.


def test_one_file(system, tmp_path):
    soundfile.write(tmp_path / "rec.wav", 0.1 * noise(12345, 4), 44100)
    written = stages.separate_file(loud(system), tmp_path / "rec.wav", tmp_path / "out")
    assert [w.path.name for w in written] == [f"rec_{k}_{w.label}.wav" for k, w in enumerate(written)]
    assert {(soundfile.info(w.path).frames, soundfile.info(w.path).samplerate) for w in written} == {(12345, 44100)}


def test_a_long_file_goes_by_windows(system, tmp_path):
    soundfile.write(tmp_path / "long.flac", 0.1 * noise(40000, 4), 16000)
    written = stages.separate_file(windowed(loud(system), 1.0), tmp_path / "long.flac", tmp_path / "out")
    assert written and {w.path.name for w in written} == {p.name for p in (tmp_path / "out").iterdir()}
    for source in written:
        assert 0 < source.probability <= 1 and source.path.stem.endswith(source.label)
        info = soundfile.info(source.path)
        assert (info.frames, info.samplerate, info.channels) == (40000, 16000, 1)


@pytest.mark.parametrize("fs", [8000, 11025])
@pytest.mark.parametrize("labels", [None, ["Speech", "Cough", "Speech"]])
def test_a_long_recording_is_what_its_file_is(system, tmp_path, labels, fs):
    """The same windows in memory and from a file; a window of 0.3 s is no whole number of samples."""
    one = windowed(loud(system), 0.7, 0.3)
    mixture = 0.1 * noise(4, 2 * fs)
    soundfile.write(tmp_path / "long.wav", mixture.T, fs, subtype="FLOAT")
    sources = one(mixture, fs, labels)
    written = stages.separate_file(one, tmp_path / "long.wav", tmp_path / "out", labels)
    assert [(s.label, s.probability) for s in sources] == [(w.label, w.probability) for w in written] and sources
    for source, file in zip(sources, written, strict=True):
        expected = soundfile.read(file.path, dtype="int16")[0]
        np.testing.assert_array_equal(whole_numbers(source.waveform, 16)[0], expected)
    again = one.batch([mixture, mixture], fs, None if labels is None else [labels] * 2)
    for row in again:
        for a, b in zip(row, sources, strict=True):
            np.testing.assert_array_equal(a.waveform, b.waveform)
    batched = windowed(loud(system), 0.7, 0.3, batch_size=4)(mixture, fs, labels)
    for a, b in zip(batched, sources, strict=True):
        assert a.label == b.label
        np.testing.assert_allclose(a.waveform, b.waveform, atol=1e-5)


def test_given_labels_stand_for_all_windows(system, tmp_path):
    """Nothing is tagged; two sources of one class keep their tracks; a short file is one window."""
    for name, n in (("long", 20000), ("short", 6000)):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * noise(n, 4), 8000, subtype="FLOAT")
    untagged = windowed(system, 1.0)
    untagged.tag = None  # any call of it fails
    for name in ("long", "short"):
        labels = ["Speech", "Cough", "Speech"]
        written = stages.separate_file(untagged, tmp_path / f"{name}.wav", tmp_path / "out", labels)
        assert sorted(w.label for w in written) == ["Cough", "Speech", "Speech"]
        assert [w.path.name for w in written] == [f"{name}_{i}_{w.label}.wav" for i, w in enumerate(written)]
        assert {w.probability for w in written} == {1.0}
    mixture = soundfile.read(tmp_path / "short.wav", dtype="float32")[0].T
    expected = system.fuse(system.separate(mixture, labels), labels, mixture)
    for source, waveform in zip(untagged(mixture, 8000, labels), expected, strict=True):
        np.testing.assert_array_equal(source.waveform, waveform)
    for labels, message in (
        (["Meow"], "labels: found label Meow"),
        (["silence"], "labels: found silence, expected labels of active sources"),
        (["Cough"] * 4, "labels: found 4 labels, expected at most 3"),
    ):
        with pytest.raises(InputError, match=message):
            stages.separate_file(untagged, tmp_path / "short.wav", tmp_path / "none", labels=labels)
    assert not (tmp_path / "none").exists()


LABELS = ["Speech", "Cough", "Speech"]


@pytest.mark.parametrize("n", [8000, 20000])
def test_a_recording_beyond_full_scale_is_clipped_and_said_so(system, tmp_path, caplog, n):
    """A window of 1.5 s: one recording is shorter, one longer. What the line advises helps."""
    recording = tmp_path / "rec.wav"
    mixture = noise(n, 4)
    soundfile.write(recording, 100 * mixture, 8000, subtype="FLOAT")
    written = stages.separate_file(windowed(system, 1.5), recording, tmp_path / "out", LABELS)
    factors = []
    for line, path in zip(caplog.messages, (w.path for w in written), strict=True):
        full = int((np.abs(soundfile.read(path)[0]) >= 32767 / 32768).sum())
        said = re.match(rf"{path.name}: (\d+) samples beyond full scale were clipped \(peak ", line)
        assert full > 100 and int(said[1]) == pytest.approx(full, rel=1e-3)
        factors.append(float(re.search(r"multiply \S*rec.wav by (\S+) or less", line)[1]))
    caplog.clear()
    soundfile.write(recording, 100 * min(factors) * mixture, 8000, subtype="FLOAT")
    stages.separate_file(windowed(system, 1.5), recording, tmp_path / "out", LABELS)
    assert not caplog.messages


@pytest.mark.parametrize("n", [8000, 20000])
def test_outputs_take_the_place_of_those_of_an_earlier_run(system, tmp_path, n):
    """Those of this recording alone, whatever their labels; nothing goes before all that is new is there."""
    out = tmp_path / "out"
    out.mkdir()
    others = ["a_0_0_Speech.wav", "ab_0_Speech.wav", "a_0_Speech.txt", "a_00_Speech.wav", "a_0.wav", "a_b_0_Speech.wav"]
    for name in ["a_0_Percussion.wav", "a_1_Percussion.wav", "a_17_Meow.wav", *others]:
        (out / name).write_text(name)
    soundfile.write(tmp_path / "a.wav", 0.1 * noise(n, 4), 8000)
    with pytest.raises(InputError, match="found label Meow"):
        stages.separate_file(windowed(system, 1.5), tmp_path / "a.wav", out, ["Meow"])
    assert len(list(out.iterdir())) == len(others) + 3
    stages.separate_file(windowed(system, 1.5), tmp_path / "a.wav", out, ["Cough"])
    assert sorted(p.name for p in out.iterdir()) == sorted([*others, "a_0_Cough.wav"])
    assert all((out / name).read_text() == name for name in others)
    stages.separate_file(windowed(system, 1.5), tmp_path / "a.wav", out, [])
    assert sorted(p.name for p in out.iterdir()) == sorted(others)


@pytest.mark.parametrize(("window", "overlap"), [(10, float("nan")), (10, -1), (10, 6), (float("inf"), 2), (0, 0)])
def test_windows_that_make_no_sense_are_refused_whatever_the_length(window, overlap):
    with pytest.raises(InputError, match=r"overlap: found .* s of windows of"):
        DecodeConfig(window=window, overlap=overlap)


@pytest.mark.parametrize("channels", [1, 5])
def test_a_file_with_other_channels_is_refused(system, tmp_path, channels):
    soundfile.write(tmp_path / "rec.wav", 0.1 * noise(8000, channels), 8000)
    with pytest.raises(InputError, match=rf"rec.wav: found {channels} channels, expected 4"):
        stages.separate_file(system, tmp_path / "rec.wav", tmp_path / "out")
    assert not (tmp_path / "out").exists()
