"""Trainings of separators: networks, losses, averages of the weights, fine-tuning of what is fine-tuned."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from s5.system.model import load_model
from s5.system.trained import best_checkpoint
from s5.tasks.launch import train, train_model
from s5.utils.config import load_inherited
from s5.utils.errors import InputError

NETWORKS = yaml.safe_load((Path(__file__).parent / "networks.yaml").read_text())
TFGRIDNET, IFASNET = NETWORKS["tfgridnet"], NETWORKS["espnet"]


def config(tmp_path, **changes):
    """A training YAML: the small separator of the recipe with changes, one epoch."""
    base = load_inherited("separator.yaml")
    if "network" in changes:
        base.pop("network_conf")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**base, "max_epoch": 1, "keep_nbest_models": 1, **changes}))
    return path


def run(tmp_path, *extra, name="exp", **changes):
    folder = tmp_path / name
    train("separation", config(tmp_path, **changes), "data/train", "data/valid", folder, 0, extra)
    return folder


def weights(path):
    return torch.load(path, weights_only=True)


def statistics(folder):
    """What ESPnet's reporter kept: {epoch: {phase: {name: value}}}."""
    from s5.tasks.espnet_patches import load_only_weights

    load_only_weights()
    return torch.load(folder / "checkpoint.pth", weights_only=True)["reporter"]["stats"]


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_other_networks_train_and_decode(recipe, tmp_path, network):
    folder = run(tmp_path, "--bf16", "true", num_scenes=2, **network)
    separator = load_model(folder, None, "separator")
    mixture = np.random.default_rng(0).standard_normal((4, 8000)).astype(np.float32)
    sources = separator.separate(mixture, ["Cough", "Speech"])
    assert sources.shape == (3, 8000) and sources[:2].any(axis=1).all() and not sources[2].any()
    full, half = (separator.separate(mixture, ["Cough"], precision) for precision in ("fp32", "bf16"))
    assert 0 < np.abs(full - half).max() < 0.1 * np.abs(full).max()


@pytest.mark.parametrize("loss", ["ca_sdr", "pi_sdr", "snr"])
def test_every_loss_trains_and_reports_figures_that_compare(recipe, tmp_path, loss):
    folder = run(tmp_path, num_scenes=2, loss=loss, best_model_criterion=[["valid", "pi_sdri", "max"]])
    valid = statistics(folder)[1]["valid"]
    assert {"loss", "sdri", "pi_sdri"} <= set(valid)
    assert valid["pi_sdri"] >= valid["sdri"] - 1e-6  # it may choose among more permutations
    assert best_checkpoint(folder).name.startswith("valid.pi_sdri.")


def test_random_permutations_are_those_of_the_seed(recipe, tmp_path):
    scenes = {"n_events": [3, 3], "same_class_probability": 1.0}
    first, second, other = (
        weights(run(tmp_path, name=name, loss=loss, scene_conf=scenes) / "1epoch.pth")
        for name, loss in (("a", "ca_sdr"), ("b", "ca_sdr"), ("c", "snr"))
    )
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_single_query_networks_train_with_one_source_at_a_time(recipe, tmp_path):
    conf = {**load_inherited("separator.yaml")["network_conf"], "single_query": True}
    folder = run(tmp_path, num_scenes=2, network="resunetk", network_conf=conf, queries="one", loss="snr")
    separator = load_model(folder, None, "separator")
    mixture = np.random.default_rng(0).standard_normal((4, 8000)).astype(np.float32)
    both, one = (separator.separate(mixture, labels) for labels in (["Cough", "Speech"], ["Speech"]))
    assert both.shape == (3, 8000) and not both[2].any()
    np.testing.assert_allclose(both[1], one[0], atol=1e-6)  # each query by itself


def test_average_of_the_weights(recipe, tmp_path):
    """After n steps the decay is min(ema_decay, (1 + n) / (10 + n)): followed step by step with plain trainings."""
    folder = run(tmp_path, ema_decay=0.5, max_epoch=1, num_scenes=6, name="ema")
    saved = weights(folder / "1epoch.pth")
    plain = run(tmp_path, num_scenes=6, name="plain")
    steps = [weights(run(tmp_path, num_scenes=2 * n, name=f"steps{n}") / "1epoch.pth") for n in (1, 2, 3)]
    for key, value in weights(plain / "1epoch.pth").items():
        assert torch.equal(saved[key.replace("network.", "raw.")], value)
        if value.is_floating_point():
            first, second, third = (step[key] for step in steps)
            expected = torch.lerp(torch.lerp(first, second, 1 - 2 / 11), third, 1 - 3 / 12)
            torch.testing.assert_close(saved[key], expected, rtol=1e-5, atol=1e-7)
    network = load_model(folder, None, "separator").network.state_dict()
    assert all(torch.equal(network[key], saved[f"network.{key}"]) for key in network)


def test_training_with_an_average_resumes_where_it_stopped(recipe, tmp_path):
    whole = run(tmp_path, ema_decay=0.9, max_epoch=2, name="whole")
    run(tmp_path, "--max_epoch", "1", ema_decay=0.9, max_epoch=2, name="parts")
    parts = run(tmp_path, ema_decay=0.9, max_epoch=2, name="parts")
    expected = weights(whole / "2epoch.pth")
    assert any(key.startswith("raw.") for key in expected)
    assert any(not torch.equal(expected[k], expected[k.replace("network.", "raw.")]) for k in expected if "film" in k)
    for key, value in weights(parts / "2epoch.pth").items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=0)
    assert statistics(parts)[2]["valid"]["loss"] == statistics(whole)[2]["valid"]["loss"]


@pytest.mark.parametrize("network", ["resunetk", "locoformer"])
def test_a_resumed_training_draws_the_passes_that_it_would_have_drawn(recipe, tmp_path, network):
    small = NETWORKS.get(network) or load_inherited("separator.yaml")
    small = {"network": network, "network_conf": {**small["network_conf"], "passes": 3}}
    whole = run(tmp_path, max_epoch=2, name="whole", **small)
    run(tmp_path, "--max_epoch", "1", max_epoch=2, name="parts", **small)
    parts = run(tmp_path, max_epoch=2, name="parts", **small)
    expected = weights(whole / "2epoch.pth")
    assert expected["network.passes.steps"] == 4
    for key, value in weights(parts / "2epoch.pth").items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=0)
    separator = load_model(parts, None, "separator")
    mixture = np.random.default_rng(0).standard_normal((4, 8000)).astype(np.float32)
    assert separator.network.passes.draw() == 3 and separator.separate(mixture, ["Cough"])[0].any()


def test_fine_tuning_goes_on_from_a_fine_tuned_model(recipe, tmp_path):
    """The first training keeps an average: the second starts from it; the third from the second."""
    first, second, third = (tmp_path / f"{name}.yaml" for name in ("first", "second", "third"))
    first.write_text(config(tmp_path, ema_decay=0.9).read_text())
    second.write_text("ema_decay: 0.0\noptim_conf: {lr: 0.0}\nscheduler: null\n")
    third.write_text("")
    (tmp_path / "system.yaml").write_text(
        f"taggers: {{t: {{train: tagger.yaml}}}}\n"
        f"separators: {{s: {{train: {first}, finetune: [{second}, {third}]}}}}\n"
    )
    for phase in ("train", "finetune", "finetune2"):
        train_model(tmp_path / "system.yaml", "s", phase, "data/train", "data/valid", tmp_path / "exp", 0)
    start = weights(best_checkpoint(tmp_path / "exp/s"))
    for name in ("s_ft", "s_ft2"):  # with a learning rate of zero the weights stay; batch statistics move on
        tuned = weights(tmp_path / "exp" / name / "1epoch.pth")
        assert not [key for key in tuned if key.startswith("raw")]
        for key, value in tuned.items():
            if "running" not in key and "num_batches" not in key:
                assert torch.equal(value, start[key])
    moved = [
        weights(tmp_path / f"exp/{name}/1epoch.pth")["network.base.bn0.num_batches_tracked"]
        for name in ("s_ft", "s_ft2")
    ]
    assert moved[1] > moved[0]
    with pytest.raises(InputError, match="no finetune3 phase, expected finetune"):
        train_model(tmp_path / "system.yaml", "s", "finetune3", "data/train", "data/valid", tmp_path / "exp", 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queries": "one"}, "key queries: found one, expected all, or a single-query network"),
        ({"ema_decay": 1.0}, r"key ema_decay: found 1\.0, expected at least 0 and below 1"),
        ({"num_threads": 0}, "num_threads: found 0, expected a whole number of at least 1"),
        ({"num_threads": "1"}, "num_threads: found '1', expected a whole number of at least 1"),
        ({"loss": "si_sdr"}, "key loss: found si_sdr, expected"),
        ({**TFGRIDNET, "network_conf": {"conditioning": "add"}}, r"network_conf: key conditioning: found 'add'"),
        ({**IFASNET, "network_conf": {}}, "network_conf: key separator: found nothing"),
        (
            {**IFASNET, "network_conf": {"separator": "uses_separator.USES"}},
            r"separator: found uses_separator\.USES, exp",
        ),
    ],
)
def test_what_cannot_be_trained_is_named(recipe, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path, **changes)


def test_every_separator_of_the_repository_is_a_valid_configuration(recipe):
    """Keys, arguments, criteria and sizes, for the challenge's 18 labels."""
    from s5.labels import DCASE_LABELS
    from s5.tasks.launch import _check_config
    from s5.tasks.separation import SeparationTask
    from s5.utils.config import ROOT

    configs = {path.stem: load_inherited(path) for path in sorted((ROOT / "conf/tuning").glob("separator_*.yaml"))}
    facts = {"labels": list(DCASE_LABELS), "n_slots": 3, "sampling_rate": 32000}
    data = {"train_data": "data/train", "valid_data": "data/valid", "output_dir": "exp"}
    checked = {name for name, config in configs.items() if "network" in config}  # the others are inherited from
    assert {"separator_resunetk", "separator_tfgridnet", "separator_resunet_2025", "separator_uses_tiny"} <= checked
    assert {"separator_locoformer", "separator_locoformer_large", "separator_locoformer_tiny"} <= checked
    for name in sorted(checked):
        _check_config(SeparationTask, {**configs[name], **facts, **data}, name)
