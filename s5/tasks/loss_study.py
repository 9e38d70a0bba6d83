"""The trainings of the study of separation losses: models that differ in their loss alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from s5.tasks.launch import train
from s5.utils.config import load_inherited, load_yaml
from s5.utils.errors import InputError

OWN = ("loss", "best_model_criterion")
"""Keys in which the configurations may differ."""

FINISHED = ".done"
"""Marker that the recipe leaves in the folder of a training that it has finished."""


def train_losses(
    configs: Sequence[str | Path],
    train_data: str,
    valid_data: str,
    expdir: str | Path,
    ngpu: int = -1,
    extra: Sequence[str] = (),
) -> dict[str, Path]:
    """Trains one separator a configuration; a training that is finished, here or by the recipe, is left as it is.

    Args:
        configs: training YAMLs; the folder is named after the file, without ``separator_``.
        train_data: data directory, usually virtual.
        valid_data: data directory.
        expdir: folder of the experiments.
        ngpu: number of GPUs; -1: all that there are.
        extra: further ESPnet options for all.

    Returns:
        Experiment folder by the name of the loss.

    Raises:
        InputError: two configurations with one loss, or configurations or trained models that differ in more than that.
    """
    loaded: dict[str, tuple[str | Path, dict[str, Any]]] = {}
    for path in configs:
        config = load_inherited(path)
        loss = config.get("loss", "ca_pi_sdr")
        if loss in loaded:
            raise InputError(f"{path}: key loss", f"{loss}, as in {loaded[loss][0]}", "another loss a configuration")
        loaded[loss] = (path, {key: value for key, value in config.items() if key not in OWN})
    first_path, first = next(iter(loaded.values()))
    for path, config in loaded.values():
        for key in sorted(set(first) | set(config)):
            if first.get(key) != config.get(key):
                raise InputError(f"{path}: key {key}", config.get(key), f"{first.get(key)}, as in {first_path}")
    folders = {}
    for loss, (path, _) in loaded.items():
        folders[loss] = Path(expdir, Path(path).stem.removeprefix("separator_"))
        if not (folders[loss] / FINISHED).is_file():
            train("separation", path, train_data, valid_data, folders[loss], ngpu, extra)
    check_alike(folders, list(first))
    return folders


def check_alike(folders: Mapping[str, Path], keys: Sequence[str]) -> None:
    """Refuses trained models that do not compare: another loss than is said, or another value of one of the keys.

    Args:
        folders: experiment folder by the name of the loss.
        keys: of the training configuration.
    """
    found = {loss: folder / "config.yaml" for loss, folder in folders.items()}
    trained = {loss: load_yaml(path) for loss, path in found.items()}
    reference = next(iter(folders))
    for loss, config in trained.items():
        if config.get("loss") != loss:
            raise InputError(f"{found[loss]}: key loss", config.get("loss"), loss)
        for key in keys:
            if config.get(key) != trained[reference].get(key):
                expected = f"{trained[reference].get(key)}, as in {found[reference]}"
                raise InputError(f"{found[loss]}: key {key}", config.get(key), expected)
