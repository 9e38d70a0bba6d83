"""Systems: the YAML, the Python API and the decoding stages on one small trained system."""

import shutil

import numpy as np
import pytest
import soundfile

from s5 import S5System, decode
from s5.data import DataDir
from s5.errors import InputError
from s5.system import SystemConfig

GOOD = "taggers: [{name: a, train: a.yaml}]\nseparators: [{name: b, train: b.yaml}]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "vote: {gama: 1}\n", r"key vote\.gama: found an unknown key, expected gamma"),
        (GOOD.replace("train: a", "trian: a"), r"key taggers\.0\.trian: found an unknown key, expected train"),
        ("taggers: []\nseparators: [{name: b, train: b.yaml}]\n", "key taggers: found an empty list"),
        (GOOD.replace("name: b", "name: a"), "key name: found a twice"),
        (GOOD + "fusion: {classes: {Cough: {bb: 0.1}}}\n", r"key fusion: Cough: found separator bb, expected b"),
        (GOOD + "fusion: {default: {b: loud}}\n", r"key fusion\.default\.b: found 'loud', expected"),
    ],
)
def test_bad_systems_are_refused_by_key(tmp_path, text, message):
    (tmp_path / "system.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        SystemConfig.load(tmp_path / "system.yaml")
    assert str(tmp_path) in str(error.value)


def test_the_last_phase_is_decoded_with(tmp_path):
    (tmp_path / "system.yaml").write_text(GOOD.replace("train: a.yaml", "train: a.yaml, finetune: c.yaml"))
    kind, model = SystemConfig.load(tmp_path / "system.yaml").find("a")
    assert (kind, model.folder(), model.folder("train")) == ("tagger", "a_ft", "a")


@pytest.fixture(scope="session")
def system(trained) -> S5System:
    return S5System.from_yaml(trained.parent / "system.yaml", trained, "cpu")


@pytest.fixture
def data(recipe) -> DataDir:
    return DataDir.load("data/valid")


def loud(system):
    """The same system with a vote in which silence never wins: a few training steps say silence everywhere."""

    class Loud(S5System):
        def tag(self, mixture):
            posteriors = system.tag(mixture)
            return {name: p * ([1] * (p.shape[1] - 1) + [0]) for name, p in posteriors.items()}

    return Loud(system.config, system.expdir, "cpu")


def test_an_array_in_a_list_of_sources_out(system):
    mixture = np.random.default_rng(0).standard_normal((4, 16000)).astype(np.float32)
    sources = loud(system)(mixture, 8000)
    assert len(sources) == 3
    for source in sources:
        assert source.label in ("Cough", "Percussion", "Speech") and 0 <= source.probability <= 1
        assert source.waveform.shape == (16000,) and source.waveform.any()


def test_another_sampling_rate_goes_there_and_back(system):
    mixture = np.random.default_rng(0).standard_normal((4, 44101)).astype(np.float32)
    assert {s.waveform.shape for s in loud(system)(mixture, 44100)} == {(44101,)}


@pytest.mark.parametrize(
    ("shape", "value", "message"),
    [((16000, 4), 0, "shape"), ((16000,), 0, "shape"), ((4, 16000), np.nan, "NaN"), ((2, 16000), 0, "2 channels")],
)
def test_mixtures_that_do_not_fit_are_refused(system, shape, value, message):
    with pytest.raises(InputError, match=message):
        loud(system)(np.full(shape, value, np.float32), 8000)


def test_stages_hand_over_to_each_other(system, data, tmp_path):
    decode.tag(system, data, tmp_path)
    decode.vote(system, tmp_path)
    labels = decode.read_rows(tmp_path / "labels")
    assert list(labels) == data.utts
    decode.take_oracle(data, tmp_path / "oracle")
    assert decode.read_rows(tmp_path / "oracle/labels") == {u: list(data.labels[u]) for u in data.utts}
    decode.separate(system, data, tmp_path / "oracle")
    decode.fuse(system, data, tmp_path / "oracle")
    names = {p.name for p in (tmp_path / "oracle/estimates").iterdir()}
    assert names == {f"{u}_{k}_{label}.wav" for u in data.utts for k, label in enumerate(data.labels[u])}
    utt = next(u for u in data.utts if data.labels[u])
    separated = np.load(tmp_path / "oracle/separated/separator" / f"{utt}.npy")
    written, rate = soundfile.read(tmp_path / "oracle/estimates" / f"{utt}_0_{data.labels[utt][0]}.wav")
    assert rate == 8000 and np.abs(written - separated[0]).max() <= 1 / 32768
    assert not list(tmp_path.rglob("*.partial"))


def test_posteriors_are_kaldi_archives_of_distributions(system, data, tmp_path):
    import kaldiio

    decode.tag(system, data, tmp_path)
    table = kaldiio.load_scp(str(tmp_path / "posteriors/tagger.scp"))
    assert sorted(table) == data.utts
    np.testing.assert_allclose(table[data.utts[0]].sum(1), 1, atol=1e-5)
    mixture, _ = data.mixture(data.utts[0])
    np.testing.assert_allclose(table[data.utts[0]], system.tag(mixture)["tagger"], atol=1e-6)


def test_one_file(system, tmp_path):
    mixture = 0.1 * np.random.default_rng(0).standard_normal((12345, 4))
    soundfile.write(tmp_path / "rec.wav", mixture, 44100)
    written = decode.separate_file(loud(system), tmp_path / "rec.wav", tmp_path / "out")
    assert [p.name for p, _ in written] == [f"rec_{k}_{s.label}.wav" for k, (_, s) in enumerate(written)]
    assert {(soundfile.info(p).frames, soundfile.info(p).samplerate) for p, _ in written} == {(12345, 44100)}


def test_wrong_rate_and_missing_stages_are_named(system, data, tmp_path):
    with pytest.raises(InputError, match=r"labels.txt: found .*No such file"):
        decode.vote(system, tmp_path)
    with pytest.raises(InputError, match="labels: found"):
        decode.separate(system, data, tmp_path)
    folder = tmp_path / "fast"
    shutil.copytree(data.path, folder)
    utt = data.utts[0]
    soundfile.write(folder / "a.wav", np.zeros((1000, 4)), 16000)
    lines = (folder / "wav.scp").read_text().splitlines()
    (folder / "wav.scp").write_text("\n".join([f"{utt} {folder / 'a.wav'}", *lines[1:]]) + "\n")
    with pytest.raises(InputError, match=rf"{utt}: found 16000 Hz, expected 8000 Hz"):
        decode.tag(system, DataDir.load(folder), tmp_path / "out")
    with pytest.raises(InputError, match="expected separated sources"):
        decode.take_oracle(data, tmp_path / "oracle")
        decode.fuse(system, data, tmp_path / "oracle")
    assert not (tmp_path / "out/posteriors").exists() and not list(tmp_path.rglob("*.partial"))
