"""The decoding stages over a data directory: hand-over, files, and the same bytes from any number of processes."""

import dataclasses
import hashlib
import logging
import re
import shutil

import numpy as np
import pytest
import soundfile

from s5 import DecodeConfig, S5System
from s5.bin.fuse import main as fuse_main
from s5.bin.separate import main as separate_main
from s5.bin.tag import main as tag_main
from s5.data import DataDir, whole_numbers
from s5.fusion import CandidateConfig, GateConfig, RefineConfig
from s5.inference import stages
from s5.inference.results import Results, read_rows
from s5.labels import LabelSet
from s5.utils.errors import InputError
from s5.utils.parallel import reproducible
from s5.utils.shards import Shards


@pytest.fixture(scope="session")
def system(trained) -> S5System:
    return S5System.from_yaml(trained.parent / "system.yaml", trained, "cpu")


@pytest.fixture
def data(recipe) -> DataDir:
    return DataDir.load("data/valid")


def with_(system, **changes):
    return S5System(dataclasses.replace(system.config, **changes), system.expdir, "cpu")


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".scp"  # scp files hold the folder's name
    }


def test_stages_hand_over_to_each_other(system, data, tmp_path):
    stages.tag(system, data, tmp_path)
    stages.vote(system, tmp_path)
    labels = read_rows(tmp_path / "labels")
    assert list(labels) == data.utts
    stages.copy_oracle_labels(data, tmp_path / "oracle")
    assert read_rows(tmp_path / "oracle/labels") == {u: list(data.labels[u]) for u in data.utts}
    stages.separate(system, data, tmp_path / "oracle")
    stages.fuse(system, data, tmp_path / "oracle")
    names = {p.name for p in (tmp_path / "oracle/estimates").iterdir()}
    assert names == {f"{u}_{k}_{label}.wav" for u in data.utts for k, label in enumerate(data.labels[u])}
    utt = next(u for u in data.utts if data.labels[u])
    separated = np.load(tmp_path / "oracle/separated/separator" / f"{utt}.npy")
    written, rate = soundfile.read(tmp_path / "oracle/estimates" / f"{utt}_0_{data.labels[utt][0]}.wav")
    assert rate == 8000 and np.abs(written - separated[0]).max() <= 1 / 32768
    for name in ("labels", "probabilities"):
        assert (tmp_path / f"oracle/final_{name}").read_bytes() == (tmp_path / f"oracle/{name}").read_bytes()
    assert not list(tmp_path.rglob("*.partial"))


def test_a_part_of_a_set_is_spread_over_it(data):
    assert stages.spread(data, None) is data and stages.spread(data, 100) is data
    assert stages.spread(data, 2).utts == [data.utts[0], data.utts[-1]]
    assert stages.spread(data, 1).labels == data.labels


def test_posteriors_are_kaldi_archives_of_distributions(system, data, tmp_path):
    import kaldiio

    stages.tag(system, data, tmp_path)
    table = kaldiio.load_scp(str(tmp_path / "posteriors/tagger.scp"))
    assert sorted(table) == data.utts
    np.testing.assert_allclose(table[data.utts[0]].sum(1), 1, atol=1e-5)
    mixture, _ = data.mixture(data.utts[0])
    np.testing.assert_allclose(table[data.utts[0]], system.tag(mixture)["tagger"], atol=1e-6)
    loaded = Results(tmp_path).posteriors.load(["tagger"])
    assert (loaded.n_slots, loaded.labels, loaded.utts) == (3, LabelSet(("Cough", "Percussion", "Speech")), data.utts)


REFINED = """
inherit: {base}
separators: {{first: {{experiment: separator, train: separator.yaml, checkpoint: 1epoch.pth}}}}
fusion: {{default: {{separator: 0.6, first: 0.4}}, sharpen: {{separator: 0.5}}}}
gate: {{silence: 0.9, margin: 60}}
refine: {{loops: 2, n_min: 1, candidates: {{threshold: 0.0}}}}
"""


@pytest.mark.slow
def test_the_same_bytes_from_one_process_and_from_two(trained, data, tmp_path):
    """Networks, fusion, sharpening, gate and refinement included, through the commands."""
    system = tmp_path / "refined.yaml"
    system.write_text(REFINED.format(base=trained.parent / "system.yaml"))
    for nj in ("1", "2"):
        out = tmp_path / nj
        common = ["--system", str(system), "--data", str(data.path), "--out", str(out), "--nj", nj, "--device", "cpu"]
        common += ["--expdir", str(trained)]
        tag_main(common)
        stages.vote(S5System.from_yaml(system, trained), out)
        separate_main(common)
        fuse_main(common)
    one, two = digests(tmp_path / "1"), digests(tmp_path / "2")
    assert one == two and any(name.startswith("estimates/") for name in one)


def test_the_stages_give_what_the_system_gives_to_the_last_bit(trained, data, tmp_path):
    """Posteriors, probabilities, separated sources and estimates, behind a gate and a refinement."""
    file = tmp_path / "refined.yaml"
    file.write_text(REFINED.format(base=trained.parent / "system.yaml"))
    system, out = S5System.from_yaml(file, trained, "cpu"), Results(tmp_path / "out")
    stages.tag(system, data, out.path)
    stages.vote(system, out.path)
    stages.separate(system, data, out.path)
    stages.fuse(system, data, out.path)
    tables, final = out.posteriors.load(["tagger"]), out.final(data.utts)
    votes = out.votes(data.utts, silence=["tagger"])
    n_sources = 0
    with reproducible():
        for utt in data.utts:
            mixture, fs = data.mixture(utt)
            posteriors = system.tag(mixture)
            np.testing.assert_array_equal(tables.of(utt)["tagger"], posteriors["tagger"])
            vote = system.vote(posteriors)
            assert (votes[utt].labels, votes[utt].probabilities) == (vote.labels, vote.probabilities)
            np.testing.assert_array_equal(votes[utt].silence["tagger"], vote.silence["tagger"])
            for name, sources in system.separate(mixture, vote.labels).items():
                np.testing.assert_array_equal(out.separated.read(name, utt, 0, mixture.shape[1]), sources)
            sources = system(mixture, fs)
            assert final[utt].labels == [source.label for source in sources]
            assert final[utt].probabilities == [source.probability for source in sources]
            for slot, source in enumerate(sources):
                written, _ = soundfile.read(out.estimates.path(utt, slot, source.label), dtype="int16")
                np.testing.assert_array_equal(written, whole_numbers(source.waveform, 16)[0])
            n_sources += len(sources)
    assert n_sources


def test_batches_change_nothing_but_rounding(system, data, tmp_path):
    """Mixtures of two lengths, in batches of three."""
    folder = tmp_path / "set"
    folder.mkdir()
    for i, n in enumerate((8000, 8000, 6000, 8000, 6000)):
        soundfile.write(folder / f"{i}.wav", 0.1 * np.random.default_rng(i).standard_normal((n, 4)), 8000)
    (folder / "wav.scp").write_text("".join(f"u{i} {folder}/{i}.wav\n" for i in range(5)))
    (folder / "labels").write_text("u0 Speech Speech\nu1\nu2 Cough\nu3 Percussion Cough Speech\nu4 Speech\n")
    mixed, out, counts = DataDir.load(folder), {}, []
    for size in (1, 3):
        decode = DecodeConfig(batch_size=size)
        one, out[size] = S5System(system.config, system.expdir, "cpu", decode=decode), Results(tmp_path / str(size))
        stages.tag(one, mixed, out[size].path)
        stages.copy_oracle_labels(mixed, out[size].path)
        stages.separate(one, mixed, out[size].path)
        stages.vote(one, out[size].path)
        stages.separate(one, mixed, out[size].path)
        refine = RefineConfig(loops=2, candidates=CandidateConfig(threshold=0.0), n_min=1)
        refined = S5System(dataclasses.replace(one.config, refine=refine), one.expdir, "cpu", decode=decode)
        counts.append(stages.fuse(refined, mixed, out[size].path))
        stages.copy_oracle_labels(mixed, out[size].path)
        stages.separate(one, mixed, out[size].path)
    assert counts[0] == counts[1] and counts[0].tagged > 5
    final = [out[size].final() for size in (1, 3)]
    assert [vote.labels for vote in final[0].values()] == [vote.labels for vote in final[1].values()]
    for one, other in zip(final[0].values(), final[1].values(), strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
    tables = [out[size].posteriors.load(["tagger"]) for size in (1, 3)]
    assert tables[0].utts == tables[1].utts == mixed.utts
    for utt in mixed.utts:
        np.testing.assert_allclose(tables[0].of(utt)["tagger"], tables[1].of(utt)["tagger"], atol=1e-6)
        n = mixed.mixture(utt)[0].shape[1]
        sources = [out[size].separated.read("separator", utt, 3, n) for size in (1, 3)]
        np.testing.assert_allclose(*sources, atol=1e-6)


def test_stage_10_asks_for_posteriors_only_to_refine(system, data, tmp_path, monkeypatch):
    """What a gate needs is what stage 8 wrote."""
    stages.tag(system, data, tmp_path)
    stages.vote(system, tmp_path)
    stages.separate(system, data, tmp_path)
    shutil.rmtree(tmp_path / "posteriors")
    stages.fuse(with_(system, gate=GateConfig(silence=0.0)), data, tmp_path)
    assert not any(read_rows(tmp_path / "final_labels").values())
    shutil.rmtree(tmp_path / "silence")
    with pytest.raises(InputError, match=r"silence/tagger: found No such file .*"):
        stages.fuse(with_(system, gate=GateConfig(silence=0.0)), data, tmp_path)
    stages.fuse(with_(system, gate=GateConfig(margin=200)), data, tmp_path)


def test_a_gate_changes_the_final_labels_and_says_so(system, data, tmp_path, caplog):
    stages.tag(system, data, tmp_path)
    shares = Results(tmp_path).posteriors.load(["tagger"])
    loud = {u: _without_silence(shares.of(u)["tagger"]) for u in data.utts}
    _rewrite(tmp_path, loud)
    stages.vote(system, tmp_path)
    stages.separate(system, data, tmp_path)
    n_labels = sum(map(len, read_rows(tmp_path / "labels").values()))
    with caplog.at_level(logging.INFO):
        stages.fuse(with_(system, gate=GateConfig(margin=-200)), data, tmp_path)
    assert n_labels and f"gate: {n_labels} of {n_labels} slots silenced" in caplog.text
    assert not any(read_rows(tmp_path / "final_labels").values())
    assert not list((tmp_path / "estimates").iterdir())
    stages.fuse(with_(system, gate=GateConfig(margin=-200)), data, tmp_path, oracle=True)
    assert read_rows(tmp_path / "final_labels") == read_rows(tmp_path / "labels")


def test_refinement_writes_its_labels_beside_those_of_the_vote(system, data, tmp_path, caplog):
    stages.tag(system, data, tmp_path)
    stages.vote(system, tmp_path)
    stages.separate(system, data, tmp_path)
    config = RefineConfig(candidates=CandidateConfig(threshold=0.0), n_min=1)
    with caplog.at_level(logging.INFO):
        counts = stages.fuse(with_(system, refine=config), data, tmp_path)
    before, after = (read_rows(tmp_path / name) for name in ("labels", "final_labels"))
    assert all(after.values())  # n_min
    probabilities = read_rows(tmp_path / "final_probabilities")
    assert [len(v) for v in probabilities.values()] == [len(v) for v in after.values()]
    assert counts.mixtures == len(data.utts) and counts.queries >= counts.mixtures
    assert f"refine: {counts.removed} labels removed, {counts.restored} restored" in caplog.text
    names = {p.name for p in (tmp_path / "estimates").iterdir()}
    assert names == {f"{u}_{k}_{label}.wav" for u, row in after.items() for k, label in enumerate(row)}
    change = sum(map(len, after.values())) - sum(map(len, before.values()))
    assert change == counts.restored - counts.removed


def test_wrong_rate_and_missing_stages_are_named(system, data, tmp_path):
    with pytest.raises(InputError, match=r"labels.txt: found .*No such file"):
        stages.vote(system, tmp_path)
    with pytest.raises(InputError, match="labels: found"):
        stages.separate(system, data, tmp_path)
    folder = tmp_path / "fast"
    shutil.copytree(data.path, folder)
    utt = data.utts[0]
    soundfile.write(folder / "a.wav", np.zeros((1000, 4)), 16000)
    lines = (folder / "wav.scp").read_text().splitlines()
    (folder / "wav.scp").write_text("\n".join([f"{utt} {folder / 'a.wav'}", *lines[1:]]) + "\n")
    with pytest.raises(InputError, match=rf"{utt}: found 16000 Hz, expected 8000 Hz"):
        stages.tag(system, DataDir.load(folder), tmp_path / "out")
    with pytest.raises(InputError, match="expected separated sources"):
        stages.copy_oracle_labels(data, tmp_path / "oracle")
        stages.fuse(system, data, tmp_path / "oracle")
    assert not (tmp_path / "out/posteriors").exists() and not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("labels", b"{utt}\n\n", "labels:2: found an empty line, expected an utterance"),
        ("labels", "{utt} Caf\u00e9\n".encode("latin-1"), "labels: found no text in UTF-8, expected a file of"),
        ("labels", b"\xff\xfe", "labels: found no text in UTF-8"),
        ("probabilities", b"{utt} loud\n", "{utt}: found loud, expected a probability from 0 to 1"),
        ("probabilities", b"{utt} nan\n", "{utt}: found nan, expected a probability from 0 to 1"),
        ("probabilities", b"{utt} 0.5 0.5\n", "{utt}: found 2 probabilities, expected 1, one per label"),
        ("probabilities", b"other 0.5\n", "probabilities: found no {utt}, expected all utterances of the data set"),
        ("separated/separator/{utt}.npy", b"", "{utt}.npy: found nothing that can be read"),
        (
            "separated/separator/{utt}.npy",
            None,
            r"{utt}.npy: found shape \[3, 7\], expected float32 sources of 1 labels and",
        ),
    ],
)
def test_a_results_folder_that_is_damaged_is_named(system, data, tmp_path, file, content, message):
    utt = data.utts[0]
    stages.copy_oracle_labels(data, tmp_path)
    (tmp_path / "labels").write_text(f"{utt} Speech\n")
    (tmp_path / "probabilities").write_text(f"{utt} 1.000000\n")
    stages.separate(system, dataclasses.replace(data, utts=[utt]), tmp_path)
    path = tmp_path / file.replace("{utt}", utt)
    if content is None:
        np.save(path, np.zeros((3, 7), np.float32))
    else:
        path.write_bytes(content.replace(b"{utt}", utt.encode()))
    with pytest.raises(InputError, match=message.replace("{utt}", utt)) as error:
        stages.fuse(system, dataclasses.replace(data, utts=[utt]), tmp_path)
    assert "\n" not in str(error.value) and not (tmp_path / "estimates").exists()


@pytest.mark.parametrize("n", [1, 2, 3, 300])
def test_very_short_recordings_go_through_all_stages(system, data, tmp_path, n):
    folder = _one_recording(tmp_path / "set", 0.1 * np.ones((n, 4)))
    stages.tag(system, folder, tmp_path / "out")
    stages.vote(system, tmp_path / "out")
    stages.copy_oracle_labels(folder, tmp_path / "out")
    stages.separate(system, folder, tmp_path / "out")
    refined = with_(system, refine=RefineConfig(candidates=CandidateConfig(threshold=0.0), n_min=1))
    for one in (system, refined):
        stages.fuse(one, folder, tmp_path / "out")
        assert [soundfile.info(p).frames for p in (tmp_path / "out/estimates").iterdir()]
        assert {soundfile.info(p).frames for p in (tmp_path / "out/estimates").iterdir()} == {n}


def test_what_does_not_fit_the_models_is_named_with_its_recording(system, tmp_path):
    folder = _one_recording(tmp_path / "set", np.ones((8000, 2)))
    stages.copy_oracle_labels(folder, tmp_path / "out")
    with pytest.raises(InputError, match=r"set: utt: .*mixture: found 2 channels, expected 4"):
        stages.separate(system, folder, tmp_path / "out")


@pytest.mark.parametrize("shards", [False, True])
def test_estimates_that_are_clipped_are_named(system, tmp_path, caplog, shards):
    folder = _one_recording(tmp_path / "set", 100 * np.random.default_rng(0).standard_normal((8000, 4)))
    out = tmp_path / "out"
    stages.copy_oracle_labels(folder, out)
    stages.separate(system, folder, out)
    for index in (1, None) if shards else (0,):
        stages.fuse(system, folder, out, shards=Shards(tmp_path / "parts", 1, index) if shards else None)
    estimate = soundfile.read(out / "estimates/utt_0_Speech.wav")[0]
    full = int((np.abs(estimate) >= 32767 / 32768).sum())
    (line,) = caplog.messages
    said = re.match(r"utt_0_Speech\.wav: (\d+) samples beyond full scale were clipped \(peak ", line)
    assert full > 100 and int(said[1]) == pytest.approx(full, rel=1e-3)
    assert f"multiply {tmp_path}/set/a.wav by 0.0" in line


def _one_recording(folder, samples) -> DataDir:
    folder.mkdir()
    soundfile.write(folder / "a.wav", samples, 8000, subtype="FLOAT")
    (folder / "wav.scp").write_text(f"utt {folder}/a.wav\n")
    (folder / "labels").write_text("utt Speech\n")
    return DataDir.load(folder)


def _without_silence(posterior):
    loud = posterior.copy()
    loud[:, -1] = 0
    return loud / loud.sum(1, keepdims=True)


def _rewrite(out, table):
    import kaldiio

    kaldiio.save_ark(str(out / "posteriors/tagger.ark"), table, scp=str(out / "posteriors/tagger.scp"))


def test_a_label_set_that_is_cut_off_is_named(tmp_path):
    posteriors = Results(tmp_path).posteriors
    posteriors.folder.mkdir()
    posteriors.write_facts(LabelSet(("Cough", "Speech")), 3)
    assert posteriors.labels().names == ("Cough", "Speech")
    (posteriors.folder / "labels.txt").write_text("Cough\nSp")
    with pytest.raises(InputError, match=r"labels.txt: found no line break at its end \(is it cut off\?\)"):
        posteriors.labels()
