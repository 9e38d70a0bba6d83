"""A recipe folder with a virtual training set and a fixed validation set at 8 kHz, and the smallest models."""

import pytest
import yaml

SYSTEM = """
taggers:
  - {name: tagger, train: tagger.yaml, finetune: tagger_ft.yaml}
separators:
  - {name: separator, train: separator.yaml}
"""
COMMON = {
    "max_epoch": 2,
    "num_scenes": 4,
    "batch_size": 2,
    "num_workers": 0,
    "optim": "adamw",
    "optim_conf": {"lr": 1e-3},
    "keep_nbest_models": 2,
    "seed": 3,
    "use_matplotlib": False,
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
