"""On a real GPU: 200 steps of training, and decoding there and on the CPU."""

import numpy as np
import pytest
import torch

from s5 import S5System
from s5.tasks.launch import train_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU on this machine"),
]
STEPS = ("--num_scenes", "40", "--max_epoch", "10", "--keep_nbest_models", "1")  # 20 steps an epoch
MODELS = (("tagger", "train"), ("separator", "train"), ("tagger", "finetune"))


def train(expdir, model, phase, ngpu, *extra):
    """Figures by epoch."""
    train_model("system.yaml", model, phase, "data/train", "data/valid", expdir, ngpu, extra)
    folder = expdir / {"finetune": "tagger_ft"}.get(phase, model)
    return torch.load(folder / "checkpoint.pth", weights_only=True)["reporter"]["stats"]


@pytest.fixture(scope="module")
def expdir(recipe_folder, tmp_path_factory):
    """All models of the system, trained on the GPU."""
    folder = tmp_path_factory.mktemp("exp")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(recipe_folder)
        for model, phase in MODELS:
            stats = train(folder, model, phase, 1, *STEPS)
            assert len(stats) == 10 and stats[10]["train"]["loss"] < stats[1]["train"]["loss"]
    return folder


@pytest.mark.parametrize("renderer", ["cpu", "device"])
@pytest.mark.parametrize("model", ["tagger", "separator"])
def test_the_first_epoch_has_the_losses_that_it_has_on_the_cpu(recipe, tmp_path, model, renderer):
    extra = ("--max_epoch", "1", "--renderer", renderer)
    cpu, gpu = (train(tmp_path / str(n), model, "train", n, *extra)[1] for n in (0, 1))
    for part in ("train", "valid"):
        assert np.isclose(gpu[part]["loss"], cpu[part]["loss"], rtol=2e-2), part


@pytest.mark.parametrize(("bf16", "posterior", "db"), [(False, 1e-3, 50), (True, 0.05, 20)], ids=["fp32", "bf16"])
def test_decoding_agrees_with_the_cpu(recipe, expdir, bf16, posterior, db):
    cpu, gpu = S5System.from_yaml("system.yaml", expdir, "cpu"), S5System.from_yaml("system.yaml", expdir, "cuda", bf16)
    mixture = 0.1 * np.random.default_rng(0).standard_normal((4, 16000)).astype(np.float32)
    np.testing.assert_allclose(gpu.tag(mixture)["tagger"], cpu.tag(mixture)["tagger"], atol=posterior)
    labels = ["Speech", "Speech", "Cough"]
    expected, found = (system.separate(mixture, labels)["separator"] for system in (cpu, gpu))
    error = np.square(found - expected).mean() / np.square(expected).mean()
    assert -10 * np.log10(error + 1e-12) > db
