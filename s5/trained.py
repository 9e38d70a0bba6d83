"""What an experiment folder holds, known without loading the model. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from s5.config import load_yaml
from s5.errors import InputError, one_of
from s5.labels import LabelSet
from s5.system import WEIGHTS


class Facts(NamedTuple):
    """What a model was trained for."""

    labels: LabelSet
    n_slots: int
    sampling_rate: int


def read_facts(folder: str | Path) -> Facts:
    """The facts of a trained model. Raises InputError if there is none."""
    config = read_config(Path(folder))
    return Facts(LabelSet(tuple(config["labels"])), config["n_slots"], config["sampling_rate"])


def best_checkpoint(folder: str | Path, name: str | None = None) -> Path:
    """The checkpoint to decode with: the n-best average if there is one, else the best epoch, by the first criterion.

    A model from elsewhere, which was not trained here, has one alone: :data:`WEIGHTS`.

    Args:
        folder: experiment folder.
        name: a file in it to take instead.

    Raises:
        InputError: no such file, or the training has not finished an epoch.
    """
    folder = Path(folder)
    if name is not None:
        if not (folder / name).is_file():
            raise InputError(folder / name, "no such file", one_of(sorted(p.name for p in folder.glob("*.pth")), name))
        return folder / name
    config = read_config(folder)
    if "best_model_criterion" not in config:
        return best_checkpoint(folder, WEIGHTS)
    phase, key, _ = config["best_model_criterion"][0]
    for kind in ("ave", "best"):
        path = folder / f"{phase}.{key}.{kind}.pth"
        if path.is_file():
            return path
    raise InputError(folder, f"no {phase}.{key}.best.pth", "a training that has finished an epoch (stages 3 to 6)")


def read_config(folder: Path) -> dict[str, Any]:
    """All options of a training. Raises InputError if there is none."""
    if not (folder / "config.yaml").is_file():
        raise InputError(folder, "no config.yaml", "a trained model (stages 3 to 6)")
    return load_yaml(folder / "config.yaml")
