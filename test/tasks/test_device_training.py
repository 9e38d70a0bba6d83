"""A whole training with ``renderer: device``: the same scenes, so the same losses."""

import numpy as np
import pytest
import torch

from s5.tasks.launch import train, train_model
from s5.utils.errors import InputError


def losses(folder):
    return torch.load(folder / "checkpoint.pth", weights_only=True)["reporter"]["stats"][1]


@pytest.mark.parametrize("model", ["tagger", "separator"])
def test_training_on_scenes_of_the_device(trained, recipe, tmp_path, model):
    extra = ("--renderer", "device", "--device_cache_mb", "32", "--max_epoch", "1")
    train_model("system.yaml", model, "train", "data/train", "data/valid", tmp_path, 0, extra)
    expected, found = losses(trained / model), losses(tmp_path / model)
    assert np.isclose(found["train"]["loss"], expected["train"]["loss"], rtol=1e-3)
    assert np.isclose(found["valid"]["loss"], expected["valid"]["loss"], rtol=1e-2)


def test_an_unknown_renderer_is_refused(recipe, tmp_path):
    (tmp_path / "tagger.yaml").write_text(f"inherit: {recipe}/tagger.yaml\nrenderer: gpu\n")
    with pytest.raises(InputError, match=r"key renderer: found gpu, expected cpu \(one of cpu, device\)"):
        train("tagging", tmp_path / "tagger.yaml", "data/train", "data/valid", tmp_path / "exp", 0)
