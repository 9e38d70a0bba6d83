"""Checks before a training: its initial weights fit the model, and its selection criteria fit the validation set."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s5.checkpoints import read_tensors
from s5.data import DataDir
from s5.labels import LabelSet
from s5.utils.config import load_yaml
from s5.utils.errors import InputError, one_of

_SUBSETS: dict[str, tuple[str, Callable[[Sequence[str]], bool]]] = {
    "_dup": ("in which a class repeats", lambda labels: len(set(labels)) < len(labels)),
    "_nodup": ("whose sources are of different classes", lambda labels: 0 < len(set(labels)) == len(labels)),
}
"""Suffixes of validation figures (s5.tasks.valid_metrics) and the mixtures that belong to their subsets."""


def check_start(task_class: Any, args: argparse.Namespace) -> None:
    """Checks the checkpoints of ``--init_param`` (``file`` or ESPnet's ``file:from:to``) and the selection criteria.

    A checkpoint must have all keys and shapes of the model, or of its part ``to``. If it lies in an experiment folder,
    the labels of that experiment must be the same in the same order, which shapes cannot show. A figure of DupSet needs
    a validation set in which a class repeats.

    Raises:
        InputError: a missing file, other keys, shapes or labels, or a figure of an empty subset.
    """
    _check_selection(args)
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
                raise InputError(f"{path}: key {key}", unknown, one_of(own, key, 3))
        for key, value in own.items():
            found = list(tensors[key].shape) if key in tensors else "nothing"
            if found != list(value.shape):
                raise InputError(f"{path}: key {key}", found, list(value.shape))


def _check_selection(args: argparse.Namespace) -> None:
    figures = [figure for phase, figure, _ in args.best_model_criterion if phase == "valid"]
    wanted = {figure: ending for figure in figures for ending in _SUBSETS if figure.endswith(ending)}
    if not wanted or not Path(args.valid_data, "wav.scp").is_file():  # the mixtures of a virtual set are not known
        return
    data = DataDir.load(args.valid_data, LabelSet(tuple(args.labels)), args.n_slots)
    for figure, ending in wanted.items():
        which, belongs = _SUBSETS[ending]
        if not any(belongs(labels) for labels in data.labels.values()):
            where, expected = f"{args.valid_data}/labels", f"one at least, for best_model_criterion {figure}"
            raise InputError(where, f"no mixture {which}", expected)


def _below(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Tensors of a part of a model by their names in the part. An empty name is the whole model."""
    prefix = f"{part}." if part else ""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix) and not k.startswith("raw")}


def _check_labels(config: Path, labels: list[str]) -> None:
    found = load_yaml(config).get("labels") if config.is_file() else None
    if found is not None and list(found) != list(labels):
        raise InputError(f"{config}: key labels", " ".join(found), f"those of the training data, {' '.join(labels)}")
