"""Fuses separators' outputs with weights that depend on the class (Deng et al., section 2.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from s5.utils.errors import InputError


@dataclass
class GroupConfig:
    """Labels with the same fusion weights."""

    labels: list[str]
    weights: dict[str, float]


@dataclass
class FusionConfig:
    """The key ``fusion`` of a system: weights of the separators; see :func:`fuse`."""

    default: dict[str, float] | None = None
    """Weight of each separator by name; by default 1 for the first separator."""
    classes: dict[str, dict[str, float]] = field(default_factory=dict)
    """Weights of single labels."""
    groups: list[GroupConfig] = field(default_factory=list)
    """Weights that several labels share (the groups of Table 2, Deng et al.)."""
    sharpen: dict[str, float] = field(default_factory=dict)
    """Strength of mask sharpening by separator (:func:`s5.separation.sharpen.sharpen`); by default 0."""

    def __post_init__(self) -> None:
        grouped = [label for group in self.groups for label in group.labels]
        for label in grouped:
            if grouped.count(label) > 1:
                raise InputError("fusion: key groups", f"label {label} twice", "each label in one group")
        for rule, weights in {"default": self.default or {}, **self.rules()}.items():
            for name, weight in weights.items():
                if not np.isfinite(weight):
                    raise InputError(f"fusion: {rule}: {name}", weight, "a finite weight")
        for name, strength in self.sharpen.items():
            if not 0 <= strength < float("inf"):
                raise InputError(f"fusion: sharpen: {name}", strength, "0 or more")

    def rules(self) -> dict[str, dict[str, float]]:
        """Weights by label: ``classes`` override ``groups``."""
        return {label: group.weights for group in self.groups for label in group.labels} | self.classes


def fuse(
    outputs: Mapping[str, np.ndarray],
    labels: Sequence[str],
    default: Mapping[str, float],
    classes: Mapping[str, Mapping[str, float]] | None = None,
) -> np.ndarray:
    """Sums the separators' waveforms by weights of the slot's class (Eq. (4), Deng et al.).

    If several slots share a label, their outputs are first matched to those of the first separator (lowest summed
    squared distance), so that two sources of a class are not mixed.

    Args:
        outputs: [K, samples] by separator.
        labels: labels of the active slots, at most K; later slots are silent.
        default: weight of each separator for classes without weights of their own; 0 for a separator without a weight.
        classes: weights by label.

    Returns:
        [K, samples] float32, zeros in silent slots.
    """
    first = next(iter(outputs.values()))
    result = np.zeros_like(first, dtype=np.float32)
    for label, slots in slots_by_label(labels).items():
        weights = (classes or {}).get(label, default)
        for name, output in outputs.items():
            weight = weights.get(name, 0.0)
            if weight:
                order = match(_distances(first[slots], output[slots])) if len(slots) > 1 else [0]
                result[slots] += np.float32(weight) * output[slots][order]
    return result


def slots_by_label(labels: Sequence[str]) -> dict[str, list[int]]:
    """Slots of each label.

    Example:
        >>> slots_by_label(["Speech", "Cough", "Speech"])
        {'Speech': [0, 2], 'Cough': [1]}
    """
    return {label: [k for k, name in enumerate(labels) if name == label] for label in dict.fromkeys(labels)}


def match(distance: np.ndarray) -> np.ndarray:
    """Order of the columns with the lowest sum of distances to the rows.

    Args:
        distance: [n, n], distance of each reference (row) to each output (column).
    """
    from scipy.optimize import linear_sum_assignment  # its import takes a second

    return linear_sum_assignment(distance)[1]


def _distances(reference: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Squared distances [n, n] of each reference (row) to each source [samples] (column)."""
    return np.square(reference[:, None].astype(np.float64) - sources[None]).sum(-1)
