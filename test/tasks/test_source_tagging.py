"""Trainings of source taggers: what they hear, from whom, and that the separators stay as they are."""

import shutil

import pytest
import torch
import yaml

from s5.system.model import load_model
from s5.tagging.source import SourceTagger
from s5.tasks.launch import train_model

ENCODER = {"kind": "m2d", "sampling_rate": 8000, "input_size": [80, 201], "dim": 8, "depth": 2, "heads": 2}
TRAINING = {
    "network": "source_tagger",
    "network_conf": {"encoder": ENCODER, "embedding_dim": 8, "trainable": "all"},
    "rest": "residual",
    "scene_conf": {"n_events": [1, 3], "interference": [1, 2]},
    **{"max_epoch": 2, "num_scenes": 4, "batch_size": 2, "num_workers": 0, "num_threads": 1, "seed": 3},
    **{"optim": "adamw", "optim_conf": {"lr": 1e-3}, "keep_nbest_models": 1, "use_matplotlib": False},
    "best_model_criterion": [["valid", "accuracy_estimates", "max"]],
}
SYSTEM = {
    "taggers": {"tagger": {"train": "tagger.yaml"}},
    "separators": {"separator": {"train": "separator.yaml"}},
    "source_taggers": {"source": {"train": "source.yaml", "estimates": ["separator"]}},
    "refine": {"tagger": "source"},
}


@pytest.fixture
def system(recipe, trained, tmp_path):
    """A system with a source tagger, and a copy of its separator's folder."""
    (tmp_path / "source.yaml").write_text(yaml.safe_dump(TRAINING))
    keys = yaml.safe_load(yaml.safe_dump(SYSTEM))
    keys["source_taggers"]["source"]["train"] = str(tmp_path / "source.yaml")
    keys.pop("refine")
    (tmp_path / "system.yaml").write_text(yaml.safe_dump(keys))
    shutil.copytree(trained / "separator", tmp_path / "exp/separator", symlinks=True)

    def run(*options):
        train_model(
            tmp_path / "system.yaml", "source", "train", "data/train", "data/valid", tmp_path / "exp", 0, options
        )
        return tmp_path / "exp/source"

    return run


def test_a_training_hears_its_separator_and_saves_itself_alone(system):
    folder = system()
    network = load_model(folder, None, "source_tagger").network
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["estimators"][0].endswith(".pth") and isinstance(network, SourceTagger)
    keys = torch.load(folder / "2epoch.pth", weights_only=True)
    assert keys and all(key.startswith("network.") for key in keys)
    epochs = [yaml.safe_load(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    assert {"accuracy_dry", "accuracy_estimates", "accuracy_silence"} <= epochs[-1]["valid"].keys()
