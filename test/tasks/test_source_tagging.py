"""Trainings of source taggers: what they hear, from whom, and that the separators stay as they are."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml

from s5 import S5System
from s5.fusion import class_scores
from s5.system.archive import pack
from s5.system.model import load_model
from s5.tagging.source import SourceTagger
from s5.tasks.estimates import match
from s5.tasks.launch import train_model
from s5.tasks.source_model import (
    DRY,
    INTERFERENCE,
    SILENT,
    LossConfig,
    Shares,
    SourceTaggingModel,
    wrong_query,
)
from s5.utils.errors import InputError


def train(root, *options):
    train_model(root / "system.yaml", "source", "train", "data/train", "data/valid", root / "exp", 0, options)


def test_a_training_saves_the_source_tagger_alone(source_trained):
    keys = torch.load(source_trained / "exp/source/2epoch.pth", weights_only=True)
    assert keys and all(key.startswith("network.") for key in keys)
    assert isinstance(load_model(source_trained / "exp/source", None, "source_tagger").network, SourceTagger)
    epochs = [json.loads(line) for line in (source_trained / "exp/source/epochs.jsonl").read_text().splitlines()]
    assert {"accuracy_dry", "accuracy_estimates", "accuracy_silence"} <= epochs[-1]["valid"].keys()


def test_another_separator_makes_it_another_training(source_trained, recipe, tmp_path):
    shutil.copytree(source_trained / "exp", tmp_path / "exp", symlinks=True)
    shutil.copy(source_trained / "system.yaml", tmp_path)
    train(tmp_path)  # the same one: it is done
    weights = tmp_path / "exp/separator/valid.sdri.ave.pth"
    weights = weights if weights.exists() else tmp_path / "exp/separator/valid.sdri.best.pth"
    tensors = torch.load(weights, weights_only=True)
    weights.unlink()  # perhaps a link to an epoch
    torch.save({key: value + 1 for key, value in tensors.items()}, weights)
    with pytest.raises(InputError, match=r"source: found a model of another training \(estimators: ") as e:
        train(tmp_path)
    assert "\n" not in str(e.value)


def test_without_estimators_there_is_no_figure_of_estimates(source_trained, recipe, tmp_path):
    keys = yaml.safe_load((source_trained / "system.yaml").read_text())
    del keys["source_taggers"]["source"]["estimates"]
    (tmp_path / "system.yaml").write_text(yaml.safe_dump(keys))
    with pytest.raises(InputError, match="best_model_criterion: found accuracy_estimates, expected accuracy_dry"):
        train(tmp_path)
    assert not list(tmp_path.rglob("*.pth"))
    train(tmp_path, "--best_model_criterion", "valid,accuracy_dry,max", "--max_epoch", "1")
    figures = json.loads((tmp_path / "exp/source/epochs.jsonl").read_text())["valid"]
    assert "accuracy_dry" in figures and "accuracy_estimates" not in figures


def test_an_estimator_of_other_labels_is_refused(source_trained, recipe, tmp_path):
    shutil.copytree(source_trained / "exp", tmp_path / "exp", symlinks=True)
    shutil.rmtree(tmp_path / "exp/source")
    shutil.copy(source_trained / "system.yaml", tmp_path)
    path = tmp_path / "exp/separator/config.yaml"
    path.write_text(path.read_text().replace("Percussion", "Thunder"))
    with pytest.raises(InputError, match=r"separator: labels: found .*Thunder.*, expected .*Percussion"):
        train(tmp_path)


# Decoding.


def noise(*shape, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_a_refinement_asks_the_source_tagger(source_trained):
    system = S5System.from_yaml(source_trained / "system.yaml", source_trained / "exp", "cpu")
    sources = noise(2, 16000)
    scores = system._scores_of({0: sources})[0]
    posterior = system.source_taggers["source"].source_posterior(sources)
    np.testing.assert_array_equal(scores, posterior)
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-6)
    # It is what the scores of one tagger with one slot would be.
    np.testing.assert_allclose(class_scores([posterior[:1]], [1.0], 3), posterior[0], atol=1e-7)


def test_a_packed_system_refines_in_the_same_way(source_trained, tmp_path, monkeypatch):
    monkeypatch.setenv("S5_CACHE", str(tmp_path / "cache"))
    archive = pack(source_trained / "system.yaml", source_trained / "exp", tmp_path / "a.s5")
    mixture = noise(4, 16000)
    first, packed = (
        S5System.from_yaml(source_trained / "system.yaml", source_trained / "exp", "cpu"),
        S5System.open(archive, device="cpu"),
    )
    assert packed.config.refine.tagger == "source" and [m.name for m in packed.config.source_taggers] == ["source"]
    for a, b in zip(first(mixture, 8000), packed(mixture, 8000), strict=True):
        assert (a.label, a.probability) == (b.label, b.probability)
        np.testing.assert_array_equal(a.waveform, b.waveform)


def test_an_unknown_source_tagger_is_refused(source_trained, tmp_path):
    keys = yaml.safe_load((source_trained / "system.yaml").read_text())
    keys["refine"]["tagger"] = "tagger"
    (tmp_path / "system.yaml").write_text(yaml.safe_dump(keys))
    with pytest.raises(InputError, match="key refine: tagger: found source tagger tagger, expected one of source"):
        S5System.from_yaml(tmp_path / "system.yaml", source_trained / "exp")


# Training items.


def test_a_wrong_query_asks_for_one_label_that_the_scene_lacks():
    label_index = torch.tensor([[0, 2, 4], [1, 1, 3], [4, 4, 4]])
    slot, number = torch.tensor([1, 0, 2]), torch.tensor([1, 3, 2])
    assert wrong_query(label_index, slot, number, 4).tolist() == [[0, 3, 4], [2, 1, 3], [4, 4, 2]]
    everything = torch.tensor([[0, 1, 2]])
    assert torch.equal(wrong_query(everything, torch.tensor([0]), torch.tensor([7]), 3), everything)


def test_an_estimate_is_matched_to_the_source_that_it_holds():
    dry = torch.from_numpy(noise(1, 3, 4000))
    dry[:, 2] = 0
    weak, rest = 0.05 * dry[:, 1], torch.from_numpy(noise(1, 4000, seed=1))
    dry = torch.stack([dry[:, 0], weak, dry[:, 2]], 1)
    mixture = dry.sum(1) + rest
    other = torch.from_numpy(noise(1, 4000, seed=2))
    waveforms = torch.stack(
        [weak, 0.9 * dry[:, 0] + 0.1 * rest, mixture, torch.zeros_like(rest), other, 0.05 * other], 1
    )
    # Silence and quiet noise improve on a mixture in which the source is weak, but they do not hold it.
    assert match(waveforms, dry, mixture).tolist() == [[1, 0, 3, 3, 3, 3]]


@pytest.fixture
def model(source_trained):
    """The trained source tagger and its separator in training."""
    tagger, separator = (load_model(source_trained / "exp" / name, None, None) for name in ("source", "separator"))
    return SourceTaggingModel(tagger.network, [separator], LossConfig(), Shares(), 3)


def batch():
    dry, interference = torch.from_numpy(noise(4, 3, 8000)), torch.from_numpy(noise(4, 2, 8000, seed=1))
    label_index = torch.tensor([[0, 1, 2], [0, 0, 3], [2, 3, 3], [3, 3, 3]])
    dry[label_index == 3] = 0
    interference[:2] = 0
    mixture = dry.sum(1, keepdim=True) + interference.sum(1, keepdim=True) + torch.from_numpy(noise(4, 4, 8000, seed=2))
    return {"mixture": mixture, "dry": dry, "label_index": label_index}, interference


def test_training_items_carry_what_they_are(model):
    scenes, interference = batch()
    torch.manual_seed(0)
    model.items = 20  # all there are
    waveforms, labels, kinds = model._training_items(scenes, interference)
    count = kinds.bincount(minlength=4).tolist()
    assert count[DRY] == 6 and count[INTERFERENCE] == 4
    assert (labels[(kinds == SILENT) | (kinds == INTERFERENCE)] == 3).all() and (labels[kinds < SILENT] < 3).all()
    for waveform, label in zip(waveforms[kinds == DRY], labels[kinds == DRY], strict=True):
        b, k = (scenes["dry"] == waveform).all(-1).nonzero()[0].tolist()
        assert scenes["label_index"][b, k] == label
    # Digital silence is an item of every batch; zeros that a separator gives for silence are none.
    assert (~waveforms.any(-1)).sum() == 1
    few = model.items = 2
    assert len(model._training_items(scenes, interference)[0]) == few * 4


def test_the_margin_makes_the_loss_of_right_classes_larger(model):
    scenes, _ = batch()
    waveforms, labels = scenes["dry"][scenes["label_index"] < 3], torch.tensor([0, 1, 2, 0, 0, 2])
    model.train()
    losses = {}
    for margin in (0.0, 0.3):
        again = SourceTaggingModel(model.network, [], LossConfig(margin=margin, active=0.0), Shares(), 3)
        tags = again.eval().tag(waveforms)
        losses[margin] = again.train()._loss(tags, labels).item()
        plain = again.eval()._loss(tags, labels).item()
    assert losses[0.0] == pytest.approx(plain, rel=1e-4) and losses[0.3] > losses[0.0] + 1


def test_silent_items_pull_towards_the_uniform_distribution(model):
    waveforms, silent = batch()[1][2:].flatten(0, 1), torch.full((4,), 3)
    only = SourceTaggingModel(model.network, [], LossConfig(active=0.0), Shares(), 3).eval()
    tags = only.tag(waveforms)
    same = tags._replace(logits=torch.full_like(tags.logits, 7.0))
    assert only._loss(same, silent).item() == pytest.approx(0.0, abs=1e-5)
    log_p = tags.logits.log_softmax(-1)
    divergence = torch.nn.functional.kl_div(log_p, torch.full_like(log_p, 1 / 3), reduction="batchmean")
    assert only._loss(tags, silent).item() == pytest.approx(divergence.item(), rel=1e-4)


def test_validation_does_not_depend_on_the_batches(model):
    scenes, _ = batch()
    model.eval()
    with torch.no_grad():
        whole = model(**scenes)[1]
        parts = [model(**{key: value[i : i + 1] for key, value in scenes.items()})[1] for i in range(4)]
    for key in whole:
        if key.startswith(("n_", "right_")):
            assert whole[key].item() == pytest.approx(np.mean([part[key].item() for part in parts])), key


def test_figures_are_shares_of_all_items(model):
    averages = {"loss": 1.0, "n_dry": 2.0, "right_dry": 1.5, "n_estimates": 0.0, "right_estimates": 0.0}
    averages |= {"n_active": 2.0, "right_active": 2.0, "n_inactive": 0.5, "right_inactive": 0.25}
    assert model.figures(averages) == {
        "loss": 1.0,
        "accuracy_dry": 0.75,
        "accuracy_estimates": 0.0,
        "accuracy_silence": 0.75,
    }
