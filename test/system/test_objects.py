"""A tiny objects system, trained through all its phases: the API and the stages, archives, shards, windows, tuning."""

import dataclasses

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from s5 import S5System
from s5.bin import fuse, separate, tag, tune, vote
from s5.data import DataDir
from s5.inference.results import Results
from s5.inference.stages import separate_file
from s5.metrics import capi_sdri
from s5.separation.tse import TSE_NETWORKS
from s5.system.archive import pack
from s5.system.config import SystemConfig
from s5.system.decode import DecodeConfig
from s5.system.model import build_network
from s5.system.plan import plan
from s5.tuning import Space, collect
from s5.tuning import tune as tune_system
from s5.utils.errors import InputError


@pytest.fixture
def system(recipe, objects_trained):
    return S5System.from_yaml("objects.yaml", objects_trained, "cpu")


@pytest.fixture
def data(recipe):
    return DataDir.load("data/valid")


def run(command, *options):
    command.main([str(option) for option in options])


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_trainings_follow_those_whose_outputs_they_hear(recipe, objects_trained):
    entries = plan("objects.yaml")
    assert entries[0] == {"what": "system", "name": "objects", "kind": "objects"}
    trainings = [e for e in entries if e["what"] == "training"]
    place = {e["folder"]: i for i, e in enumerate(trainings)}
    assert {e["folder"]: e["stage"] for e in trainings} == {"uss": "5"} | dict.fromkeys(
        ("tse", "tse_ft", "source", "source_ft"), "6"
    )
    assert all(place[needed] < place[e["folder"]] for e in trainings for needed in e.get("needs", "").split())
    assert {"uss", "source", "tse_ft"} == set(trainings[place["source_ft"]]["needs"].split())


def test_the_stages_give_what_the_api_gives(recipe, objects_trained, system, data, tmp_path):
    given = ("--system", "objects.yaml", "--expdir", objects_trained, "--data", "data/valid", "--out", tmp_path)
    run(separate, *given)
    run(fuse, *given)
    final, n_found = Results(tmp_path).final(), 0
    for utt in data.utts:
        mixture, fs = data.mixture(utt)
        sources = system(mixture, fs)
        assert [s.label for s in sources] == final[utt].labels
        assert [s.probability for s in sources] == final[utt].probabilities
        separated = Results(tmp_path).separated.read("tse", utt, len(sources), mixture.shape[1])
        for source, waveform in zip(sources, separated, strict=False):
            np.testing.assert_array_equal(source.waveform, waveform)
        assert not separated[len(sources) :].any()
        passes = Results(tmp_path).separated.read_passes(utt)
        assert 1 <= len(passes) <= 3 and passes[0].waveforms.any()
        n_found += len(sources)
    assert n_found  # thresholds low enough for a network of a few steps


def test_shards_are_the_same_bytes(recipe, objects_trained, tmp_path):
    given = ("--system", "objects.yaml", "--expdir", objects_trained, "--data", "data/valid")
    run(separate, *given, "--out", tmp_path / "whole")
    parts = ("--out", tmp_path / "parts", "--parts", tmp_path / "shards")
    for i in (1, 2, 3):
        run(separate, *given, *parts, "--shard", f"{i}/3")
    run(separate, *given, *parts, "--join", 3)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_an_archive_is_the_same_system(recipe, objects_trained, system, data, tmp_path, monkeypatch):
    monkeypatch.setenv("S5_CACHE", str(tmp_path / "cache"))
    archive = pack("objects.yaml", objects_trained, tmp_path / "tiny.s5")
    assert plan(str(archive))[0] == {"what": "system", "name": "tiny", "kind": "objects"}
    opened = S5System.from_pretrained(archive, "cpu")
    assert opened.config.objects == system.config.objects
    for utt in data.utts:
        mixture, fs = data.mixture(utt)
        one, other = system(mixture, fs), opened(mixture, fs)
        assert [s.label for s in one] == [s.label for s in other]
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a.waveform, b.waveform)


def test_true_labels_stay_as_they_are(recipe, objects_trained, system, data, tmp_path):
    given = ("--system", "objects.yaml", "--expdir", objects_trained, "--data", "data/valid", "--out", tmp_path)
    run(vote, "--system", "objects.yaml", "--oracle", "data/valid", "--out", tmp_path)
    run(separate, *given, "--oracle_labels")
    run(fuse, *given, "--oracle_labels")
    for utt, found in Results(tmp_path).final().items():
        assert found.labels == list(data.labels[utt])
        mixture, fs = data.mixture(utt)
        sources = system(mixture, fs, found.labels)
        assert [s.label for s in sources] == found.labels and all(s.probability == 1 for s in sources)
        separated = Results(tmp_path).separated.read("tse", utt, len(sources), mixture.shape[1])
        for source, waveform in zip(sources, separated, strict=False):
            np.testing.assert_array_equal(source.waveform, waveform)


def test_a_long_recording_goes_by_windows(recipe, objects_trained, data, tmp_path):
    mixture, fs = data.mixture(data.utts[1])
    long = np.tile(mixture, (1, 3))
    decode = DecodeConfig(window=2.0, overlap=0.5)
    system = S5System.from_yaml("objects.yaml", objects_trained, "cpu", decode)
    sources = system(long, fs)
    assert sources and all(s.waveform.shape == (long.shape[1],) for s in sources)
    from s5.data import write_audio

    write_audio(tmp_path / "long.wav", long, fs, subtype="FLOAT")
    written = separate_file(system, tmp_path / "long.wav", tmp_path / "out")
    assert [w.label for w in written] == [s.label for s in sources]
    known = system(long, fs, ["Speech", "Cough"])
    assert [s.label for s in known] == ["Speech", "Cough"]


def test_a_batch_gives_what_single_calls_give(system, data):
    mixtures, rates = zip(*(data.mixture(utt) for utt in data.utts), strict=True)
    for one, found in zip(mixtures, system.batch(mixtures, rates[0]), strict=True):
        single = system(one, rates[0])
        assert [s.label for s in single] == [s.label for s in found]
        for a, b in zip(single, found, strict=True):
            np.testing.assert_allclose(a.waveform, b.waveform, atol=1e-4)


def scored(system, data):
    """Mean CAPI-SDRi of what the system makes of each mixture."""
    values = []
    for utt in data.utts:
        mixture, fs = data.mixture(utt)
        refs, sources = list(data.labels[utt]), system(mixture, fs)
        waveforms = np.array([s.waveform for s in sources]).reshape(len(sources), mixture.shape[1])
        value = capi_sdri([s.label for s in sources], waveforms, refs, data.sources(utt)[: len(refs)], mixture[0])
        values += [] if value is None else [value]
    return np.mean(values)


def test_tuning_promises_what_the_tuned_system_gives(recipe, objects_trained, system, data, tmp_path, capsys):
    space = {"loops": [0, 1, 2], "thresholds": [0.0, 0.005, 0.01, 0.02, 0.5], "min_mixtures": 1, "vote_step": None}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(space))
    options = ("--system", "objects.yaml", "--expdir", objects_trained, "--data", "data/valid", "--out", tmp_path)
    run(tune, *options, "--space", tmp_path / "space.yaml")
    total = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("CAPI-SDRi"))
    first, last = float(total.split()[1]), float(total.split()[3])
    assert first == pytest.approx(scored(system, data), abs=2e-3)
    tuned = S5System.from_yaml(tmp_path / "tuned.yaml", objects_trained, "cpu")
    assert last == pytest.approx(scored(tuned, data), abs=2e-3) and last >= first
    assert dataclasses.asdict(tuned.config)["uss"] == dataclasses.asdict(system.config)["uss"]


@pytest.fixture
def led(recipe, objects_trained, trained, tmp_path):
    """Experiment folder and YAML of the system with a tagger and a separator beside it."""
    (tmp_path / "exp").mkdir()
    for model in [*objects_trained.iterdir(), trained / "tagger_ft", trained / "separator"]:
        (tmp_path / "exp" / model.name).symlink_to(model)
    keys = {
        "inherit": str(recipe / "objects.yaml"),
        "taggers": {"tagger": {"experiment": "tagger_ft"}},
        "separators": {"separator": {"experiment": "separator"}},
        "objects": {"alpha": 50.0},
        "fusion": {"default": {"tse": 0.75, "separator": 0.25}},
    }
    (tmp_path / "led.yaml").write_text(yaml.safe_dump(keys))
    return tmp_path / "exp", tmp_path / "led.yaml"


def test_a_prior_and_a_separator_beside_the_loop(led, data, tmp_path):
    exp, path = led
    given = ("--system", path, "--expdir", exp, "--data", "data/valid", "--out", tmp_path / "out")
    with pytest.raises(InputError, match="posteriors"):
        run(separate, *given)
    run(tag, *given)
    run(separate, *given)
    run(fuse, *given)
    system, final, n_found = S5System.from_yaml(path, exp, "cpu"), Results(tmp_path / "out").final(), 0
    for utt in data.utts:
        mixture, fs = data.mixture(utt)
        prior = system.prior(system.tag(mixture))
        sources = system(mixture, fs)
        assert [s.label for s in sources] == final[utt].labels
        assert {s.label for s in sources} <= {system.labels.name(int(prior.argmax()))}  # alpha is large
        outputs = system.find_objects(mixture[None], posteriors=[system.tag(mixture)])[0].outputs
        for source, one, other in zip(sources, outputs["tse"], outputs["separator"], strict=False):
            assert np.abs(other).max() > 0
            n_found += 1
            if len(sources) == 1:  # of several with one label, fusion first pairs the outputs
                np.testing.assert_allclose(source.waveform, 0.75 * one + 0.25 * other, atol=1e-6)
    assert n_found


def test_tuning_weighs_the_prior(led, data, tmp_path):
    exp, path = led
    system = S5System.from_yaml(path, exp, "cpu")
    space = Space(vote_step=None, loops=[1], alpha=[0.0, 1.0], thresholds=[0.0, 0.02], min_mixtures=1)
    cache = collect(system, data, tmp_path / "tuning", space)
    outcome = tune_system(cache, system.config, space)
    assert {"loops", "alpha", "thresholds"} <= {step.name for step in outcome.steps}
    assert outcome.last >= outcome.first
    again = collect(system, data, tmp_path / "tuning", space)  # read from the file
    assert tune_system(again, system.config, space) == outcome


def test_tse_receives_the_frame_posteriors_of_the_tagger(led, data):
    exp, path = led
    own = SystemConfig.load(path).tse[0]
    keys = yaml.safe_load((exp / own.folder() / "config.yaml").read_text())
    keys["network_conf"]["time_film"], keys["best_model_criterion"] = True, []
    torch.manual_seed(0)
    network = build_network(TSE_NETWORKS["tse"], keys["network_conf"], "tse", len(keys["labels"]), keys["n_slots"])
    for parameter in network.parameters():  # what the option adds is zero at first
        torch.nn.init.normal_(parameter, std=0.1)
    system = yaml.safe_load(path.read_text())
    system["tse"] = {own.name: {"experiment": "clued", "frames": "tagger"}}
    system["source_taggers"] = {"source": {"estimates": {"finetune": ["uss"]}}}
    path.write_text(yaml.safe_dump(system))
    folder = exp / SystemConfig.load(path).tse[0].folder()
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(keys))
    save_file(network.state_dict(), folder / "weights.safetensors")
    networks = S5System.from_yaml(path, exp, "cpu").networks
    mixture = data.mixture(data.utts[0])[0][None]
    labels = np.eye(len(keys["labels"]), dtype=np.float32)[: keys["n_slots"]][None]
    enrolments = np.repeat(mixture[:, :1], keys["n_slots"], axis=1)
    found = networks.extract(mixture, labels, enrolments)
    given = [networks.tse.tensor(x) for x in (mixture, labels, enrolments)]
    frames = torch.from_numpy(networks.tagger.frame_posterior(mixture))
    with torch.inference_mode():
        np.testing.assert_allclose(networks.tse.network(*given, frames).numpy(), found, atol=1e-6)
        assert np.abs(networks.tse.network(*given, 0 * frames).numpy() - found).max() > 1e-6


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("tse: null", r"key tse: found none"),
        ("refine: {}", r"key refine: found it"),
        ("gate: {silence: 0.5}", r"key gate: silence: found 0\.5"),
        ("objects: {alpha: 1.0}", r"key objects: alpha: found 1\.0, expected taggers"),
        ("uss: {other: {train: objects_uss.yaml}}", r"key uss: found 2 models"),
        ("kind: queried", r"found"),
    ],
)
def test_systems_that_make_no_sense_are_refused(recipe, objects_trained, tmp_path, changed, message):
    text = changed.replace("tse: null", "tse: {tse: null}\nsource_taggers: {source: {estimates: [uss]}}")
    (tmp_path / "other.yaml").write_text(f"inherit: {recipe}/objects.yaml\n{text}\n")
    with pytest.raises(InputError, match=message):
        SystemConfig.load(tmp_path / "other.yaml")
