"""Trainings of TSE on the outputs of USS: clues, loss, phases, figures."""

import pytest
import torch
import yaml

from s5.labels import LabelSet
from s5.separation.tse import TSE
from s5.separation.uss import USS
from s5.system.model import TrainedModel, load_model
from s5.tasks.launch import train
from s5.tasks.tse import ClueConfig, TSELoss, TSEModel, TSETask, init_from
from s5.utils.config import load_inherited, merge
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


def run(tmp_path, task, name, *extra, **changes):
    base = {k: v for k, v in load_inherited("separator.yaml").items() if k != "loss"}
    keys = {"network": task, "max_epoch": 1, "num_scenes": 2, "keep_nbest_models": 1, **changes}
    figure = "pi_sdri" if task == "uss" else "sdri"
    keys |= {"network_conf": {**NETWORK, **changes.get("network_conf", {})}}
    keys |= {"best_model_criterion": [["valid", figure, "max"]]}
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**base, **keys}))
    train(task, path, "data/train", "data/valid", tmp_path / name, 0, extra)
    return tmp_path / name


def statistics(folder):
    from s5.tasks.espnet_patches import load_only_weights

    load_only_weights()
    return torch.load(folder / "checkpoint.pth", weights_only=True)["reporter"]["stats"][1]


@pytest.mark.parametrize("joint", [True, False])
def test_it_trains_on_the_outputs_of_uss_and_then_on_its_own(recipe, tmp_path, joint):
    uss = run(tmp_path, "uss", "uss", rest="residual")
    conf = {"network_conf": {"joint": joint, "condition_dim": 4}, "init_from_estimator": True}
    first = run(tmp_path, "tse", "tse", "--estimators", str(uss), "--bf16", "true", **conf)
    assert statistics(first)["valid"].keys() >= {"loss", "sdri", "enrolment_sdri"}
    names = torch.load(first / "1epoch.pth", weights_only=True).keys()
    assert all(name.startswith("network.") for name in names)  # the estimator is not a part of the model
    start = f"{first / '1epoch.pth'}:network:network"
    more = {**conf, "clues": {"own": 1.0, "passes": 2}, "ema_decay": 0.9}
    second = run(tmp_path, "tse", "tse_ft", "--estimators", str(uss), "--init_param", start, **more)
    valid = statistics(second)["valid"]
    assert valid.keys() >= {"enrolment_sdri", "sdri_1", "sdri_2"} and valid["sdri"] == valid["sdri_2"]
    network = load_model(second, None, "tse").network
    assert network(torch.randn(1, 4, 8000), torch.eye(3)[None]).shape == (1, 3, 8000)


def test_separators_enrol_too_and_without_a_model_labels_are_the_clues(recipe, tmp_path):
    alone = run(tmp_path, "tse", "alone")
    assert "enrolment_sdri" not in statistics(alone)["valid"]
    after = run(tmp_path, "tse", "after", "--estimators", str(alone))
    assert "enrolment_sdri" in statistics(after)["valid"]


@pytest.mark.parametrize("joint", [True, False])
def test_a_tagger_among_the_estimators_gives_frame_posteriors(recipe, trained, tmp_path, joint):
    estimators = ["--estimators", str(trained / "separator"), str(trained / "tagger")]
    conf = {"network_conf": {"joint": joint, "time_film": True}, "clues": {"own": 1.0, "passes": 2}, "ema_decay": 0.9}
    folder = run(tmp_path, "tse", "tse", *estimators, **conf)
    assert statistics(folder)["valid"].keys() >= {"enrolment_sdri", "sdri_1", "sdri_2"}
    network, mixture = load_model(folder, None, "tse").network, torch.randn(1, 4, 8000)
    both = [network(mixture, torch.eye(3)[None], frames=frames) for frames in torch.rand(2, 1, 7, 3)]
    assert not torch.equal(*both)  # it has learned
    with pytest.raises(InputError, match="time_film: found true, and 0 taggers"):
        run(tmp_path, "tse", "alone", **conf)


@pytest.mark.parametrize(
    ("clues", "message"),
    [
        ({"zero": 1.5}, "key zero: found 1.5, expected a share"),
        ({"dry": 0.6, "zero": 0.6}, "keys dry and zero"),
        ({"own": 0.5, "passes": 0}, "key passes"),
        ({"wrong": 0.5}, "clues: key wrong: found an unknown key"),
    ],
)
def test_clues_are_checked(recipe, tmp_path, clues, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path, "tse", "tse", clues=clues)


def tiny(network, **changes):
    torch.manual_seed(0)
    return network(**{"n_labels": 3, **NETWORK, **changes})


def frozen(network):
    return TrainedModel(network.eval(), LabelSet(("a", "b", "c")), 3, 8000, "exp/uss")


def model(estimators=(), loss=None, **clues):
    return TSEModel(tiny(TSE, condition_dim=4), list(estimators), ClueConfig(**clues), loss or TSELoss())


def scenes(n_items=1):
    torch.manual_seed(1)
    dry = torch.randn(n_items, 3, 400) * torch.tensor([1.0, 1.0, 0.0])[:, None]
    return (
        (dry.sum(1) + 0.3 * torch.randn(n_items, 400))[:, None].repeat(1, 4, 1),
        dry,
        torch.tensor([[0, 2, 3]] * n_items),
    )


class Given(USS):
    """A USS network whose waveforms are given."""

    def forward(self, mixture):
        return super().forward(mixture)._replace(waveform=self.given)


def test_enrolments_are_the_outputs_of_uss_in_the_order_of_the_sources():
    mixture, dry, label_index = scenes()
    uss = tiny(Given)
    left = 0.1 * torch.randn(1, 400)
    others = torch.randn(1, 3, 400)
    uss.given = torch.cat((torch.stack((dry[:, 1] + 0.1, left, dry[:, 0]), 1), others), 1)
    enrolment, spare = model([frozen(uss)]).enrol(mixture, dry, label_index)
    torch.testing.assert_close(enrolment, torch.stack((dry[:, 0], dry[:, 1] + 0.1, torch.zeros(1, 400)), 1))
    assert not spare[:, :2].any()
    assert any(torch.equal(spare[0, 2], one) for one in (left[0], others[0, 0], others[0, 1]))


def vary(n_items=1000, **clues):
    mixture, dry, label_index = scenes(n_items)
    enrolment, spare = 0.9 * dry, torch.zeros_like(dry)
    spare[:, 2] = 1.0
    defaults = dict.fromkeys(("dry", "zero", "label_zero", "label_wrong", "silent"), 0.0)
    label_vector, found = model(**{**defaults, **clues}).vary(mixture, dry, label_index, enrolment, spare)
    return mixture, dry, enrolment, label_vector, found


def test_without_shares_clues_stay_as_they_are():
    _, _, enrolment, label_vector, found = vary()
    assert torch.equal(found, enrolment)
    assert torch.equal(label_vector[0], torch.eye(4)[[0, 2, 3]][:, :3])


def test_shares_of_the_clues():
    _, dry, enrolment, label_vector, found = vary(zero=0.3, dry=0.2, label_zero=0.2, label_wrong=0.1, silent=0.4)
    zero, kept = ~found[:, :2].any(-1), (found == enrolment).all(-1)[:, :2]
    assert zero.float().mean() == pytest.approx(0.3, abs=0.04) and kept.float().mean() == pytest.approx(0.5, abs=0.04)
    replaced = ~zero & ~kept
    snr = 10 * torch.log10(dry[:, :2].square().sum(-1) / (found - dry)[:, :2].square().sum(-1))[replaced]
    assert replaced.float().mean() == pytest.approx(0.2, abs=0.04) and -0.01 < snr.min() < 2 and 18 < snr.max() < 20.01
    labelled, true = label_vector[:, :2].any(-1), label_vector[:, :2].argmax(-1) == torch.tensor([0, 2])
    assert not (zero & ~labelled).any() and not (zero & ~true).any()  # what has no enrolment has its label
    assert (~labelled)[~zero].float().mean() == pytest.approx(0.2, abs=0.04)
    assert (labelled & ~true)[~zero].float().mean() == pytest.approx(0.1, abs=0.03)
    assert found[:, 2].any(-1).float().mean() == pytest.approx(0.4, abs=0.05) and not label_vector[:, 2].any()


def test_the_loss_lets_slots_without_enrolment_swap_and_no_others():
    mixture, dry, _ = scenes()
    same = torch.tensor([[1, 1, 3]])
    swapped = dry[:, [1, 0, 2]]
    loss, none = TSELoss(), torch.zeros(1, 3, dtype=torch.bool)
    free = loss(swapped, dry, same, none, mixture[:, 0], 3)
    fixed = loss(swapped, dry, same, torch.tensor([[True, False, False]]), mixture[:, 0], 3)
    assert free.item() == pytest.approx(-20, abs=0.1)  # the limit of 30 dB in two of three slots
    assert fixed > 0


def test_the_loss_asks_enrolled_silent_slots_for_silence():
    mixture, dry, label_index = scenes()
    enrolled = torch.tensor([[True, True, True]])
    loud, quiet = dry.clone(), dry
    loud[:, 2] = mixture[:, 0]
    one, other = (TSELoss()(out, dry, label_index, enrolled, mixture[:, 0], 3).item() for out in (loud, quiet))
    assert one - other == pytest.approx(0.1 * 30 / 3, abs=0.01)
    assert TSELoss(silence=0)(loud, dry, label_index, enrolled, mixture[:, 0], 3).item() == pytest.approx(
        other + 1, abs=0.01
    )


def test_weights_of_the_same_name_and_shape_start_from_uss():
    uss, tse = tiny(USS, ffn_dim=8), tiny(TSE, condition_dim=4, ffn_dim=8, decoder_dim=12)
    before = {key: value.clone() for key, value in tse.state_dict().items()}
    init_from(tse, frozen(uss))
    after, source = tse.state_dict(), uss.state_dict()
    assert all(torch.equal(after[key], source[key]) for key in after if key.startswith("backbone"))
    kept = [key for key in after if key not in source or source[key].shape != after[key].shape]
    assert all(torch.equal(after[key], before[key]) for key in kept)
    assert any(key.startswith("decoder") for key in kept) and any(key.startswith("enrolment") for key in kept)


def test_its_own_output_is_the_enrolment_as_decoding_makes_it():
    mixture, dry, label_index = scenes()
    tse = model().train()
    label_vector = torch.eye(4)[label_index][..., :3]
    found = tse.own(mixture, label_vector, 0.9 * dry, 2)
    assert tse.training and tse.network.training and not found.requires_grad
    tse.network.eval()
    with torch.no_grad():
        expected = tse.network(mixture, label_vector, tse.network(mixture, label_vector, 0.9 * dry))
    torch.testing.assert_close(found, expected)


def test_the_repositorys_configurations_are_valid(recipe):
    from s5.labels import DCASE_LABELS
    from s5.tasks.launch import _check_config
    from s5.tasks.uss import USSTask
    from s5.utils.config import ROOT

    facts = {"labels": list(DCASE_LABELS), "n_slots": 3, "sampling_rate": 32000}
    data = {"train_data": "data/train", "valid_data": "data/valid", "output_dir": "exp"}
    checked = []
    for kind, task in (("uss", USSTask), ("tse", TSETask)):
        for path in sorted((ROOT / "conf/tuning").glob(f"{kind}*.yaml")):
            config = load_inherited(path)
            if path.stem.endswith("_ft"):  # it continues the training of this name
                config = merge(load_inherited(path.with_name(f"{path.stem.removesuffix('_ft')}.yaml")), config)
            _check_config(task, {**config, **facts, **data}, path.stem)
            checked.append(path.stem)
    sizes = {f"{kind}{size}" for kind in ("uss", "tse") for size in ("", "_tiny", "_large")}
    assert sizes | {"tse_ft", "tse_tiny_ft", "tse_single", "tse_single_tiny", "uss_foreground_tiny"} <= set(checked)
