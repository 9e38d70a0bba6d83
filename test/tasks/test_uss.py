"""Trainings of USS: with and without further targets, and their validation figures."""

import pytest
import torch
import yaml

from s5.metrics import pi_sdri
from s5.separation.uss import USS, Objects
from s5.separation.uss_loss import USSLoss
from s5.tasks.launch import train
from s5.tasks.uss import USSModel, USSTask
from s5.utils.config import load_inherited
from s5.utils.errors import InputError

NETWORK = {
    "n_fft": 64,
    "hop_length": 32,
    "bands": [[4, 2], [3, 8]],
    "frames": 2,
    "dim": 8,
    "n_blocks": 1,
    "heads": 2,
    "attention_dim": 8,
    "ffn_dim": 4,
}


def run(tmp_path, *extra, **changes):
    base = {k: v for k, v in load_inherited("separator.yaml").items() if k != "loss"}
    network_conf = {**NETWORK, **changes.pop("network_conf", {})}
    keys = {"network": "uss", "rest": "residual", "best_model_criterion": [["valid", "pi_sdri", "max"]]}
    keys |= {"max_epoch": 1, "num_scenes": 2, "keep_nbest_models": 1, **changes, "network_conf": network_conf}
    path = tmp_path / "uss.yaml"
    path.write_text(yaml.safe_dump({**base, **keys}))
    train("uss", path, "data/train", "data/valid", tmp_path / "exp", 0, extra)
    return tmp_path / "exp"


def statistics(folder):
    from s5.tasks.espnet_patches import load_only_weights

    load_only_weights()
    return torch.load(folder / "checkpoint.pth", weights_only=True)["reporter"]["stats"][1]


@pytest.mark.parametrize(
    ("changes", "terms"),
    [
        ({"network_conf": {"consistency": "energy"}, "ema_decay": 0.9}, {"foreground", "interference", "rest"}),
        ({"rest": "noise"}, {"foreground", "interference", "rest"}),
        ({"rest": "none", "network_conf": {"interference": 0, "rest": 0}}, {"foreground"}),
        ({"network_conf": {"interference": 0}}, {"foreground", "rest"}),
    ],
)
def test_it_trains(recipe, tmp_path, changes, terms):
    folder = run(tmp_path, "--bf16", "true", **changes)
    stats = statistics(folder)
    assert terms == stats["train"].keys() & {"foreground", "interference", "rest"}
    assert {"loss", "pi_sdri", "count_accuracy", "class_accuracy", "leakage"} <= stats["valid"].keys()
    assert (folder / "valid.pi_sdri.best.pth").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rest": "none"}, "key rest: found none, expected residual or noise"),
        ({"rest": "noise", "network_conf": {"consistency": "rest"}}, "key rest: found noise, expected residual"),
        ({"loss_conf": {"sum": 1}}, "loss_conf: key sum: found an unknown key"),
        ({"scene_conf": {"interference": [2, 2]}, "network_conf": {"interference": 1}}, "found 2 interferers"),
    ],
)
def test_targets_that_do_not_fit_are_refused(recipe, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path, **changes)


class Fixed(USS):
    """A network whose output is given."""

    output: Objects

    def forward(self, mixture):
        return self.output


def test_figures_of_validation():
    torch.manual_seed(0)
    network = Fixed(n_labels=2, bands=[[4, 2], [3, 8]], n_fft=64, hop_length=32, dim=8, n_blocks=1)
    model = USSModel(network, USSLoss()).eval()
    label_index = torch.tensor([[0, 0, 1], [1, 2, 2], [2, 2, 2]])
    dry = torch.randn(3, 3, 400) * (label_index != 2)[..., None]
    mixture = torch.stack([dry.sum(1) + 0.5 * torch.randn(3, 400)] * 4, 1)
    foreground = dry[:, [1, 2, 0]] + 0.1 * torch.randn(3, 3, 400)
    waveform = torch.cat((foreground, torch.zeros(3, 3, 400)), 1)
    # Slots 0 to 2 hold sources 1, 2 and 0. One class of the first mixture and the number of the last one are wrong.
    logits = torch.tensor([[0, 0, 0], [0, 1, 1], [0, 0, 0]])
    logits = 5 * torch.eye(2)[logits]
    active = torch.tensor([[1.0, 1, 1], [-1, -1, 1], [1, -1, -1]])
    network.output = Objects(waveform, torch.zeros(3, 6, 8, 1, 1), logits, active)
    _, stats, weight = model(mixture, dry, label_index)
    found = model.figures({name: float(value) for name, value in stats.items()})
    first = pi_sdri(foreground[0].numpy(), dry[0].numpy(), mixture[0, 0].numpy())
    second = pi_sdri(foreground[1, 2:].numpy(), dry[1, :1].numpy(), mixture[1, 0].numpy())
    assert weight == 3
    assert found["pi_sdri"] == pytest.approx((first + second) / 2, abs=0.02)
    assert found["pi_sdri_dup"] == found["pi_sdri_3"] == pytest.approx(first, abs=0.02)
    assert found["pi_sdri_nodup"] == found["pi_sdri_1"] == pytest.approx(second, abs=0.02)
    assert "pi_sdri_2" not in found
    assert found["count_accuracy"] == pytest.approx(2 / 3) and found["class_accuracy"] == pytest.approx(3 / 4)
    silent = [(0, []), (1, [0, 1]), (2, [0, 1, 2])]
    levels = [
        10 * torch.log10(foreground[b, s].square().sum() / mixture[b, 0].square().sum())
        for b, slots in silent
        for s in slots
    ]
    assert found["leakage"] == pytest.approx(sum(levels).item() / 5, abs=0.02)
    assert found.keys() >= set(USSTask.valid_figures)
    estimate = model.estimate(mixture, dry, label_index)
    torch.testing.assert_close(estimate[0], foreground[0, [2, 0, 1]])
