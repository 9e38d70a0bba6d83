"""Shared by all suites: golden values, and a tiny tree of raw material in the official layout (8 kHz, noise bursts, two
rooms)."""

import json
import os
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import sofar
import soundfile
import yaml

GOLDEN = Path(__file__).parent / "golden"
RATE = 8000


def fill_official(name: str) -> dict[str, np.ndarray]:
    """The deterministic weights of test/golden/README.md for ``<name>_state.json``: each key seeds its own values."""
    weights = {}
    for key, shape in json.loads((GOLDEN / f"{name}_state.json").read_text()).items():
        if "stft." in key or "to_spec" in key:
            continue
        random = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF)
        if key.endswith("norm_stats"):
            value = np.array([-7.1, 4.2])
        elif key.endswith("num_batches_tracked"):
            value = np.zeros(shape)
        elif key.endswith("running_var"):
            value = 0.5 + random.rand(*shape)
        elif len(shape) >= 2:
            value = random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        elif key.endswith(("weight", "gamma")):
            value = 1 + 0.1 * random.standard_normal(shape)
        else:
            value = 0.1 * random.standard_normal(shape)
        weights[key] = np.asarray(value, dtype=np.float32)
    return weights


@pytest.fixture
def golden() -> Path:
    """Folder of the golden values."""
    return GOLDEN


@pytest.fixture
def official_weights():
    """``official_weights("resunetk")``: the weights that the golden outputs were made with."""
    return fill_official


def ring(n: int, distance: float = 1.5) -> np.ndarray:
    """Spherical positions on a circle: [n, 3] azimuth, elevation, distance."""
    azimuth = np.arange(n) * 360.0 / n
    return np.stack([azimuth, 0 * azimuth, 0 * azimuth + distance], axis=1)


def decaying(positions: int, channels: int, n: int) -> np.ndarray:
    """Random impulse responses [positions, channels, n] whose direct sound is their largest sample."""
    rng = np.random.default_rng(0)
    rirs = rng.standard_normal((positions, channels, n)) * np.exp(-np.arange(n) / (n / 8)) * 0.2
    for rir in rirs:
        rir[:, rng.integers(20, 60)] = 1.5
    return rirs


def _write_room(path, positions=12, kind="spherical", channels=4, rate=RATE, rirs=None) -> np.ndarray:
    """Writes a SOFA file; ``positions`` is an array [M, 3] or the number of positions on a circle."""
    positions = ring(positions) if isinstance(positions, int) else np.asarray(positions, dtype=float)
    rirs = decaying(len(positions), channels, rate // 10) if rirs is None else rirs
    sofa = sofar.Sofa("GeneralFIR")
    sofa.SourcePosition = positions
    sofa.SourcePosition_Type = kind
    sofa.SourcePosition_Units = "degree, degree, metre" if kind == "spherical" else "metre"
    sofa.ReceiverPosition = np.zeros((rirs.shape[1], 3))
    sofa.Data_IR = rirs
    sofa.Data_Delay = np.zeros((1, rirs.shape[1]))
    sofa.Data_SamplingRate = rate
    path.parent.mkdir(parents=True, exist_ok=True)
    sofar.write_sofa(str(path), sofa, compression=0)
    return rirs


@pytest.fixture(scope="session")
def write_room():
    return _write_room


@pytest.fixture(scope="session")
def material(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("material")
    rng = np.random.default_rng(1)

    def sound(path: str, seconds: float, channels: int = 1) -> None:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, 0.1 * rng.standard_normal((int(seconds * RATE), channels)), RATE)

    for voice in range(3):
        for i in range(3):
            sound(f"raw/sound_event/Speech/voice{voice}/{i}.flac", 0.3 + 0.4 * i)
    sound("raw/sound_event/Speech/voice2/long.wav", 5.0)
    for kit in range(2):
        sound(f"raw/sound_event/Percussion/kit{kit}/a.wav", 0.4)
    for i in range(4):
        sound(f"raw/sound_event/Cough/{i}.ogg", 0.5 + 0.2 * i)
    for label in ("Rain", "Cart"):
        for i in range(2):
            sound(f"raw/interference/{label}/{i}.flac", 1.0 + i)
    sound("raw/noise/long.flac", 6.0, 4)
    sound("raw/noise/short.flac", 0.7, 4)
    _write_room(root / "raw/room_ir/a.sofa")
    _write_room(root / "raw/room_ir/b.sofa", [[2, 0, 0], [0, 2, 0], [-2, 0, 0.5], [0, -2, -1]], "cartesian")
    return root


@pytest.fixture
def config() -> dict:
    return {
        "labels": ["Cough", "Percussion", "Speech"],
        "sampling_rate": RATE,
        "duration": 2.0,
        "max_event_duration": 1.5,
        "dirs": {name: f"raw/{name}" for name in ("sound_event", "interference", "noise", "room_ir")},
    }


# A recipe folder with a virtual training set and a fixed validation set at 8 kHz, and the smallest models.
SYSTEM = """
taggers:
  tagger: {train: tagger.yaml, finetune: tagger_ft.yaml}
separators:
  separator: {train: separator.yaml}
"""
COMMON = {
    "max_epoch": 2,
    "num_scenes": 4,
    "batch_size": 2,
    "num_workers": 0,
    "num_threads": 1,  # sums in one order, however many threads other tests leave
    "optim": "adamw",
    "optim_conf": {"lr": 1e-3},
    "keep_nbest_models": 2,
    "seed": 3,
    "use_matplotlib": False,
    "num_examples": 0,
}
ENCODER = {"sampling_rate": 8000, "input_size": [80, 201], "dim": 8, "depth": 2, "heads": 2}
TAGGER = {
    **COMMON,
    "network": "m2d",
    "network_conf": {"n_channels": 1, "encoder": ENCODER, "head": {"track_dim": 8, "hidden_dim": 8}},
    "best_model_criterion": [["valid", "acc3", "max"]],
}
SEPARATOR = {
    **COMMON,
    "network": "resunetk",
    "network_conf": {"n_fft": 128, "hop_length": 64, "widths": [2, 3], "condition_dim": 4},
    "scene_conf": {"n_events": [1, 3]},
    "best_model_criterion": [["valid", "sdri", "max"]],
}


@pytest.fixture(scope="session")
def recipe_folder(tmp_path_factory, material):
    """Built once: data/train (virtual), data/valid (four mixtures), the system and its training YAMLs."""
    from s5.bin.simulate import main

    root = tmp_path_factory.mktemp("recipe")
    dirs = {name: str(material / "raw" / name) for name in ("sound_event", "interference", "noise", "room_ir")}
    config = {
        "labels": ["Cough", "Percussion", "Speech"],
        "sampling_rate": 8000,
        "duration": 2.0,
        "max_event_duration": 1.5,
        "num_scenes": 4,
        "dirs": dirs,
    }
    (root / "scenes.yaml").write_text(yaml.safe_dump(config))
    main(["--config", str(root / "scenes.yaml"), "--out", str(root / "data/train"), "--virtual"])
    main(["--config", str(root / "scenes.yaml"), "--out", str(root / "data/valid")])
    (root / "system.yaml").write_text(SYSTEM)
    (root / "tagger.yaml").write_text(yaml.safe_dump(TAGGER))
    (root / "tagger_ft.yaml").write_text("inherit: tagger.yaml\nmax_epoch: 1\nnetwork_conf: {trainable: head}\n")
    (root / "separator.yaml").write_text(yaml.safe_dump(SEPARATOR))
    return root


@pytest.fixture
def recipe(recipe_folder, monkeypatch):
    """The recipe folder as the working directory."""
    monkeypatch.chdir(recipe_folder)
    return recipe_folder


@pytest.fixture(scope="session")
def trained(recipe_folder):
    """exp/ with two epochs of both models and the fine-tuned tagger."""
    from s5.tasks.launch import train_model

    here = os.getcwd()
    os.chdir(recipe_folder)
    try:
        for model, phase in (("tagger", "train"), ("separator", "train"), ("tagger", "finetune")):
            train_model("system.yaml", model, phase, "data/train", "data/valid", "exp", 0)
    finally:
        os.chdir(here)
    return recipe_folder / "exp"


# A system that refines with a source tagger; paths in its YAML are absolute.
SOURCE_TAGGER = {
    **COMMON,
    "network": "source_tagger",
    "network_conf": {"encoder": {**ENCODER, "kind": "m2d"}, "embedding_dim": 8, "trainable": "all"},
    "rest": "residual",
    "num_examples": 1,
    "scene_conf": {"n_events": [1, 3], "interference": [1, 2]},
    "best_model_criterion": [["valid", "accuracy_estimates", "max"]],
}


@pytest.fixture(scope="session")
def source_trained(recipe_folder, trained, tmp_path_factory):
    """system.yaml with a source tagger that is trained on a separator's outputs, and exp/."""
    from s5.tasks.launch import train_model

    root = tmp_path_factory.mktemp("source")
    (root / "source.yaml").write_text(yaml.safe_dump(SOURCE_TAGGER))
    keys = {kind: {kind[:-1]: {"experiment": kind[:-1]}} for kind in ("taggers", "separators")}
    keys["source_taggers"] = {"source": {"train": str(root / "source.yaml"), "estimates": ["separator"]}}
    (root / "system.yaml").write_text(yaml.safe_dump({**keys, "refine": {"tagger": "source", "n_min": 1}}))
    for name in ("tagger", "separator"):
        shutil.copytree(trained / name, root / "exp" / name, symlinks=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(recipe_folder)
        train_model(root / "system.yaml", "source", "train", "data/train", "data/valid", root / "exp", 0)
    return root


# An objects system: USS, TSE on its outputs, and a source tagger on those of both.
OBJECTS = """
kind: objects
uss: {uss: {train: objects_uss.yaml}}
tse: {tse: {train: objects_tse.yaml, finetune: objects_tse_ft.yaml, estimates: [uss]}}
source_taggers:
  source:
    train: objects_source.yaml
    finetune: objects_source_ft.yaml
    estimates: {train: [uss], finetune: [uss, tse]}
objects: {loops: 2, thresholds: 0.01, duplicates: 1.0}
"""
DUAL_PATH = {
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
SHORT = {**COMMON, "max_epoch": 1, "keep_nbest_models": 1}
OBJECTS_TRAININGS = {
    "uss": {
        **SHORT,
        "network": "uss",
        "network_conf": DUAL_PATH,
        "rest": "residual",
        "best_model_criterion": [["valid", "pi_sdri", "max"]],
    },
    "tse": {
        **SHORT,
        "network": "tse",
        "network_conf": {**DUAL_PATH, "condition_dim": 4, "enrolment_blocks": 0},
        "best_model_criterion": [["valid", "sdri", "max"]],
    },
    "tse_ft": {"clues": {"own": 0.5, "passes": 2}},
    "source": {
        **SHORT,
        "network": "source_tagger",
        "network_conf": {"encoder": {"kind": "m2d", **ENCODER}, "embedding_dim": 8},
        "rest": "residual",
        "best_model_criterion": [["valid", "accuracy_estimates", "max"]],
    },
    "source_ft": {"max_epoch": 1},
}


@pytest.fixture(scope="session")
def objects_trained(recipe_folder, tmp_path_factory):
    """Experiment folder of a trained objects system, whose YAML is objects.yaml in the recipe folder."""
    from s5.system.config import SystemConfig
    from s5.tasks.launch import train_model

    here, exp = os.getcwd(), tmp_path_factory.mktemp("objects")
    os.chdir(recipe_folder)
    try:
        Path("objects.yaml").write_text(OBJECTS)
        for name, keys in OBJECTS_TRAININGS.items():
            Path(f"objects_{name}.yaml").write_text(yaml.safe_dump(keys))
        for training in SystemConfig.load("objects.yaml").trainings().values():
            train_model("objects.yaml", training.model.name, training.phase, "data/train", "data/valid", exp, 0)
    finally:
        os.chdir(here)
    return exp
