"""Every training configuration of a tagger builds, and says what the reports say."""

import argparse
from pathlib import Path

import pytest
import torch

from s5.labels import DCASE_LABELS
from s5.system.config import SystemConfig
from s5.tasks.launch import _task
from s5.utils.config import ROOT, load_inherited, resolve

TUNING = ROOT / "conf/tuning"
BASES = {"tagger_official", "tagger_m2d_official", "tagger_tiny", "tagger_m2d_base_tiny"}
NAMES = sorted(p.stem for p in TUNING.glob("tagger_*.yaml") if p.stem not in BASES)
EIGHT = list(DCASE_LABELS[:8])


@pytest.fixture(scope="module")
def task():
    return _task("tagging")


def small(name):
    return name.removesuffix("_ft").removesuffix("_long").endswith(("_tiny", "_smoke"))


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


BASELINE_2026 = {"": (1e-3, 128, 25088, 300), "_ft": (1e-5, 128, 640, 200)}  # four GPUs of 32
NGUYEN = {"": (1e-3, 64, 25088, 300), "_ft": (1e-5, 32, 640, 200)}  # four GPUs of 16, of 8
BASELINE_2025 = {"": (1e-3, 256, 100000, 300), "_ft": (1e-5, 128, 600, 1500)}  # eight GPUs of 32, of 16
PARK = {"": (1e-3, 32, 2496, 140), "_ft": (1e-5, 128, 600, 1500)}  # one GPU
SETTINGS = {
    **dict.fromkeys(("m2d_fc_1c", "m2d_fc_4c", "m2d_bigru", "clap_fc", "clap_fc_microsoft"), BASELINE_2026),
    **dict.fromkeys(("m2d_fc_1c_nguyen2026", "m2d_fc_4c_nguyen2026"), NGUYEN),
    "m2d_multihot": BASELINE_2025,
    **dict.fromkeys(("m2d_dual", "m2d_rolloff", "m2d_chroma", "m2d_rolloff_chroma"), PARK),
}
"""Learning rate, mixtures of a batch on all GPUs together, scenes an epoch, epochs; of both trainings."""


def test_every_full_size_tagger_is_in_the_table():
    assert set(SETTINGS) == {name.removeprefix("tagger_").removesuffix("_ft") for name in NAMES if not small(name)}


@pytest.mark.parametrize("phase", ["", "_ft"])
@pytest.mark.parametrize("name", SETTINGS)
def test_hyper_parameters_of_the_reports(name, phase):
    config = load_inherited(TUNING / f"tagger_{name}{phase}.yaml")
    optimizer = config["optim_conf"]
    assert (optimizer["lr"], config["batch_size"], config["num_scenes"], config["max_epoch"]) == SETTINGS[name][phase]
    nguyen = name.endswith("_nguyen2026")
    assert config["optim"] == ("adam" if nguyen else "adamw")
    assert optimizer["weight_decay"] == 0 and optimizer["amsgrad"] == (not nguyen)
    assert config["grad_clip"] == 0.5 and "scheduler" not in config
    assert config["best_model_criterion"] == [["valid", "loss", "min"]] and config["keep_nbest_models"] == 1
    stages = "1_blocks" if name.startswith("clap") else "2_blocks"
    assert config["network_conf"]["trainable"] == (stages if phase else "head")


@pytest.mark.parametrize("name", SETTINGS)
def test_encoders_heads_and_features_of_the_reports(name):
    network = load_inherited(TUNING / f"tagger_{name}.yaml")["network_conf"]
    encoder, head, features = network["encoder"], dict(network["head"]), network.get("features", [])
    four = name.startswith(("m2d_fc_4c", "m2d_bigru"))
    assert (encoder["kind"], encoder["n_channels"]) == ("htsat" if "clap" in name else "m2d", 4 if four else 1)
    kind = head.pop("kind")
    if "_fc" in name:
        assert (kind, head) == ("track", {"track_dim": 1024, "hidden_dim": 512})
    else:
        assert kind == {"m2d_bigru": "bigru", "m2d_multihot": "multihot"}.get(name, "dual_path")
    assert [feature.pop("kind") for feature in features] == [k for k in ("rolloff", "chroma") if k in name]
    shares = {"n_fft": 800, "hop_length": 320}
    own = {"rolloff": {"roll_percent": 0.85}, "chroma": {"n_chroma": 12}}
    assert features == [{**shares, **own[k]} for k in own if k in name]


def test_a_system_trains_each_of_them():
    """So that ``./run.sh --system`` can."""
    trained = set()
    for path in (ROOT / "conf/systems").rglob("*.yaml"):
        if path.parent.name != "parts":
            for model in SystemConfig.load(path).taggers:
                trained |= {Path(training).stem for training in model.phases().values()}
    assert set(NAMES) <= trained


def test_the_small_taggers_have_one_budget():
    budgets = set()
    for system in ("mini_taggers", "mini_taggers_multihot"):
        for model in SystemConfig.load(f"conf/systems/{system}.yaml").taggers:
            chain = [load_inherited(resolve(path)) for path in model.phases().values()]
            budgets.add(tuple((c["batch_size"], c["num_scenes"], c["max_epoch"]) for c in chain))
            assert all(Path(resolve(path)).is_file() for path in model.phases().values())
    assert len(budgets) == 1
