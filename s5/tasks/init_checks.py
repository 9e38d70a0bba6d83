"""What a training starts from and is judged by has to fit its model and its data: said in one line before it runs."""

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
"""How the names of validation figures of a subset end (s5.tasks.valid_metrics), and which mixtures are in it."""


def check_start(task_class: Any, args: argparse.Namespace) -> None:
    """Checks the checkpoints of ``--init_param`` (``file`` or ESPnet's ``file:from:to``).

    What is loaded has to have all the keys and shapes of the model, or of its part ``to``. Where the file lies in an
    experiment folder, that experiment's labels have to be the same ones in the same order: shapes would not tell.

    A figure that selects the model has to exist: a validation set in which no class repeats has none of DupSet.

    Raises:
        InputError: a file that is missing, holds other keys or shapes, or was trained for other labels; a figure of
            a subset that is empty.
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
    if not wanted or not Path(args.valid_data, "wav.scp").is_file():  # a virtual set has whatever is drawn
        return
    data = DataDir.load(args.valid_data, LabelSet(tuple(args.labels)), args.n_slots)
    for figure, ending in wanted.items():
        which, belongs = _SUBSETS[ending]
        if not any(belongs(labels) for labels in data.labels.values()):
            where, expected = f"{args.valid_data}/labels", f"one at least, for best_model_criterion {figure}"
            raise InputError(where, f"no mixture {which}", expected)


def _below(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """The tensors of a part of a model by their names in it; of the whole model for an empty name."""
    prefix = f"{part}." if part else ""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix) and not k.startswith("raw")}


def _check_labels(config: Path, labels: list[str]) -> None:
    found = load_yaml(config).get("labels") if config.is_file() else None
    if found is not None and list(found) != list(labels):
        raise InputError(f"{config}: key labels", " ".join(found), f"those of the training data, {' '.join(labels)}")
