"""Separators with a tagger's frame posteriors: their training, and the system that decodes with them."""

import shutil

import numpy as np
import pytest
import torch
import yaml

from s5 import S5System
from s5.data import DataDir
from s5.inference import stages
from s5.inference.results import Results
from s5.system.archive import pack
from s5.system.model import load_model
from s5.tasks.launch import train_model
from s5.utils.config import ROOT, load_inherited, load_yaml
from s5.utils.errors import InputError

NETWORKS = load_yaml(ROOT / "test/tasks/networks.yaml")


def made(root, network, trained, time_film=True, **entry):
    """A folder with the trained tagger, and a system whose separator receives its frame posteriors."""
    keys = load_inherited("separator.yaml") | NETWORKS.get(network, {})
    keys |= {"network_conf": {**keys["network_conf"], "time_film": time_film}, "max_epoch": 1, "keep_nbest_models": 1}
    (root / "frames.yaml").write_text(yaml.safe_dump(keys))
    entry = {"train": str(root / "frames.yaml"), "frames": "tagger", **entry}
    system = {"taggers": {"tagger": {"experiment": "tagger"}}, "separators": {"frames": entry}}
    (root / "system.yaml").write_text(yaml.safe_dump({**system, "vote": {"n_min": 1}}))
    shutil.copytree(trained / "tagger", root / "exp/tagger", symlinks=True)
    return root


def train(root, *options):
    train_model(root / "system.yaml", "frames", "train", "data/train", "data/valid", root / "exp", 0, options)


def noise(*shape, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("network", ["resunetk", "locoformer"])
def test_a_separator_learns_with_frame_posteriors_and_its_system_decodes_with_them(
    recipe, trained, tmp_path, network, monkeypatch
):
    made(tmp_path, network, trained)
    train(tmp_path, "--bf16", "true")
    assert all(key.startswith("network.") for key in torch.load(tmp_path / "exp/frames/1epoch.pth", weights_only=True))
    separator = load_model(tmp_path / "exp/frames", None, "separator")
    system = S5System.from_yaml(tmp_path / "system.yaml", tmp_path / "exp", "cpu")
    mixture, labels = noise(4, 16000), ["Cough", "Speech"]
    posterior = system.taggers["tagger"].frame_posterior(mixture)
    assert posterior.shape == (12, 3) and posterior.min() > 0 and posterior.max() < 1
    given = separator.separate(mixture, labels, frames=posterior)
    assert not np.array_equal(given, separator.separate(mixture, labels, frames=1 - posterior))  # it has learned
    np.testing.assert_array_equal(system.separate(mixture, labels)["frames"], given)
    batch = np.stack([noise(4, 16000, seed=1), mixture])
    found = system.separate(batch, [["Speech"], labels])["frames"]
    np.testing.assert_allclose(found[1], given, atol=1e-6)

    data = DataDir.load("data/valid", system.labels, system.n_slots)
    stages.tag(system, data, tmp_path / "out")
    stages.vote(system, tmp_path / "out")
    stages.separate(system, data, tmp_path / "out")
    votes = Results(tmp_path / "out").votes(data.utts)
    monkeypatch.setenv("S5_CACHE", str(tmp_path / "cache"))
    packed = S5System.open(pack(tmp_path / "system.yaml", tmp_path / "exp", tmp_path / "a.s5"), device="cpu")
    assert packed.config.separators[0].frames == "tagger"
    for utt in data.utts[:2]:
        mixture, fs = data.mixture(utt)
        names = votes[utt].labels
        expected = system.separate(mixture, names)["frames"][: len(names)]
        written = Results(tmp_path / "out").separated.read("frames", utt, len(names), mixture.shape[1])
        np.testing.assert_allclose(written[: len(names)], expected, atol=1e-6)
        for source, one, name in zip(packed(mixture, fs), expected, names, strict=True):
            assert source.label == name
            np.testing.assert_array_equal(source.waveform, one)


def test_another_tagger_makes_it_another_training(recipe, trained, tmp_path):
    made(tmp_path, "locoformer", trained)
    train(tmp_path)
    train(tmp_path)  # the same one: it is done
    path = tmp_path / "exp/tagger/valid.acc3.ave.pth"
    path = path if path.exists() else tmp_path / "exp/tagger/valid.acc3.best.pth"
    tensors = torch.load(path, weights_only=True)
    path.unlink()  # perhaps a link to an epoch
    torch.save({key: value + 1 for key, value in tensors.items()}, path)
    with pytest.raises(InputError, match=r"frames: found a model of another training \(estimators: "):
        train(tmp_path)


@pytest.mark.parametrize(("time_film", "frames"), [(True, None), (False, "tagger")])
def test_the_network_and_the_system_must_agree(recipe, trained, tmp_path, time_film, frames):
    made(tmp_path, "locoformer", trained, time_film, frames=frames)
    with pytest.raises(InputError, match=r"network_conf: time_film: found (true, and 0|false, and 1) taggers"):
        train(tmp_path)
    assert not list((tmp_path / "exp").rglob("frames/*.pth"))
    keys = load_yaml(tmp_path / "system.yaml")
    keys["separators"]["frames"] = {"experiment": "separator", "frames": "tagger"}
    (tmp_path / "system.yaml").write_text(yaml.safe_dump(keys))
    shutil.copytree(trained / "separator", tmp_path / "exp/separator", symlinks=True)
    system = S5System.from_yaml(tmp_path / "system.yaml", tmp_path / "exp", "cpu")
    with pytest.raises(InputError, match=r"separators\.frames\.frames: found tagger, expected none, because its"):
        system.separate(noise(4, 8000), ["Cough"])
