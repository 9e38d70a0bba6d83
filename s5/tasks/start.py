"""What a training starts from has to fit the model and its labels: said in one line before anything runs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s5.checkpoints import read_tensors
from s5.config import load_yaml
from s5.errors import InputError, one_of


def check_start(task_class: Any, args: argparse.Namespace) -> None:
    """Checks the checkpoints of ``--init_param`` (``file`` or ESPnet's ``file:from:to``).

    What is loaded has to have all the keys and shapes of the model, or of its part ``to``. Where the file lies in an
    experiment folder, that experiment's labels have to be the same ones in the same order: shapes would not tell.

    Raises:
        InputError: a file that is missing, holds other keys or shapes, or was trained for other labels.
    """
    for start in args.init_param:
        path, source, target, without = (*str(start).split(":"), "", "", "")[:4]
        tensors = read_tensors(path)
        _check_labels(Path(path).parent / "config.yaml", args.labels)
        if without or args.ignore_init_mismatch:
            continue
        with torch.device("meta"):
            own = _below(task_class.build_model(args).state_dict(), target)
        tensors = _below(tensors, source)
        for key in tensors:
            if key not in own:
                unknown = f"a key that the model lacks ({len(set(tensors) - set(own))} in all)"
                raise InputError(f"{path}: key {key}", unknown, one_of(_near(own, key)))
        for key, value in own.items():
            found = list(tensors[key].shape) if key in tensors else "nothing"
            if found != list(value.shape):
                raise InputError(f"{path}: key {key}", found, list(value.shape))


def _below(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """The tensors of a part of a model by their names in it; of the whole model for an empty name."""
    prefix = f"{part}." if part else ""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix) and not k.startswith("raw")}


def _check_labels(config: Path, labels: list[str]) -> None:
    found = load_yaml(config).get("labels") if config.is_file() else None
    if found is not None and list(found) != list(labels):
        raise InputError(f"{config}: key labels", " ".join(found), f"those of the training data, {' '.join(labels)}")


def _near(names: Any, key: str) -> list[str]:
    import difflib

    return difflib.get_close_matches(key, list(names), n=3, cutoff=0.3) or list(names)[:3]
