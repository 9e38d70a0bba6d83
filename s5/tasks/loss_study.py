"""The trainings of the study of separation losses: models that differ in their loss alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s5.config import load_inherited
from s5.errors import InputError
from s5.tasks.launch import train

OWN = ("loss", "best_model_criterion")
"""Keys in which the configurations may differ."""


def train_losses(
    configs: Sequence[str | Path],
    train_data: str,
    valid_data: str,
    expdir: str | Path,
    ngpu: int = -1,
    extra: Sequence[str] = (),
) -> dict[str, Path]:
    """Trains one separator a configuration; a finished training is left as it is.

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
        InputError: two configurations with one loss, or that differ in more than the loss.
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
        train("separation", path, train_data, valid_data, folders[loss], ngpu, extra)
    return folders
