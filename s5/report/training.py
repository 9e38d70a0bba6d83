"""Reads how models were trained from their experiment folders: config.yaml and the training log."""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from s5.system.training_log import read_epochs
from s5.utils.config import load_yaml
from s5.utils.errors import InputError

ASIDE = re.compile(r"\.(old|\d{8}-\d{6}(-\d+)?)$")
"""End of the folder's name of a model that run.sh has put aside."""


@dataclass(frozen=True)
class Training:
    """One trained model; facts that neither configuration nor log contain are None.

    Attributes:
        name: folder of the model in the experiment folder.
        parameters, trainable: numbers of all and of trainable parameters, e.g. "26.74 M".
        epochs, max_epoch: number of epochs so far, and their limit.
        criterion: criterion of the best epoch, e.g. "valid loss (min)".
        best_epoch, best_value: number of the best epoch, and its value.
        batch_size, seed: values of the configuration.
        time: time of training and validation together, without interruptions.
    """

    name: str
    parameters: str | None = None
    trainable: str | None = None
    epochs: int | None = None
    max_epoch: int | None = None
    criterion: str | None = None
    best_epoch: int | None = None
    best_value: float | None = None
    batch_size: int | None = None
    seed: int | None = None
    time: timedelta | None = None


def find_trainings(expdir: str | Path) -> list[Training]:
    """All trained models in ``expdir``, sorted by name. Unreadable configurations are left out with a warning."""
    found = []
    for config in sorted(Path(expdir).glob("*/config.yaml")):
        if ASIDE.search(config.parent.name):
            continue
        try:
            conf = load_yaml(config)
        except InputError as e:
            logging.warning("left out of the training table: %s", e)
            continue
        if "max_epoch" in conf and not conf.get("collect_stats"):
            found.append(read_training(config.parent, conf))
    return found


def read_training(folder: Path, conf: dict[str, Any]) -> Training:
    """Facts about one model from its folder and its ESPnet configuration."""
    phase, key, mode = criterion(conf)
    try:
        epochs = read_epochs(folder)
    except InputError as e:
        logging.warning("left out of the training table: %s", e)
        epochs = []
    values = {epoch.epoch: getattr(epoch, phase, {}).get(key, math.nan) for epoch in epochs}
    values = {number: value for number, value in values.items() if not math.isnan(value)}
    best_epoch = (min if mode == "min" else max)(values, key=lambda number: values[number]) if values else None
    return Training(
        name=folder.name,
        parameters=_count(epochs[-1].parameters) if epochs else None,
        trainable=_count(epochs[-1].trainable_parameters) if epochs else None,
        epochs=epochs[-1].epoch if epochs else None,
        max_epoch=_integer(conf.get("max_epoch")),
        criterion=f"{phase} {key} ({mode})" if key else None,
        best_epoch=best_epoch,
        best_value=values.get(best_epoch) if best_epoch is not None else None,
        batch_size=_integer(conf.get("batch_size")),
        seed=_integer(conf.get("seed")),
        time=sum((epoch.time for epoch in epochs), timedelta()) if epochs else None,
    )


def criterion(conf: dict[str, Any]) -> tuple[str, str, str]:
    """Phase, key and mode (min or max) of the first criterion in ESPnet's ``best_model_criterion``."""
    match conf.get("best_model_criterion"):
        case [[str(phase), str(key), str(mode)], *_]:
            return phase, key, mode
    return "valid", "", "min"


def _count(number: int) -> str:
    """A number of parameters as text.

    Example:
        >>> _count(26740971), _count(1500), _count(12)
        ('26.74 M', '1.50 K', '12')
    """
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) else None
