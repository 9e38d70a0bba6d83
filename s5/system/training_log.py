"""Writes and reads the training log of an experiment, ``exp/<name>/epochs.jsonl``: one JSON object per epoch and line.

    {"epoch": 3, "parameters": 1132435, "trainable_parameters": 1132435,
     "train": {"loss": -4.1, "optim0_lr0": 0.001, "seconds": 38.2}, "valid": {"loss": -3.9, "seconds": 2.0}}

The trainer rewrites the file from its checkpoint after every epoch and when it resumes. So an epoch that was
interrupted and repeated is in the file once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from numbers import Real
from pathlib import Path
from typing import Any

from s5.utils.errors import InputError
from s5.utils.files import write_text
from s5.utils.text import read_text

FILE = "epochs.jsonl"


@dataclass(frozen=True)
class Epoch:
    """One epoch of a training.

    Attributes:
        epoch: number, from 1.
        parameters: number of parameters of the network.
        trainable_parameters: number of parameters that are not frozen.
        train: figures of the training pass by name; ``seconds`` is its duration.
        valid: figures of the validation pass.
    """

    epoch: int
    parameters: int
    trainable_parameters: int
    train: dict[str, float]
    valid: dict[str, float]

    @property
    def time(self) -> timedelta:
        """Duration of training and validation together, without interruptions."""
        return timedelta(seconds=self.train.get("seconds", 0.0) + self.valid.get("seconds", 0.0))


def write_epochs(
    folder: str | Path, stats: Mapping[int, Mapping[str, Mapping[str, Any]]], parameters: int, trainable: int
) -> None:
    """Writes the log atomically.

    Args:
        folder: experiment folder.
        stats: epoch -> ``train`` or ``valid`` -> name -> value, as ESPnet's reporter keeps them; ``time`` is a
            timedelta.
        parameters: number of parameters of the network.
        trainable: number of parameters that are not frozen.
    """
    lines = []
    for number, parts in sorted(stats.items()):
        line: dict[str, Any] = {"epoch": number, "parameters": parameters, "trainable_parameters": trainable}
        line |= {part: _figures(parts.get(part, {})) for part in ("train", "valid")}
        lines.append(json.dumps(line, allow_nan=False) + "\n")
    write_text(Path(folder, FILE), "".join(lines))


def read_epochs(folder: str | Path) -> list[Epoch]:
    """Reads the epochs of an experiment folder, in order; an empty list without a log.

    Raises:
        InputError: a line is no epoch.
    """
    file = Path(folder, FILE)
    if not file.is_file():
        return []
    epochs = []
    for number, line in enumerate(read_text(file, "a JSON object for each epoch").splitlines(), 1):
        try:
            fields = json.loads(line)
            for part in ("train", "valid"):
                fields[part] = {name: math.nan if v is None else float(v) for name, v in fields[part].items()}
            epochs.append(Epoch(**fields))
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            raise InputError(f"{file}:{number}", f"no epoch ({e})", "a JSON object as the trainer writes it") from None
    return epochs


def _figures(part: Mapping[str, Any]) -> dict[str, float | None]:
    """Plain numbers; None for NaN and infinity, which JSON lacks."""
    found = {name: float(value) for name, value in part.items() if isinstance(value, Real)}
    if isinstance(part.get("time"), timedelta):
        found["seconds"] = part["time"].total_seconds()
    return {name: value if math.isfinite(value) else None for name, value in found.items()}
