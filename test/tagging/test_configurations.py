"""Every training configuration of a tagger builds, and says what the reports say."""

import argparse
import copy

import pytest
import torch

from s5.labels import DCASE_LABELS
from s5.system.config import SystemConfig
from s5.system.derived import derived_sizes
from s5.system.sizes import training_keys
from s5.tasks.launch import _task
from s5.utils.config import ROOT, merge, yaml_chain

SYSTEMS = ROOT / "conf/systems"
MINI = ("deng2026", "nguyen2026", "park2025", "taggers", "taggers_multihot")
EIGHT = list(DCASE_LABELS[:8])


def small(name):
    return name.removesuffix("_ft").removesuffix("_long").endswith(("_tiny", "_smoke"))


def taggers():
    """Keys of the trainings of all taggers by their experiment folder."""
    found = {}
    for path in sorted(SYSTEMS.rglob("*.yaml")):
        if path.parent.name == "parts":
            continue
        for size in ("full", "mini")[: 1 + bool({path.stem, path.parent.name} & set(MINI))]:
            for model in SystemConfig.load(f"{path}:{size}").taggers:
                found |= {model.folder(phase): training_keys(model.files(phase), size) for phase in model.phases()}
    scenes = {name: (16000, 4.0) if small(name) else (32000, 10.0) for name in found}
    return {name: merge(keys, derived_sizes(keys, *scenes[name])) for name, keys in found.items()}


TRAININGS = taggers()
NAMES = sorted(TRAININGS)


@pytest.fixture(scope="module")
def task():
    return _task("tagging")


@pytest.mark.parametrize("name", NAMES)
def test_it_builds(name, task):
    """On the meta device: full sizes, no weights, no memory."""
    config = TRAININGS[name]
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
    first, second = (copy.deepcopy(TRAININGS[n]) for n in (name.removesuffix("_ft"), name))
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
    assert set(SETTINGS) == {name.removesuffix("_ft") for name in NAMES if not small(name)}


@pytest.mark.parametrize("phase", ["", "_ft"])
@pytest.mark.parametrize("name", SETTINGS)
def test_hyper_parameters_of_the_reports(name, phase):
    config = TRAININGS[f"{name}{phase}"]
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
    network = copy.deepcopy(TRAININGS[name]["network_conf"])
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


def test_a_system_trains_with_each_yaml():
    """So that ``./run.sh --system`` can."""
    used = set()
    for path in SYSTEMS.rglob("*.yaml"):
        if path.parent.name != "parts":
            for model in SystemConfig.load(path).taggers:
                used |= {file.stem for training in model.phases().values() for file in yaml_chain(ROOT / training)}
    assert {path.stem for path in (ROOT / "conf/tuning").glob("tagger_*.yaml")} <= used


def test_the_small_taggers_have_one_budget():
    budgets = set()
    for system in ("taggers", "taggers_multihot"):
        for model in SystemConfig.load(f"{SYSTEMS / system}.yaml:mini").taggers:
            chain = [TRAININGS[model.folder(phase)] for phase in model.phases()]
            budgets.add(tuple((c["batch_size"], c["num_scenes"], c["max_epoch"]) for c in chain))
    assert len(budgets) == 1
