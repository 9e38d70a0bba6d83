"""Every training configuration of a tagger builds, and says what the reports say."""

import argparse
from pathlib import Path

import pytest
import torch

from s5.config import ROOT, load_inherited, resolve
from s5.labels import DCASE_LABELS
from s5.system import SystemConfig
from s5.tasks.launch import _task

TUNING = ROOT / "conf/tuning"
BASES = {"tagger_official", "tagger_m2d_official", "tagger_tiny", "tagger_m2d_base_tiny"}
NAMES = sorted(p.stem for p in TUNING.glob("tagger_*.yaml") if p.stem not in BASES)
EIGHT = list(DCASE_LABELS[:8])


@pytest.fixture(scope="module")
def task():
    return _task("tagging")


def small(name):
    return name.removesuffix("_ft").endswith(("_tiny", "_smoke"))


@pytest.mark.parametrize("name", NAMES)
def test_it_builds(name, task):
    """On the meta device: full sizes, no weights, no memory."""
    config = load_inherited(TUNING / f"{name}.yaml")
    actions = {action.dest for action in task.get_parser()._actions}
    assert set(config) <= actions
    facts = {"labels": EIGHT if small(name) else list(DCASE_LABELS), "sampling_rate": 16000 if small(name) else 32000}
    defaults = vars(task.get_parser().parse_args(["--output_dir", "unused"]))
    with torch.device("meta"):
        model = task.build_model(argparse.Namespace(**{**defaults, **config, **facts}))
    head = model.network.head
    assert head.n_classes == len(facts["labels"]) + 1
    trained = {key.split(".")[1] for key, p in model.named_parameters() if p.requires_grad}
    if config["network_conf"].get("trainable") == "head":
        assert trained == {"head"} | ({"features"} if config["network_conf"].get("features") else set())
    else:
        assert {"head", "encoder"} <= trained
    assert config["best_model_criterion"][0][1] in task.valid_figures


@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith("_ft")])
def test_a_second_training_is_of_the_same_network(name):
    first, second = (load_inherited(TUNING / f"{n}.yaml") for n in (name.removesuffix("_ft"), name))
    for config in (first, second):
        config["network_conf"].pop("trainable", None)
    assert first["network"] == second["network"] and first["network_conf"] == second["network_conf"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # name: learning rate, batch, scenes an epoch, epochs
        ("m2d_fc_4c", (1e-3, 128, 25088, 300)),
        ("m2d_fc_4c_ft", (1e-5, 128, 640, 200)),
        ("m2d_fc_1c_nguyen2026", (1e-3, 64, 25088, 300)),
        ("m2d_fc_1c_nguyen2026_ft", (1e-5, 32, 640, 200)),
        ("m2d_bigru", (1e-3, 128, 25088, 300)),
        ("clap_fc", (1e-3, 128, 25088, 300)),
        ("m2d_multihot", (1e-3, 32, 100000, 300)),
        ("m2d_multihot_ft", (1e-5, 16, 600, 1500)),
        ("m2d_rolloff_chroma", (1e-3, 32, 2496, 140)),
        ("m2d_rolloff_chroma_ft", (1e-5, 128, 600, 1500)),
    ],
)
def test_hyper_parameters_of_the_reports(name, expected):
    config = load_inherited(TUNING / f"tagger_{name}.yaml")
    found = (config["optim_conf"]["lr"], config["batch_size"], config["num_scenes"], config["max_epoch"])
    assert found == expected
    assert config["network_conf"]["trainable"] == ("2_blocks" if name.endswith("_ft") else "head")


def test_the_small_taggers_have_one_budget():
    budgets = set()
    for system in ("mini_taggers", "mini_taggers_multihot"):
        for model in SystemConfig.load(f"conf/systems/{system}.yaml").taggers:
            chain = [load_inherited(resolve(path)) for path in model.phases().values()]
            budgets.add(tuple((c["batch_size"], c["num_scenes"], c["max_epoch"]) for c in chain))
            assert all(Path(resolve(path)).is_file() for path in model.phases().values())
    assert len(budgets) == 1
