"""Reads an experiment folder's configuration and finds its best checkpoint. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from s5.labels import LabelSet
from s5.system.config import WEIGHTS
from s5.utils.config import load_yaml, parse
from s5.utils.errors import InputError, one_of


class ModelMeta(NamedTuple):
    """Label set, number of slots and sampling rate (Hz) of a trained model."""

    labels: LabelSet
    n_slots: int
    sampling_rate: int


@dataclass
class NetworkConfig:
    """The keys of a trained model's config.yaml that define its network.

    Attributes:
        labels: labels in the order of the class index.
        n_slots: K.
        sampling_rate: sampling rate in Hz.
        network: name in a table of :data:`s5.system.kinds.KINDS`.
        network_conf: arguments of the network.
        best_model_criterion: lists of phase, figure and ``min`` or ``max``, of which the first decides; empty for a
            model that was not trained here.
    """

    labels: list[str]
    n_slots: int
    sampling_rate: int
    network: str
    network_conf: dict[str, Any]
    best_model_criterion: list[tuple[str, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        LabelSet(tuple(self.labels))
        for key in ("n_slots", "sampling_rate"):
            if getattr(self, key) < 1:
                raise InputError(f"key {key}", getattr(self, key), "1 or more")


def read_config(folder: str | Path) -> NetworkConfig:
    """Reads the config.yaml of a trained model. Raises InputError if it is missing, or naming a wrong key."""
    path = Path(folder, "config.yaml")
    if not path.is_file():
        raise InputError(folder, "no config.yaml", "a trained model (stages 3 to 6)")
    config = load_yaml(path)
    return parse(NetworkConfig, {k: config[k] for k in NetworkConfig.__dataclass_fields__ if k in config}, path)


def read_meta(folder: str | Path) -> ModelMeta:
    """Reads labels, K and sampling rate of a trained model. Raises InputError as :func:`read_config`."""
    config = read_config(folder)
    return ModelMeta(LabelSet(tuple(config.labels)), config.n_slots, config.sampling_rate)


def best_checkpoint(folder: str | Path, name: str | None = None) -> Path:
    """The checkpoint to decode with: the n-best average or, without one, the best epoch by the first criterion.

    A model that was not trained here has only :data:`WEIGHTS`.

    Args:
        folder: experiment folder.
        name: file in the folder to use instead.

    Raises:
        InputError: the file does not exist, or the training has not finished an epoch.
    """
    folder = Path(folder)
    if name is not None:
        if not (folder / name).is_file():
            raise InputError(folder / name, "no such file", one_of(sorted(p.name for p in folder.glob("*.pth")), name))
        return folder / name
    config = read_config(folder)
    if not config.best_model_criterion:
        return best_checkpoint(folder, WEIGHTS)
    phase, key, _ = config.best_model_criterion[0]
    for kind in ("ave", "best"):
        path = folder / f"{phase}.{key}.{kind}.pth"
        if path.is_file():
            return path
    raise InputError(folder, f"no {phase}.{key}.best.pth", "a training that has finished an epoch (stages 3 to 6)")
